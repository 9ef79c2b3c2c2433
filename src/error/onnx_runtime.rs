//! A machine without a usable ONNX Runtime, or without the device that is asked for.

use std::path::PathBuf;

use super::Cause;
use super::text::bullets;

/// ONNX Runtime, or a device that is to build the graph, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxRuntimeError {
    /// ONNX Runtime's shared library is nowhere to be found.
    #[error(
        "ONNX Runtime's shared library was not found; looked for:\n{}\ninstall it with `pip install \
         onnxruntime` in the active Python environment, run `make setup` in a clone, or set `encode.runtime` or \
         ORT_DYLIB_PATH to the file",
        bullets(looked)
    )]
    #[non_exhaustive]
    Missing {
        /// Every place looked at, in order.
        looked: Vec<String>,
    },

    /// A library was found, but it is not an ONNX Runtime that can be used.
    #[error("cannot load ONNX Runtime from `{}`: {cause}; version 1.24 or later is needed", path.display())]
    #[non_exhaustive]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's reason.
        #[source]
        cause: Cause,
    },

    /// A device that the graph was to be built on, and that cannot be used.
    #[error("cannot build the graph on {device}: {reason}; mend that, or set graph.device = \"cpu\"")]
    #[non_exhaustive]
    Device {
        /// The device: `cuda`.
        device: String,
        /// Why not.
        reason: String,
    },
}
