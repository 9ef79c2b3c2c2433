//! Reads a source into cache files: one for all of it, and one for each time that files were added since.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use super::decoded::{BadTexts, Decoder, decoded_schema};
use super::lock::BuildLock;
use super::{MAX_STORED_BATCH_BYTES, MAX_STORED_BATCH_ROWS, Segment, Store, advice};
use crate::arrow_file::{self, ArrowFile, ArrowFileWriter, Part};
use crate::config::{Advice, StoreConfig, Verify};
use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::source::{Fingerprint, RecordBatches, Source, SourceFile, column_indices};
use crate::telemetry;

/// Makes a store from its source, and names its files.
#[derive(Debug)]
pub(super) struct StoreBuilder {
    columns: Vec<String>,
    /// The columns as they are stored.
    pub schema: SchemaRef,
    pub advice: Advice,
    verify: Verify,
    /// The settings in the source's fingerprint: what it leaves out, for example.
    pub settings: String,
    /// The cache folder, and what the names of its files start with; `None` without a cache.
    cache: Option<(PathBuf, String)>,
}

/// Is called with the number of rows read so far.
type OnProgress<'a> = &'a mut (dyn FnMut(usize) + Send);

impl StoreBuilder {
    /// Makes a builder of a store with these columns.
    pub fn new(source: &dyn Source, columns: &[String], config: &StoreConfig) -> Result<Self> {
        let column_indices = column_indices(source.uri(), &source.schema(), columns)?;
        let selected = source.schema().project(&column_indices);
        let selected = selected.map_err(|cause| Error::Arrow { action: "select columns", cause })?;
        let schema = Arc::new(decoded_schema(&selected));
        let settings = source.fingerprint().map(|fingerprint| fingerprint.settings);
        let cache = config.cache_dir.clone().zip(settings.as_ref().map(|settings| key(settings, &schema)));
        let settings = settings.unwrap_or_default();
        Ok(Self { columns: columns.to_vec(), schema, advice: config.advice, verify: config.verify, settings, cache })
    }

    /// Opens the segments that are cached, and reads the rows that are missing.
    pub async fn build(self, source: &dyn Source, progress: OnProgress<'_>) -> Result<Store> {
        let span = telemetry::store(source.uri());
        self.open_or_read(source, progress).instrument(span).await
    }

    async fn open_or_read(self, source: &dyn Source, progress: OnProgress<'_>) -> Result<Store> {
        let files = source.fingerprint().map(|Fingerprint { files, .. }| files).unwrap_or_default();
        let complete = |segments: &[Segment]| {
            let known: usize = segments.iter().map(|segment| segment.files.len()).sum();
            !segments.is_empty() && known == files.len()
        };
        let mut segments = self.open(&files).await?;
        if complete(&segments) {
            progress(segments.iter().map(Segment::len).sum());
            return Store::new(source.uri(), segments, self);
        }
        let lock = self.lock().await?;
        if lock.is_some() {
            // Another process may have built it in the meantime.
            segments = self.open(&files).await?;
        }
        if !segments.is_empty() && !complete(&segments) {
            match source.added(known(&segments)).await? {
                Some(added) => segments.push(self.read(added.as_ref(), &segments, progress).await?),
                None => segments.clear(),
            }
        }
        if segments.is_empty() {
            segments.push(self.read(source, &[], progress).await?);
        }
        Store::new(source.uri(), segments, self)
    }

    /// Reads what was added to the source since these segments were read; `None` if nothing was.
    pub async fn grow(&self, source: &dyn Source, segments: &[Segment]) -> Result<Option<Segment>> {
        let Some(added) = source.added(known(segments)).await? else { return Ok(None) };
        let span = telemetry::store(source.uri());
        self.read_added(added.as_ref(), segments).instrument(span).await.map(Some)
    }

    async fn read_added(&self, added: &dyn Source, segments: &[Segment]) -> Result<Segment> {
        let _lock = self.lock().await?;
        let files = added.fingerprint().map(|Fingerprint { files, .. }| files).unwrap_or_default();
        let next = self.open_one(segments.len(), files.iter().cloned().collect()).await?;
        if let Some(segment) = next.filter(|segment| segment.files == files) {
            // Another process has read it.
            return Ok(segment);
        }
        self.read(added, segments, &mut |_| {}).await
    }

    /// Waits for the lock of the cache; `None` without a cache.
    async fn lock(&self) -> Result<Option<BuildLock>> {
        let Some((dir, key)) = &self.cache else { return Ok(None) };
        BuildLock::acquire(dir, key, Span::current()).await.map(Some)
    }

    /// Opens the segments in the cache, up to the first that cannot be used.
    async fn open(&self, files: &[SourceFile]) -> Result<Vec<Segment>> {
        let mut unread: HashSet<_> = files.iter().cloned().collect();
        let mut segments = Vec::new();
        while let Some(segment) = self.open_one(segments.len(), unread.clone()).await? {
            unread.retain(|source_file| !segment.files.contains(source_file));
            segments.push(segment);
        }
        Ok(segments)
    }

    /// Opens a segment of the cache; `None` if there is none that holds rows of these files only.
    async fn open_one(&self, number: usize, files: HashSet<SourceFile>) -> Result<Option<Segment>> {
        let Some(path) = self.path(number) else { return Ok(None) };
        let schema = self.schema.clone();
        let span = Span::current();
        let verify = self.verify;
        let open = move || {
            let opened = path.exists().then(|| ArrowFile::open(&path))?;
            let usable = opened.map_err(|error| error.to_string()).and_then(|file| {
                let found = &file.schema;
                let skipped_rows = found.metadata().get(SKIPPED).and_then(|n| n.parse().ok()).unwrap_or(0);
                let bad_texts = found.metadata().get(BAD_TEXTS).map_or("", String::as_str);
                let bad_texts = bad_texts.lines().filter_map(BadTexts::of_line).collect();
                let segment = Segment { files: files_of(found), skipped_rows, bad_texts, parts: file.parts.clone() };
                match found.fields() == schema.fields() {
                    false => Err("it has other columns".to_owned()),
                    true if segment.files.is_empty() || !segment.files.iter().all(|s| files.contains(s)) => {
                        Err("the files that it was read from have changed or gone".to_owned())
                    }
                    true if verify == Verify::Open || !file.is_as_written(&path) => {
                        file.verify().map_err(|error| error.to_string()).map(|()| segment)
                    }
                    true => Ok(segment),
                }
            });
            if verify == Verify::Never {
                usable.iter().flat_map(|segment| &segment.parts).for_each(Part::trust);
            }
            match &usable {
                Ok(segment) => {
                    telemetry::cache_opened(&path);
                    if segment.skipped_rows > 0 {
                        telemetry::rows_skipped(Some(segment.skipped_rows), &"they were skipped when it was read");
                    }
                }
                Err(reason) => telemetry::cache_discarded(&path, reason),
            }
            usable.ok()
        };
        tokio::task::spawn_blocking(move || span.in_scope(open)).await.map_err(|e| Error::of_task("store", e))
    }

    /// Reads a source into the segment that follows those `before`.
    async fn read(&self, source: &dyn Source, before: &[Segment], progress: OnProgress<'_>) -> Result<Segment> {
        let files = source.fingerprint().map(|Fingerprint { files, .. }| files).unwrap_or_default();
        let stream = source.read(&self.columns)?;
        let (tx, rx) = mpsc::channel(2);
        let target = self.path(before.len());
        let schema = Arc::new(self.schema.as_ref().clone().with_metadata(metadata(&files)));
        let later: Vec<_> = (before.len() + 1..).map_while(|n| self.path(n).filter(|path| path.exists())).collect();
        let span = Span::current();
        let uri = source.uri().to_owned();
        let task = move || {
            span.in_scope(|| {
                // Later segments were added to one that is replaced.
                for path in later.into_iter().rev() {
                    std::fs::remove_file(&path).map_err(|cause| Error::Io { action: "remove", path, cause })?;
                }
                write(rx, schema, target, &uri)
            })
        };
        let writer = tokio::task::spawn_blocking(task);
        let rows = before.iter().map(Segment::len).sum();
        let sent = send(source, stream, tx, rows, progress).await;
        let written = writer.await.map_err(|e| Error::of_task("store", e))?;
        // If the source failed, the writer failed too, without an end: the source's error is the cause.
        sent?;
        let Written { skipped_rows, bad_texts, parts } = written?;
        for BadTexts { column, first, count } in &bad_texts {
            telemetry::texts_unreadable(column, *count, SampleId::new(rows + first));
        }
        if self.verify == Verify::Never {
            parts.iter().for_each(Part::trust);
        }
        Ok(Segment { files, skipped_rows, bad_texts, parts })
    }

    /// Returns the rows of a part, checked if the settings want that.
    pub fn verified<'a>(&self, part: &'a Part) -> Result<&'a RecordBatch> {
        part.verify().map_err(|error| self.discard_damaged(error))?;
        Ok(&part.batch)
    }

    /// Removes a damaged file from the cache, so that the next run reads its rows again.
    fn discard_damaged(&self, error: Error) -> Error {
        let Error::Damaged { path, place, .. } = error else { return error };
        let remedy = match self.cache.is_some().then(|| std::fs::remove_file(&path)) {
            None => "start again; its disk or the memory may be failing".to_owned(),
            Some(Ok(())) => "it has been removed: start again, and it is built anew from the source".to_owned(),
            Some(Err(cause)) if cause.kind() == std::io::ErrorKind::NotFound => {
                "it is gone from the cache: start again, and it is built anew from the source".to_owned()
            }
            Some(Err(_)) => "remove it and start again: it is built anew from the source".to_owned(),
        };
        Error::Damaged { path, place, remedy: Some(remedy) }
    }

    fn path(&self, number: usize) -> Option<PathBuf> {
        self.cache.as_ref().map(|(dir, key)| dir.join(format!("{key}-{number}.arrow")))
    }
}

/// Returns the files of all segments.
fn known(segments: &[Segment]) -> Vec<SourceFile> {
    segments.iter().flat_map(|segment| segment.files.clone()).collect()
}

/// Returns a schema's metadata that name files, a line each.
fn metadata(files: &[SourceFile]) -> std::collections::HashMap<String, String> {
    let line = |source_file: &SourceFile| format!("{}\t{}", source_file.version, source_file.uri);
    [(FILES.to_owned(), files.iter().map(line).collect::<Vec<_>>().join("\n"))].into()
}

/// Reads the files from a schema's metadata.
pub(super) fn files_of(schema: &Schema) -> Vec<SourceFile> {
    let lines = schema.metadata().get(FILES).into_iter().flat_map(|text| text.lines());
    let source_file = |(version, uri): (&str, &str)| SourceFile { uri: uri.to_owned(), version: version.to_owned() };
    lines.filter_map(|line| line.split_once('\t')).map(source_file).collect()
}

/// What the reader sends to the writer. A closed channel means that the reader is gone, not that it is done.
enum WriterMessage {
    Rows(RecordBatch),
    End {
        /// How many rows of the source were skipped.
        skipped: usize,
    },
}

/// Sends the source's record batches to the writer, and the end.
///
/// If the writer is gone, it has an error of its own to report. An error of the source is not sent: without an end, the
/// writer discards its file.
async fn send(
    source: &dyn Source,
    mut stream: RecordBatches,
    tx: mpsc::Sender<WriterMessage>,
    before: usize,
    progress: OnProgress<'_>,
) -> Result<()> {
    let mut rows = 0;
    let skipped_before = source.counts().skipped_rows;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        if tx.send(WriterMessage::Rows(batch)).await.is_err() {
            return Ok(());
        }
        progress(before + rows);
    }
    let skipped = source.counts().skipped_rows - skipped_before;
    match source.rows() {
        Some(expected) if expected != rows + skipped => {
            Err(Error::RowCount { uri: source.uri().to_owned(), found: rows + skipped, expected })
        }
        _ => {
            let _ = tx.send(WriterMessage::End { skipped }).await;
            Ok(())
        }
    }
}

/// Writes the rows of the source `uri` until the end, and returns them as they are mapped.
fn write(
    mut rx: mpsc::Receiver<WriterMessage>,
    schema: SchemaRef,
    path: Option<PathBuf>,
    uri: &str,
) -> Result<Written> {
    let mut writer = ArrowFileWriter::create(path.as_deref(), &schema)?;
    let mut coalescer = BatchCoalescer::new(schema.clone(), MAX_STORED_BATCH_ROWS);
    let mut decoder = Decoder::new(schema);
    let failed = |cause| Error::Arrow { action: "join record batches", cause };
    let mut buffered = 0;
    let skipped_rows = loop {
        let batch = match rx.blocking_recv() {
            Some(WriterMessage::Rows(batch)) => batch,
            Some(WriterMessage::End { skipped }) => break skipped,
            None => return Err(Error::Cancelled),
        };
        let decoded = decoder.decode(&batch).map_err(|cause| Error::Corrupt {
            uri: uri.to_owned(),
            place: None,
            expected: "what its schema says",
            cause: cause.into(),
        })?;
        for piece in pieces(decoded) {
            let bytes = advice::bytes(&piece);
            buffered += bytes;
            if buffered > MAX_STORED_BATCH_BYTES {
                coalescer.finish_buffered_batch().map_err(failed)?;
                buffered = bytes;
            }
            coalescer.push_batch(piece).map_err(failed)?;
            while let Some(full) = coalescer.next_completed_batch() {
                writer.write(&full)?;
                // Rows that are still buffered are the end of this piece, whose bytes are not known exactly.
                buffered = buffered.min(bytes);
            }
        }
    };
    coalescer.finish_buffered_batch().map_err(failed)?;
    while let Some(rest) = coalescer.next_completed_batch() {
        writer.write(&rest)?;
    }
    writer.add_metadata(SKIPPED, skipped_rows.to_string());
    let bad_texts = decoder.bad_texts();
    writer.add_metadata(BAD_TEXTS, bad_texts.iter().map(BadTexts::line).collect::<Vec<_>>().join("\n"));
    writer.record_mtime();
    Ok(Written { skipped_rows, bad_texts, parts: writer.finish(path.as_deref())? })
}

/// What was written: the segment, but for its files.
struct Written {
    skipped_rows: usize,
    bad_texts: Vec<BadTexts>,
    parts: Vec<Part>,
}

/// Halves a record batch until no piece is larger than [`MAX_STORED_BATCH_BYTES`], or has only one row.
fn pieces(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows <= 1 || advice::bytes(&batch) <= MAX_STORED_BATCH_BYTES {
        return vec![batch];
    }
    let half = rows / 2;
    [batch.slice(0, half), batch.slice(half, rows - half)].into_iter().flat_map(pieces).collect()
}

/// Returns what the names of cache files start with.
///
/// It depends on the text of types, which another release of Arrow may change; the cache is then built again.
fn key(settings: &str, schema: &Schema) -> String {
    let text = format!("{settings}\n{:?}\n{MAX_STORED_BATCH_ROWS}", schema.fields());
    arrow_file::to_text(arrow_file::checksum(text.as_bytes()))
}

/// The key in the schema of a cache file whose value names the files that it was read from.
const FILES: &str = "prosampler.shards";

/// The key in the footer whose value is how many rows of the files were skipped.
const SKIPPED: &str = "prosampler.skipped_rows";

/// The key in the footer whose value lists the texts that are null since they are not UTF-8, a line a column.
const BAD_TEXTS: &str = "prosampler.bad_texts";
