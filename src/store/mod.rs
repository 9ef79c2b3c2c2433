//! "Here is a sample id, give me its row."
//!
//! A source is read once into an uncompressed Arrow IPC file, which is then memory-mapped. Rows can be gathered from it
//! at random, which Parquet is not made for, and the operating system decides what stays in memory.
//!
//! - Memory: building keeps a few record batches, whatever the size of the data: about 60,000 rows, or 400 MB if these
//!   rows are larger. The mapped file takes none that the system cannot reclaim.
//! - Data larger than memory: the rows of a mini-batch are requested from the system all at once
//!   ([`store.advice`](crate::config::Advice)).
//! - Growth: files may be added while a store is in use. If a file changes, all files are read again.
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
mod decoded;
mod gather;
mod hashes;
mod lock;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use self::build::StoreBuilder;
use self::decoded::BadTexts;
pub(crate) use self::decoded::decoded_schema;
pub use self::hashes::{ColumnPath, Key};
use crate::arrow_file::{self, Part};
use crate::config::StoreConfig;
use crate::error::{ArgumentError, Error, Result};
use crate::sample::SampleId;
use crate::source::{Source, SourceFile, column_indices};

/// All rows of a data set, by [`SampleId`]. Cloning shares them.
///
/// ```
/// use prosampler::arrow::array::{Int64Array, RecordBatch};
/// use prosampler::{SampleId, config::StoreConfig, source::MemorySource, store::Store};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let column = std::sync::Arc::new(Int64Array::from(vec![10, 11, 12]));
/// let source = MemorySource::new(vec![RecordBatch::try_from_iter([("n", column as _)])?])?;
/// let columns = ["n".to_owned()];
/// let store = Store::build(&source, &columns, &StoreConfig::default(), &mut |_| {}).await?;
/// assert_eq!((store.len(), store.schema().fields().len()), (3, 1));
/// assert!(store.gather(&[SampleId(3)]).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    uri: Arc<str>,
    schema: SchemaRef,
    segments: Arc<[Segment]>,
    /// The first row and the first record batch of each segment.
    starts: Arc<[(usize, usize)]>,
    /// The first row of each record batch, through all segments.
    firsts: Arc<[usize]>,
    len: usize,
    /// Whether pages are requested before rows are read.
    requests_pages: bool,
    builder: Arc<StoreBuilder>,
}

/// The rows that one pass over a source has read.
#[derive(Clone, Debug)]
struct Segment {
    files: Vec<SourceFile>,
    /// How many rows of the files lay in damaged parts.
    skipped_rows: usize,
    bad_texts: Vec<BadTexts>,
    /// The record batches: each has `MAX_STORED_BATCH_ROWS` rows, except for the last one and if rows are long.
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
    /// Reads `columns` of all rows of `source`, or opens the cache of an earlier run.
    ///
    /// - A cache is used if `config` names a folder for it, and the source and the columns are the same. Files that
    ///   were added since are read, and their rows come last.
    /// - Dictionaries, runs and list views are stored decoded. Texts that are not UTF-8 become null, and are logged and
    ///   counted.
    /// - Every record batch of a cache has a checksum, which is checked when [`store.verify`](crate::config::Verify)
    ///   says, and on opening if the file's time shows that it was copied or written to. A cache that is found to be
    ///   damaged on opening is written again.
    ///
    /// `progress` is called with the number of rows read so far.
    ///
    /// # Errors
    /// - The errors of the source.
    /// - [`Error::Io`] if the cache cannot be written; a half-written file is never used.
    /// - [`Error::RowCount`] if the source has another number of rows than it promises.
    /// - [`Error::UnsupportedSource`] for more than 4,294,967,295 rows.
    pub async fn build(
        source: &dyn Source,
        columns: &[String],
        config: &StoreConfig,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        StoreBuilder::new(source, columns, config)?.build(source, progress).await
    }

    /// Returns this store with the rows of files that were added to its source; `None` if there are none.
    ///
    /// `source` is the one that the store was built from. Every sample keeps its id, and rows that are here already are
    /// neither read nor copied. Do not grow a store that [`select`](Self::select) returned: it would gain columns.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build); [`Error::SourceChanged`] if a file is gone or has changed.
    pub async fn grow(&self, source: &dyn Source) -> Result<Option<Self>> {
        let Some(segment) = self.builder.grow(source, &self.segments).await? else { return Ok(None) };
        let segments = self.segments.iter().cloned().chain([segment]).collect();
        Self::of(self.uri.clone(), segments, self.builder.clone()).map(Some)
    }

    fn new(uri: &str, segments: Vec<Segment>, builder: StoreBuilder) -> Result<Self> {
        Self::of(uri.into(), segments, Arc::new(builder))
    }

    fn of(uri: Arc<str>, segments: Vec<Segment>, builder: Arc<StoreBuilder>) -> Result<Self> {
        let mut starts = Vec::new();
        let mut firsts = Vec::new();
        let mut len = 0;
        for segment in &segments {
            starts.push((len, firsts.len()));
            for batch in segment.batches() {
                firsts.push(len);
                len += batch.num_rows();
            }
        }
        if len > u32::MAX as usize {
            return Err(Error::too_many_samples(uri.as_ref()));
        }
        let requests_pages = advice::advise_random(segments.iter().flat_map(Segment::batches), builder.advice);
        let schema = builder.schema.clone();
        Ok(Self {
            uri,
            schema,
            segments: segments.into(),
            starts: starts.into(),
            firsts: firsts.into(),
            len,
            requests_pages,
            builder,
        })
    }

    /// Returns how many rows of the source were skipped since they lay in damaged parts, as far as that is known.
    ///
    /// See [`on_corrupt`](crate::config::SourceConfig::on_corrupt). A cache remembers the number.
    #[must_use]
    pub fn skipped_rows(&self) -> usize {
        self.segments.iter().map(|segment| segment.skipped_rows).sum()
    }

    /// Counts the texts of the source that are null here since they are not UTF-8, and returns the first with its
    /// column.
    pub(crate) fn bad_texts(&self) -> (usize, Option<(SampleId, &str)>) {
        let segments = self.segments.iter().zip(self.starts.iter());
        let all = segments.flat_map(|(segment, (start, _))| segment.bad_texts.iter().map(move |bad| (start, bad)));
        let here = all.filter(|(_, bad)| self.schema.index_of(&bad.column).is_ok());
        here.fold((0, None), |(count, first), (start, bad)| {
            (count + bad.count, first.or_else(|| Some((SampleId::new(start + bad.first), bad.column.as_str()))))
        })
    }

    /// Returns a text that identifies the rows: with another text, ids may refer to other rows.
    pub(crate) fn fingerprint(&self) -> String {
        self.fingerprint_of(self.segments.len())
    }

    fn fingerprint_of(&self, segments: usize) -> String {
        let mut text = format!("{}\n", self.builder.settings);
        for segment in &self.segments[..segments] {
            let files =
                segment.files.iter().map(|source_file| format!("{}\t{}\n", source_file.version, source_file.uri));
            text.extend(files);
            if segment.files.is_empty() {
                // Without a fingerprint of the source, the rows themselves identify the data set.
                text.extend(segment.parts.iter().map(|part| arrow_file::to_text(part.checksum())));
            }
            text.push_str(&format!("{}\n", segment.len()));
        }
        arrow_file::to_text(arrow_file::checksum(text.as_bytes()))
    }

    /// Returns the store as it was when it had this fingerprint and `len` rows, without the rows that it gained since.
    ///
    /// Without `len` it is as it was when it had this fingerprint. The result is `None` if it never had them.
    pub(crate) fn as_it_was(&self, fingerprint: &str, len: Option<usize>) -> Option<Self> {
        let before = (1..=self.segments.len()).find(|&segments| self.fingerprint_of(segments) == fingerprint)?;
        let ends = self.starts.iter().map(|(first, _)| *first).skip(1).chain([self.len]);
        let is_wanted = |segments: usize, end: usize| match len {
            Some(len) => segments >= before && end == len,
            None => segments == before,
        };
        let segments = 1 + ends.enumerate().position(|(i, end)| is_wanted(i + 1, end))?;
        Self::of(self.uri.clone(), self.segments[..segments].to_vec(), self.builder.clone()).ok()
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the name of the source in messages.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns the columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Returns the same rows with these columns only, in this order. Copies nothing.
    ///
    /// # Errors
    /// [`ColumnError::Missing`](crate::error::ColumnError::Missing).
    pub fn select(&self, columns: &[String]) -> Result<Self> {
        let column_indices = column_indices(&self.uri, &self.schema, columns)?;
        let failed = |cause| Error::Arrow { action: "select columns", cause };
        let select = |segment: &Segment| {
            let parts = segment.parts.iter().map(|part| part.project(&column_indices)).collect::<Result<_, _>>();
            Ok(Segment { parts: parts.map_err(failed)?, ..segment.clone() })
        };
        let segments = self.segments.iter().map(select).collect::<Result<_>>()?;
        let schema = Arc::new(self.schema.project(&column_indices).map_err(failed)?);
        Ok(Self { schema, segments, ..self.clone() })
    }

    /// Iterates over all rows in large record batches, each with the id of its first row.
    ///
    /// Blocks while pages are read from disk: do not call it on tokio's worker threads.
    ///
    /// # Errors
    /// [`Error::Damaged`] in place of a record batch that has changed since it was written.
    pub fn record_batches(&self) -> impl Iterator<Item = Result<(SampleId, &RecordBatch)>> {
        let firsts = self.firsts.iter().map(|&first| SampleId::new(first));
        firsts.zip(self.segments.iter().flat_map(|segment| &segment.parts)).map(|(first, part)| {
            if self.requests_pages {
                advice::will_need_all(&part.batch);
            }
            Ok((first, self.builder.verified(part)?))
        })
    }

    /// Copies the rows of these samples, in this order, into one record batch.
    ///
    /// Blocks while pages are read from disk: do not call it on tokio's worker threads.
    ///
    /// # Errors
    /// - [`ArgumentError::UnknownSample`] for an id beyond the last row.
    /// - [`Error::Damaged`] for rows that have changed since they were written.
    /// - [`Error::Arrow`] if a string column of the result would exceed 2 GiB.
    pub fn gather(&self, ids: &[SampleId]) -> Result<RecordBatch> {
        if let Some(&sample) = ids.iter().find(|id| id.index() >= self.len) {
            return Err(ArgumentError::UnknownSample { sample, len: self.len }.into());
        }
        if ids.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema()));
        }
        let rows: Vec<_> = ids.iter().map(|id| self.locate(id.index())).collect();
        // Large data sets have thousands of record batches, of which a mini-batch uses few.
        let mut used: Vec<_> = rows.iter().map(|(batch, _)| *batch).collect();
        used.sort_unstable();
        used.dedup();
        // To check a record batch means to read all of it, which is too much if the data do not fit in memory.
        let checked = |&batch: &usize| match self.part(batch) {
            part if self.requests_pages => Ok(&part.batch),
            part => self.builder.verified(part),
        };
        let batches: Vec<_> = used.iter().map(checked).collect::<Result<_>>()?;
        let among_used = |(batch, row)| (used.partition_point(|&used| used < batch), row);
        let rows: Vec<_> = rows.into_iter().map(among_used).collect();
        if self.requests_pages {
            advice::will_need(&batches, &rows);
        }
        gather::interleave(self.schema(), &batches, &rows)
            .map_err(|cause| Error::Arrow { action: "gather rows", cause })
    }

    /// Returns a sample's record batch, counted through all segments, and its row in it.
    fn locate(&self, id: usize) -> (usize, usize) {
        let batch = self.firsts.partition_point(|first| *first <= id) - 1;
        (batch, id - self.firsts[batch])
    }

    /// Returns a record batch, counted through all segments.
    fn part(&self, number: usize) -> &Part {
        let segment = self.starts.partition_point(|(_, first)| *first <= number) - 1;
        &self.segments[segment].parts[number - self.starts[segment].1]
    }
}

/// The most rows of a record batch.
const MAX_STORED_BATCH_ROWS: usize = 8192;

/// The most bytes of a record batch, unless a single row has more.
///
/// Offsets within a column reach 2 GiB only, and some record batches are in memory while a store is built.
const MAX_STORED_BATCH_BYTES: usize = 64 << 20;
