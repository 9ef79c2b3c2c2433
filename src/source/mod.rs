//! "Here is a uri, give me record batches."
//!
//! A [`Source`] is read from front to back, once, into the [store](crate::store); nothing ever gathers rows from it.
//! [`FileSource`] reads Parquet and Arrow IPC, [`MemorySource`] holds record batches that are already there,
//! [`FilteredSource`] leaves rows out, and anything else that can be read in a fixed order is a `Source` of your own.
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

#[cfg(feature = "cloud")]
mod blocks;
mod columns;
pub mod contract;
mod data_file;
mod file;
mod files;
mod filter;
mod folder;
mod foreign;
mod ipc;
mod lengths;
mod location;
mod memory;
#[cfg(feature = "cloud")]
mod object;
mod parquet;
mod parquet_footer;
mod parquet_pages;
mod parquet_types;
mod pattern;
mod reading;
mod texts;
mod types;
mod uri;
mod varint;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use self::file::FileSource;
#[cfg(feature = "cli")]
pub(crate) use self::files::local_files;
pub use self::filter::FilteredSource;
pub use self::memory::MemorySource;
pub(crate) use self::texts::readable;
use crate::config::SourceConfig;
use crate::error::{Error, Result};

/// Record batches, one after another, until the end or an error.
pub type RecordBatches = BoxStream<'static, Result<RecordBatch>>;

/// Something that can be read from front to back, always in the same order.
pub trait Source: Send + Sync + 'static {
    /// What to call it in messages.
    fn uri(&self) -> &str;

    /// Its columns.
    fn schema(&self) -> SchemaRef;

    /// Rows in all, where that is known without reading them.
    fn rows(&self) -> Option<usize> {
        None
    }

    /// The condition that leaves rows out, `None` by default; messages about too few rows name it.
    fn filter(&self) -> Option<&str> {
        None
    }

    /// What its rows hang on. `None`, the default, keeps them from being cached beyond the run.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// Looks again: a source of the shards that have come since, `None` where there are none (the default) or they
    /// cannot be told apart.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] where one of the `known` shards is no longer there as it was; those of opening.
    fn added(&self, known: Vec<Shard>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let _ = known;
        std::future::ready(Ok(None)).boxed()
    }

    /// What it has got over so far; default nothing.
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }

    /// Reads these columns of all rows, in the source's order. CPU work and blocking IO must not run on the thread
    /// that polls.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; what goes wrong later comes as an item of the stream.
    fn read(&self, columns: &[String]) -> Result<RecordBatches>;
}

/// What a source has got over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Rows that lay in damaged parts and were skipped, where their number is known: in Parquet it is.
    pub skipped_rows: usize,
    /// Values that are null in the store since they are no UTF-8. Known once rows are stored: a source gives bytes.
    pub bad_texts: usize,
    /// Requests to object stores that failed for a passing reason, and so were sent again while retries were left.
    pub faults: usize,
}

/// What the rows of a source hang on: where this is the same, they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Where they are looked for, and what leaves some of them out: a filter.
    pub settings: String,
    /// What they were read from, in order.
    pub shards: Vec<Shard>,
}

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Where it is, from anywhere.
    pub uri: String,
    /// A text that changes whenever its content may have changed: size, and time of change or tag. One line.
    pub version: String,
}

/// How to reach object stores, and what went wrong there so far.
#[derive(Clone)]
struct Access {
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "nothing is far away then"))]
    options: BTreeMap<String, String>,
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "nothing is far away then"))]
    retries: usize,
    faults: Arc<AtomicUsize>,
}

impl Access {
    fn new(config: &SourceConfig) -> Self {
        Self { options: config.options.clone(), retries: config.retries, faults: Arc::default() }
    }
}

/// The source that these settings name.
///
/// # Errors
/// Those of [`FileSource::open_all`] and [`FilteredSource::new`].
pub async fn open(config: &SourceConfig) -> Result<Box<dyn Source>> {
    filtered(Box::new(FileSource::open_all(config).await?), config.filter.as_deref())
}

/// The rows for which `filter` holds, all where there is none.
pub(crate) fn filtered(source: Box<dyn Source>, filter: Option<&str>) -> Result<Box<dyn Source>> {
    Ok(match filter {
        Some(filter) => Box::new(FilteredSource::new(source, filter)?),
        None => source,
    })
}

/// The positions of `columns` in `schema`.
///
/// # Errors
/// [`Error::MissingColumn`] with the columns that are there, [`Error::AmbiguousColumn`] where several have the name.
pub fn positions(uri: &str, schema: &Schema, columns: &[String]) -> Result<Vec<usize>> {
    let position = |column: &String| {
        let uri = || uri.to_owned();
        let position = schema.index_of(column).map_err(|_| Error::MissingColumn {
            column: column.clone(),
            uri: uri(),
            available: schema.fields().iter().map(|f| f.name().clone()).collect(),
        })?;
        match schema.fields()[position..].iter().filter(|field| field.name() == column).count() {
            1 => Ok(position),
            count => Err(Error::AmbiguousColumn { column: column.clone(), uri: uri(), count }),
        }
    };
    columns.iter().map(position).collect()
}
