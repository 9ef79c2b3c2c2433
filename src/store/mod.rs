//! "Here is a sample id, give me its row."
//!
//! A source is read once into an uncompressed Arrow IPC file, which is then memory-mapped: rows are gathered from it
//! at random about a thousand times faster than from Parquet, and the operating system decides what stays in memory.
//! Building keeps some record batches in memory (about 60,000 rows), whatever the data's size. Data larger than memory are
//! gathered by asking the system for the rows of a mini-batch all at once ([`Advice`]). Not for data that changes: a changed file
//! is read again, from the start.
//!
//! ```
//! use prosampler::arrow::array::{AsArray, Int64Array, RecordBatch};
//! use prosampler::{SampleId, config::StoreConfig, source::MemorySource, store::Store};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let column = std::sync::Arc::new(Int64Array::from(vec![10, 11, 12]));
//! let source = MemorySource::new(vec![RecordBatch::try_from_iter([("n", column as _)])?])?;
//! let store = Store::build(&source, &["n".to_owned()], &StoreConfig::default(), &mut |_| {}).await?;
//! let rows = store.gather(&[SampleId(2), SampleId(0)])?;
//! assert_eq!(rows["n"].as_primitive::<prosampler::arrow::datatypes::Int64Type>().values(), &[12, 10]);
//! # Ok(())
//! # }
//! ```

mod advice;
mod build;
mod dot;
mod embeddings;
pub(crate) mod ipc;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;

pub(crate) use self::dot::{dot, prefetch};
pub use self::embeddings::EmbeddingTable;
use crate::config::{Advice, StoreConfig};
use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::source::{Source, positions};
use crate::telemetry;

/// All rows of a data set, by [`SampleId`]. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Store {
    uri: Arc<str>,
    schema: SchemaRef,
    /// Each of `ROWS_PER_BATCH` rows, but for the last.
    batches: Arc<[RecordBatch]>,
    len: usize,
    /// Rows are asked for before they are read.
    asks: bool,
}

impl Store {
    /// Reads `columns` of all rows of `source`, or opens the cache of an earlier run over the same source and columns
    /// if `config` names a folder for it. Dictionary columns are stored plain. `progress` hears how many rows are in.
    ///
    /// # Errors
    /// Whatever the source reports, [`Error::Io`] where the cache cannot be written (nothing half-written is ever
    /// used), [`Error::TooManySamples`].
    pub async fn build(
        source: &dyn Source,
        columns: &[String],
        config: &StoreConfig,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        let span = telemetry::store(source.uri());
        build::build(source, columns, config, progress, span).await
    }

    fn new(uri: &str, schema: SchemaRef, batches: Vec<RecordBatch>, advice: Advice) -> Result<Self> {
        let len = batches.iter().map(RecordBatch::num_rows).sum();
        if len > u32::MAX as usize {
            return Err(Error::TooManySamples { uri: uri.to_owned() });
        }
        let asks = advice::advise(&batches, advice);
        Ok(Self { uri: uri.into(), schema, batches: batches.into(), len, asks })
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the source is called in messages.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The same rows with these columns only, in this order; nothing is copied.
    ///
    /// # Errors
    /// [`Error::MissingColumn`].
    pub fn select(&self, columns: &[String]) -> Result<Self> {
        let positions = positions(&self.uri, &self.schema, columns)?;
        let failed = |cause| Error::Arrow { action: "select columns", cause };
        let batches = self.batches.iter().map(|b| b.project(&positions)).collect::<Result<Vec<_>, _>>();
        let schema = Arc::new(self.schema.project(&positions).map_err(failed)?);
        Ok(Self { schema, batches: batches.map_err(failed)?.into(), ..self.clone() })
    }

    /// The rows in their order, in large record batches, each with the id of its first row.
    pub fn record_batches(&self) -> impl Iterator<Item = (SampleId, &RecordBatch)> {
        let ask = |&(_, batch): &(SampleId, &RecordBatch)| {
            if self.asks {
                advice::ask_for_all(batch);
            }
        };
        self.batches.iter().enumerate().map(|(i, b)| (SampleId::new(i * ROWS_PER_BATCH), b)).inspect(ask)
    }

    /// The rows of these samples, in this order, copied together into one record batch. Blocks while pages come in
    /// from disk: not for tokio's worker threads.
    ///
    /// # Errors
    /// [`Error::UnknownSample`]; [`Error::Arrow`] where a string column of the result would pass 2 GiB.
    pub fn gather(&self, ids: &[SampleId]) -> Result<RecordBatch> {
        if let Some(&sample) = ids.iter().find(|id| id.index() >= self.len) {
            return Err(Error::UnknownSample { sample, len: self.len });
        }
        if ids.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema()));
        }
        let places: Vec<_> = ids.iter().map(|id| (id.index() / ROWS_PER_BATCH, id.index() % ROWS_PER_BATCH)).collect();
        if self.asks {
            advice::ask_for(&self.batches, &places);
        }
        let batches: Vec<_> = self.batches.iter().collect();
        interleave_record_batch(&batches, &places).map_err(|cause| Error::Arrow { action: "gather rows", cause })
    }
}

/// Fixed, so that an id's place is a division. Small enough that mapped columns of long texts stay below 2 GiB.
const ROWS_PER_BATCH: usize = 8192;
