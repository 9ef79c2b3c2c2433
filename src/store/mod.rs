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
#[cfg(feature = "cli")]
pub(crate) mod cached;
mod gather;
mod hashes;
mod lock;
mod plain;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use self::build::StoreBuilder;
pub use self::hashes::{ColumnPath, Key};
use self::plain::BadTexts;
pub(crate) use self::plain::plain;
use crate::arrow_file::{self, Part};
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
    builder: Arc<StoreBuilder>,
}

/// What one pass over a source has read.
#[derive(Clone, Debug)]
struct Segment {
    shards: Vec<Shard>,
    /// Rows of them that lay in damaged parts.
    skipped_rows: usize,
    bad_texts: Vec<BadTexts>,
    /// Each of `ROWS_PER_BATCH` rows, but for the last, and for long rows.
    parts: Vec<Part>,
}

impl Segment {
    fn batches(&self) -> impl Iterator<Item = &RecordBatch> + Clone {
        self.parts.iter().map(|part| &part.batch)
    }

    fn len(&self) -> usize {
        self.batches().map(RecordBatch::num_rows).sum()
    }
}

impl Store {
    /// Reads `columns` of all rows of `source`, or opens the cache of an earlier run over the same source and columns
    /// if `config` names a folder for it; files that have been added since are read, and come last. Dictionaries, runs
    /// and list views are stored plain. Texts that are no UTF-8 become null, are logged and counted. `progress` hears how
    /// many rows are in.
    ///
    /// Every record batch of a cache has a checksum, which is looked at when [`store.verify`](crate::config::Verify)
    /// says; all of them at once where the file's time shows that it was copied or written to. What is damaged when it
    /// is opened is written again.
    ///
    /// # Errors
    /// Whatever the source reports, [`Error::Io`] where the cache cannot be written (nothing half-written is ever
    /// used), [`Error::RowCount`] where the source gives another number of rows than it promises,
    /// [`Error::UnsupportedSource`] for more rows than a sample id can name.
    pub async fn build(
        source: &dyn Source,
        columns: &[String],
        config: &StoreConfig,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        StoreBuilder::new(source, columns, config)?.build(source, progress).await
    }

    /// This store and the rows of files that `source`, which it was built from, has gained since; `None` where it has
    /// gained none. Every sample keeps its id, and nothing that is here already is read or copied. Not for what
    /// [`select`](Self::select) gave, which would gain columns.
    ///
    /// # Errors
    /// As [`build`](Self::build); [`Error::SourceChanged`] where a file is gone or has changed.
    pub async fn grow(&self, source: &dyn Source) -> Result<Option<Self>> {
        let Some(segment) = self.builder.grow(source, &self.segments).await? else { return Ok(None) };
        let segments = self.segments.iter().cloned().chain([segment]).collect();
        Self::of(self.uri.clone(), segments, self.builder.clone()).map(Some)
    }

    fn new(uri: &str, segments: Vec<Segment>, builder: StoreBuilder) -> Result<Self> {
        Self::of(uri.into(), segments, Arc::new(builder))
    }

    fn of(uri: Arc<str>, segments: Vec<Segment>, builder: Arc<StoreBuilder>) -> Result<Self> {
        let (mut starts, mut firsts, mut len) = (Vec::new(), Vec::new(), 0);
        for segment in &segments {
            starts.push((len, firsts.len()));
            for batch in segment.batches() {
                firsts.push(len);
                len += batch.num_rows();
            }
        }
        if len > u32::MAX as usize {
            return Err(Error::too_many_samples(&uri.to_string()));
        }
        let asks = advice::advise(segments.iter().flat_map(Segment::batches), builder.advice);
        let schema = builder.schema.clone();
        Ok(Self {
            uri,
            schema,
            segments: segments.into(),
            starts: starts.into(),
            firsts: firsts.into(),
            len,
            asks,
            builder,
        })
    }

    /// Rows of the source that lay in damaged parts and are not here, where their number is known; see
    /// [`on_corrupt`](crate::config::SourceConfig::on_corrupt). A cache knows them too.
    #[must_use]
    pub fn skipped_rows(&self) -> usize {
        self.segments.iter().map(|segment| segment.skipped_rows).sum()
    }

    /// Values of its columns that are null since they are texts of the source that are no UTF-8: how many, and of these
    /// the first one with its column.
    pub(crate) fn bad_texts(&self) -> (usize, Option<(SampleId, &str)>) {
        let segments = self.segments.iter().zip(self.starts.iter());
        let all = segments.flat_map(|(segment, (start, _))| segment.bad_texts.iter().map(move |bad| (start, bad)));
        let here = all.filter(|(_, bad)| self.schema.index_of(&bad.column).is_ok());
        here.fold((0, None), |(count, first), (start, bad)| {
            (count + bad.count, first.or_else(|| Some((SampleId::new(start + bad.first), bad.column.as_str()))))
        })
    }

    /// A text for the rows as they are; another one where ids may name other rows.
    pub(crate) fn fingerprint(&self) -> String {
        self.fingerprint_of(self.segments.len())
    }

    fn fingerprint_of(&self, segments: usize) -> String {
        let mut text = format!("{}\n", self.builder.settings);
        for segment in &self.segments[..segments] {
            let shards = segment.shards.iter().map(|shard| format!("{}\t{}\n", shard.version, shard.uri));
            text.extend(shards);
            if segment.shards.is_empty() {
                // Nothing says where they are from, so the rows themselves must.
                text.extend(segment.parts.iter().map(|part| arrow_file::to_text(part.checksum())));
            }
            text.push_str(&format!("{}\n", segment.len()));
        }
        arrow_file::to_text(arrow_file::checksum(text.as_bytes()))
    }

    /// This store when it had `len` rows, if it had that fingerprint before: without what it has gained since.
    pub(crate) fn as_it_was(&self, fingerprint: &str, len: usize) -> Option<Self> {
        let before = (1..=self.segments.len()).find(|&segments| self.fingerprint_of(segments) == fingerprint)?;
        let ends = self.starts.iter().map(|(first, _)| *first).skip(1).chain([self.len]);
        let segments = 1 + ends.enumerate().position(|(i, end)| i + 1 >= before && end == len)?;
        Self::of(self.uri.clone(), self.segments[..segments].to_vec(), self.builder.clone()).ok()
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
            let parts = segment.parts.iter().map(|part| part.project(&positions)).collect::<Result<_, _>>();
            Ok(Segment { parts: parts.map_err(failed)?, ..segment.clone() })
        };
        let segments = self.segments.iter().map(select).collect::<Result<_>>()?;
        let schema = Arc::new(self.schema.project(&positions).map_err(failed)?);
        Ok(Self { schema, segments, ..self.clone() })
    }

    /// The rows in their order, in large record batches, each with the id of its first row. Blocks while they come in
    /// from disk: not for tokio's worker threads.
    ///
    /// # Errors
    /// [`Error::Damaged`] in the place of a record batch that is not as it was written.
    pub fn record_batches(&self) -> impl Iterator<Item = Result<(SampleId, &RecordBatch)>> {
        let firsts = self.firsts.iter().map(|&first| SampleId::new(first));
        firsts.zip(self.segments.iter().flat_map(|segment| &segment.parts)).map(|(first, part)| {
            if self.asks {
                advice::ask_for_all(&part.batch);
            }
            Ok((first, self.builder.verified(part)?))
        })
    }

    /// The rows of these samples, in this order, copied together into one record batch. Blocks while pages come in
    /// from disk: not for tokio's worker threads.
    ///
    /// # Errors
    /// [`Error::UnknownSample`]; [`Error::Damaged`] for rows that are not as they were written; [`Error::Arrow`] where a
    /// string column of the result would pass 2 GiB.
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
        // To check a record batch takes reading all of it: too much for some rows where not all fit in memory.
        let checked = |&batch: &usize| match self.part(batch) {
            part if self.asks => Ok(&part.batch),
            part => self.builder.verified(part),
        };
        let batches: Vec<_> = used.iter().map(checked).collect::<Result<_>>()?;
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

    fn part(&self, number: usize) -> &Part {
        let segment = self.starts.partition_point(|(_, first)| *first <= number) - 1;
        &self.segments[segment].parts[number - self.starts[segment].1]
    }
}

/// Rows of a record batch, at most.
const ROWS_PER_BATCH: usize = 8192;

/// And bytes, unless a single row has more: offsets within a column reach 2 GiB only, and some record batches are in
/// memory while a store is built.
const BYTES_PER_BATCH: usize = 64 << 20;
