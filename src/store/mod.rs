//! "Here is a sample id, give me its row."
//!
//! A source is read once into an uncompressed Arrow IPC file, which is then memory-mapped: rows are gathered from it
//! at random about a thousand times faster than from Parquet, and the operating system decides what stays in memory.
//! Building keeps some record batches in memory, whatever the data's size: about 60,000 rows, or 400 MB where that many
//! would be more. Data larger than memory are gathered by asking the system for the rows of a mini-batch all at once
//! ([`store.advice`](crate::config::Advice)). Files may be added while a store is in use; not for files that change:
//! then all are read again, from the start.
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
mod embeddings_file;
mod gather;
mod groups;
pub(crate) mod ipc;
mod lock;
mod skipped;
mod vectors;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use self::build::Recipe;
pub(crate) use self::dot::{dot, dots, prefetch};
pub use self::embeddings::EmbeddingTable;
pub use self::groups::Groups;
pub use self::skipped::SkipReason;
pub(crate) use self::skipped::{Flaw, prepare};
use crate::config::StoreConfig;
use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::source::{Shard, Source, positions};

/// All rows of a data set, by [`SampleId`]. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Store {
    uri: Arc<str>,
    schema: SchemaRef,
    segments: Arc<[Segment]>,
    /// First row and first record batch of each segment.
    starts: Arc<[(usize, usize)]>,
    /// First row of each record batch, of all segments.
    firsts: Arc<[usize]>,
    len: usize,
    /// Rows are asked for before they are read.
    asks: bool,
    recipe: Arc<Recipe>,
}

/// What one pass over a source has read.
#[derive(Clone, Debug)]
struct Segment {
    shards: Vec<Shard>,
    /// Rows of them that lay in damaged parts.
    skipped_rows: usize,
    /// Each of `ROWS_PER_BATCH` rows, but for the last, and for long rows.
    batches: Vec<RecordBatch>,
}

impl Segment {
    fn len(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

impl Store {
    /// Reads `columns` of all rows of `source`, or opens the cache of an earlier run over the same source and columns
    /// if `config` names a folder for it; files that have been added since are read, and come last. Dictionary columns
    /// are stored plain. `progress` hears how many rows are in.
    ///
    /// A cache is checked when it is opened: whatever was changed after it was written is noticed by the file's time, a
    /// damaged structure or text by itself, and the cache is written again. What a failing disk does to numbers or bytes
    /// is not noticed. Copy a cache with its time (`cp -p`, `rsync -t`), or it is built once more.
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
        Recipe::new(source, columns, config)?.build(source, progress).await
    }

    /// This store and the rows of files that `source`, which it was built from, has gained since; `None` where it has
    /// gained none. Every sample keeps its id, and nothing that is here already is read or copied. Not for what
    /// [`select`](Self::select) gave, which would gain columns.
    ///
    /// # Errors
    /// As [`build`](Self::build); [`Error::SourceChanged`] where a file is gone or has changed.
    pub async fn grow(&self, source: &dyn Source) -> Result<Option<Self>> {
        let Some(segment) = self.recipe.grow(source, &self.segments).await? else { return Ok(None) };
        let segments = self.segments.iter().cloned().chain([segment]).collect();
        Self::of(self.uri.clone(), segments, self.recipe.clone()).map(Some)
    }

    fn new(uri: &str, segments: Vec<Segment>, recipe: Recipe) -> Result<Self> {
        Self::of(uri.into(), segments, Arc::new(recipe))
    }

    fn of(uri: Arc<str>, segments: Vec<Segment>, recipe: Arc<Recipe>) -> Result<Self> {
        let (mut starts, mut firsts, mut len) = (Vec::new(), Vec::new(), 0);
        for segment in &segments {
            starts.push((len, firsts.len()));
            for batch in &segment.batches {
                firsts.push(len);
                len += batch.num_rows();
            }
        }
        if len > u32::MAX as usize {
            return Err(Error::TooManySamples { uri: uri.to_string() });
        }
        let asks = advice::advise(segments.iter().flat_map(|segment| &segment.batches), recipe.advice);
        let schema = recipe.schema.clone();
        Ok(Self {
            uri,
            schema,
            segments: segments.into(),
            starts: starts.into(),
            firsts: firsts.into(),
            len,
            asks,
            recipe,
        })
    }

    /// Rows of the source that lay in damaged parts and are not here, where their number is known; see
    /// [`on_corrupt`](crate::config::SourceConfig::on_corrupt). A cache knows them too.
    #[must_use]
    pub fn skipped_rows(&self) -> usize {
        self.segments.iter().map(|segment| segment.skipped_rows).sum()
    }

    /// A text for the rows as they are; another one where ids may name other rows.
    pub(crate) fn fingerprint(&self) -> String {
        self.fingerprint_of(self.segments.len())
    }

    fn fingerprint_of(&self, segments: usize) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        for segment in &self.segments[..segments] {
            segment.shards.hash(&mut hasher);
            segment.len().hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// This store when it had `len` rows, if it had that fingerprint before: without what it has gained since.
    pub(crate) fn as_it_was(&self, fingerprint: &str, len: usize) -> Option<Self> {
        let before = (1..=self.segments.len()).find(|&segments| self.fingerprint_of(segments) == fingerprint)?;
        let ends = self.starts.iter().map(|(first, _)| *first).skip(1).chain([self.len]);
        let segments = 1 + ends.enumerate().position(|(i, end)| i + 1 >= before && end == len)?;
        Self::of(self.uri.clone(), self.segments[..segments].to_vec(), self.recipe.clone()).ok()
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
        let select = |segment: &Segment| {
            let batches = segment.batches.iter().map(|b| b.project(&positions)).collect::<Result<_, _>>();
            Ok(Segment { batches: batches.map_err(failed)?, ..segment.clone() })
        };
        let segments = self.segments.iter().map(select).collect::<Result<_>>()?;
        let schema = Arc::new(self.schema.project(&positions).map_err(failed)?);
        Ok(Self { schema, segments, ..self.clone() })
    }

    /// The rows in their order, in large record batches, each with the id of its first row.
    pub fn record_batches(&self) -> impl Iterator<Item = (SampleId, &RecordBatch)> {
        let ask = |&(_, batch): &(SampleId, &RecordBatch)| {
            if self.asks {
                advice::ask_for_all(batch);
            }
        };
        let firsts = self.firsts.iter().map(|&first| SampleId::new(first));
        firsts.zip(self.segments.iter().flat_map(|segment| &segment.batches)).inspect(ask)
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
        let places: Vec<_> = ids.iter().map(|id| self.place(id.index())).collect();
        // Only what is in use: large data sets have thousands of record batches.
        let mut used: Vec<_> = places.iter().map(|(batch, _)| *batch).collect();
        used.sort_unstable();
        used.dedup();
        let batches: Vec<_> = used.iter().map(|&batch| self.batch(batch)).collect();
        let place = |(batch, row)| (used.partition_point(|&used| used < batch), row);
        let places: Vec<_> = places.into_iter().map(place).collect();
        if self.asks {
            advice::ask_for(&batches, &places);
        }
        gather::interleave(self.schema(), &batches, &places)
            .map_err(|cause| Error::Arrow { action: "gather rows", cause })
    }

    /// The record batch, counted through all segments, and the row within that a sample is.
    fn place(&self, id: usize) -> (usize, usize) {
        let batch = self.firsts.partition_point(|first| *first <= id) - 1;
        (batch, id - self.firsts[batch])
    }

    fn batch(&self, number: usize) -> &RecordBatch {
        let segment = self.starts.partition_point(|(_, first)| *first <= number) - 1;
        &self.segments[segment].batches[number - self.starts[segment].1]
    }
}

/// Rows of a record batch, at most.
const ROWS_PER_BATCH: usize = 8192;

/// And bytes, unless a single row has more: offsets within a column reach 2 GiB only, and some record batches are in
/// memory while a store is built.
const BYTES_PER_BATCH: usize = 64 << 20;
