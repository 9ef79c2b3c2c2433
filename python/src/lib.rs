//! `prosampler._prosampler`: what the Python package `prosampler` stands on. Signatures and conversions only.

#[cfg(feature = "command")]
mod command;
mod dlpack;
mod embedder;
mod errors;
mod handle;
mod interchange;
mod log;
mod mini_batch;
mod pending;
mod record_batch;
#[cfg(feature = "serve")]
mod remote;
mod run;
mod search;
#[cfg(feature = "serve")]
mod server;
mod source;
mod state;
mod stream;

use pyo3::prelude::*;

#[pymodule]
mod _prosampler {
    #[cfg(feature = "command")]
    #[pymodule_export]
    use super::command::command;
    #[pymodule_export]
    use super::embedder::{RawEmbedder, shards_of};
    #[pymodule_export]
    use super::handle::{Refresh, RefreshHandle, Refreshed};
    #[pymodule_export]
    use super::log::take_log;
    #[pymodule_export]
    use super::mini_batch::MiniBatch;
    #[pymodule_export]
    use super::record_batch::{Column, RecordBatch};
    #[cfg(feature = "serve")]
    #[pymodule_export]
    use super::remote::{connect, served};
    #[pymodule_export]
    use super::search::Corpus;
    #[cfg(feature = "serve")]
    #[pymodule_export]
    use super::server::RawServer;
    #[pymodule_export]
    use super::source::wait_for_readers;
    #[pymodule_export]
    use super::state::{newest_kept_state, skip};
    #[pymodule_export]
    use super::stream::{RawStream, check_settings};

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
