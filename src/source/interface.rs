//! What a source must do, and what it says about itself.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::Serialize;

use crate::error::{ColumnError, Result};

/// Record batches, one after another, until the end or an error.
pub type RecordBatches = BoxStream<'static, Result<RecordBatch>>;

/// Something that can be read from front to back, always in the same order.
///
/// ```
/// use futures::{StreamExt, stream};
/// use prosampler::Result;
/// use prosampler::arrow::array::RecordBatch;
/// use prosampler::arrow::datatypes::SchemaRef;
/// use prosampler::source::{RecordBatches, Source, column_indices, contract};
///
/// /// One table, as a query has returned it.
/// struct Query(RecordBatch);
///
/// impl Source for Query {
///     fn uri(&self) -> &str {
///         "query"
///     }
///
///     fn schema(&self) -> SchemaRef {
///         self.0.schema()
///     }
///
///     fn read(&self, columns: &[String]) -> Result<RecordBatches> {
///         let indices = column_indices(self.uri(), &self.schema(), columns)?;
///         let rows = self.0.project(&indices).expect("the columns exist");
///         Ok(stream::iter([Ok(rows)]).boxed())
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let column = std::sync::Arc::new(prosampler::arrow::array::Int64Array::from(vec![10, 11, 12]));
/// let rows = RecordBatch::try_from_iter([("n", column as _)])?;
/// assert_eq!(contract::check(&Query(rows)).await, Ok(()));
/// # Ok(())
/// # }
/// ```
pub trait Source: Send + Sync + 'static {
    /// Returns the name that messages use.
    fn uri(&self) -> &str;

    /// Returns the columns.
    fn schema(&self) -> SchemaRef;

    /// Returns the number of rows if it is known without reading them. Default: `None`.
    fn rows(&self) -> Option<usize> {
        None
    }

    /// Returns the condition that leaves rows out; messages about too few rows name it. Default: `None`.
    fn filter(&self) -> Option<&str> {
        None
    }

    /// Returns what the rows depend on. With `None`, the default, no cache of them outlives the run.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// Looks for files that are not among the `known` ones, and returns a source of them.
    ///
    /// The result is `None` if there are none, or if this source cannot tell them apart, which is the default.
    ///
    /// # Errors
    /// [`Error::SourceChanged`](crate::Error::SourceChanged) if one of the `known` files has changed or is
    /// gone; the errors of opening a source.
    fn added(&self, known: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let _ = known;
        std::future::ready(Ok(None)).boxed()
    }

    /// Returns how much it has skipped or tried again so far. Default: nothing.
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }

    /// Reads these columns of all rows, in the source's order.
    ///
    /// The stream is polled by a thread of the async runtime: do CPU work and blocking IO elsewhere.
    ///
    /// # Errors
    /// [`ColumnError::Missing`]. An error while rows are read is an item of the stream.
    fn read(&self, columns: &[String]) -> Result<RecordBatches>;
}

/// Counts of what a source has tolerated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceCounts {
    /// Rows skipped since they lay in damaged parts. Parquet states how many these are, Arrow IPC does not.
    pub skipped_rows: usize,
    /// Texts that are null in the store since they are not UTF-8. Known once rows are stored: a source gives bytes.
    pub bad_texts: usize,
    /// Requests to object stores that failed for a passing reason. They were sent again while retries were left.
    pub failed_requests: usize,
}

/// What the rows of a source depend on: two sources with equal fingerprints have the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Where rows are looked for, and what leaves some of them out, such as a filter.
    pub settings: String,
    /// The files that the rows are read from, in order.
    pub files: Vec<SourceFile>,
}

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceFile {
    /// Where it is; a local path is absolute.
    pub uri: String,
    /// One line that changes whenever the content may have changed: its size, and a time of change or a tag.
    pub version: String,
}

/// Returns the indices of `columns` in `schema`; `uri` names the source in errors.
///
/// # Errors
/// [`ColumnError::Missing`] with the columns that are there; [`ColumnError::Ambiguous`] if several have the name.
pub fn column_indices(uri: &str, schema: &Schema, columns: &[String]) -> Result<Vec<usize>> {
    let index = |column: &String| {
        let uri = || uri.to_owned();
        let index = schema.index_of(column).map_err(|_| ColumnError::Missing {
            column: column.clone(),
            uri: uri(),
            available: schema.fields().iter().map(|f| f.name().clone()).collect(),
        })?;
        match schema.fields()[index..].iter().filter(|field| field.name() == column).count() {
            1 => Ok(index),
            count => Err(ColumnError::Ambiguous { column: column.clone(), uri: uri(), count }.into()),
        }
    };
    columns.iter().map(index).collect()
}
