//! "Here is a uri, give me record batches."
//!
//! A [`Source`] is read from front to back, once, into the [store](crate::store); nothing ever gathers rows from it.
//! [`FileSource`] reads Parquet and Arrow IPC, [`MemorySource`] holds record batches that are already there,
//! [`FilteredSource`] leaves rows out, [`ShardSource`] takes a random part, [`MixtureSource`] joins several, and
//! anything else that can be read in a fixed order is a `Source` of your own.
//!
//! The rows of files take this way, through private modules:
//!
//! 1. `find` turns uris into the locations of files, in a fixed order.
//! 2. `location` opens a location: a file of this machine, or an object that is fetched in blocks.
//! 3. `parquet` or `ipc` decodes it, a part at a time; `decode` is what both share.
//! 4. `file` reads several parts at the same time and hands their record batches out in order.
//! 5. `columns` brings the record batches of all files to the same types.
//!
//! ```
//! use futures::TryStreamExt;
//! use prosampler::arrow::{array::{Int64Array, RecordBatch}, error::ArrowError};
//! use prosampler::source::{MemorySource, Source};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let column = std::sync::Arc::new(Int64Array::from(vec![1, 2, 3]));
//! let source = MemorySource::new(vec![RecordBatch::try_from_iter([("n", column as _)])?])?;
//! let read: Vec<_> = source.read(&["n".to_owned()])?.try_collect().await?;
//! assert_eq!(read[0].num_rows(), 3);
//! # Ok(())
//! # }
//! ```

mod columns;
pub mod contract;
mod decode;
mod file;
mod filter;
mod find;
mod interface;
mod ipc;
mod leaves;
mod location;
mod memory;
mod mixture;
mod parquet;
mod shard;
mod texts;
mod types;

pub use self::file::FileSource;
pub use self::filter::FilteredSource;
pub(crate) use self::filter::filtered;
#[cfg(feature = "cli")]
pub(crate) use self::find::local_files;
pub use self::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
pub use self::memory::MemorySource;
pub use self::mixture::MixtureSource;
pub(crate) use self::mixture::{IN_CORPUS, ROLE_COLUMN};
pub use self::shard::{ShardSource, shards_of};
pub(crate) use self::texts::readable;
use crate::config::{NamedSource, SourceConfig};
use crate::error::Result;

/// Opens the source that these settings name.
///
/// # Errors
/// Those of [`FileSource::open_all`] and [`FilteredSource::new`].
pub async fn open(config: &SourceConfig) -> Result<Box<dyn Source>> {
    filtered(unfiltered(config, &[]).await?, config.filter.as_deref())
}

/// Opens several `sources` if there are some, else the files of `config`, without leaving rows out by its filter.
pub(crate) async fn unfiltered(config: &SourceConfig, sources: &[NamedSource]) -> Result<Box<dyn Source>> {
    Ok(match sources {
        [] => Box::new(FileSource::open_all(config).await?),
        several => Box::new(MixtureSource::open(several, config).await?),
    })
}
