//! What a source is, and what it says about itself.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

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
