//! Passes over a source, each into a cache file: one over all of it, and one over what has been added since.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arrow::array::RecordBatch;
use arrow::compute::{BatchCoalescer, cast};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use futures::StreamExt;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use super::ipc::{self, IpcWriter};
use super::lock::BuildLock;
use super::{BYTES_PER_BATCH, ROWS_PER_BATCH, Segment, Store, advice};
use crate::config::{Advice, StoreConfig};
use crate::error::{Error, Result};
use crate::source::{Fingerprint, RecordBatches, Shard, Source, positions};
use crate::telemetry;

/// How a store is made from its source, and what its files are called.
#[derive(Debug)]
pub(super) struct Recipe {
    columns: Vec<String>,
    /// As stored.
    pub schema: SchemaRef,
    pub advice: Advice,
    /// Folder, and the begin of the names.
    cache: Option<(PathBuf, String)>,
    span: Span,
}

/// Hears how many rows are in.
type Progress<'a> = &'a mut (dyn FnMut(usize) + Send);

impl Recipe {
    pub fn new(source: &dyn Source, columns: &[String], config: &StoreConfig) -> Result<Self> {
        let positions = positions(source.uri(), &source.schema(), columns)?;
        let selected = source.schema().project(&positions);
        let selected = selected.map_err(|cause| Error::Arrow { action: "select columns", cause })?;
        let schema = Arc::new(plain(&selected));
        let key = source.fingerprint().map(|of| key(&of.settings, &schema));
        let cache = config.cache_dir.clone().zip(key);
        let span = telemetry::store(source.uri());
        Ok(Self { columns: columns.to_vec(), schema, advice: config.advice, cache, span })
    }

    /// Opens what is cached, and reads the rest.
    pub async fn build(self, source: &dyn Source, progress: Progress<'_>) -> Result<Store> {
        let shards = source.fingerprint().map(|Fingerprint { shards, .. }| shards).unwrap_or_default();
        let complete = |segments: &[Segment]| {
            let known: usize = segments.iter().map(|segment| segment.shards.len()).sum();
            !segments.is_empty() && known == shards.len()
        };
        let mut segments = self.open(&shards).await?;
        if complete(&segments) {
            progress(segments.iter().map(Segment::len).sum());
            return Store::new(source.uri(), segments, self);
        }
        let lock = self.lock().await?;
        if lock.is_some() {
            // Another process may have built it in the meantime.
            segments = self.open(&shards).await?;
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

    /// Reads what has been added to the source since these segments were read; `None` where that is nothing.
    pub async fn grow(&self, source: &dyn Source, segments: &[Segment]) -> Result<Option<Segment>> {
        let Some(added) = source.added(known(segments)).await? else { return Ok(None) };
        let _lock = self.lock().await?;
        let shards = added.fingerprint().map(|Fingerprint { shards, .. }| shards).unwrap_or_default();
        let next = self.open_one(segments.len(), shards.iter().cloned().collect()).await?;
        if let Some(segment) = next.filter(|segment| segment.shards == shards) {
            // Another process has read it.
            return Ok(Some(segment));
        }
        self.read(added.as_ref(), segments, &mut |_| {}).await.map(Some)
    }

    async fn lock(&self) -> Result<Option<BuildLock>> {
        let Some((dir, key)) = &self.cache else { return Ok(None) };
        BuildLock::acquire(dir, key, self.span.clone()).await.map(Some)
    }

    /// The segments in the cache, up to the first that cannot be used.
    async fn open(&self, shards: &[Shard]) -> Result<Vec<Segment>> {
        let mut unread: HashSet<_> = shards.iter().cloned().collect();
        let mut segments = Vec::new();
        while let Some(segment) = self.open_one(segments.len(), unread.clone()).await? {
            unread.retain(|shard| !segment.shards.contains(shard));
            segments.push(segment);
        }
        Ok(segments)
    }

    /// A segment of the cache, if it holds rows of these shards.
    async fn open_one(&self, number: usize, shards: HashSet<Shard>) -> Result<Option<Segment>> {
        let Some(path) = self.path(number) else { return Ok(None) };
        let (schema, span) = (self.schema.clone(), self.span.clone());
        let open = move || {
            let opened = path.exists().then(|| ipc::open(&path))?;
            let usable = opened.map_err(|error| error.to_string()).and_then(|(found, batches)| {
                let skipped_rows = found.metadata().get(SKIPPED).and_then(|n| n.parse().ok()).unwrap_or(0);
                let segment = Segment { shards: shards_of(&found), skipped_rows, batches };
                match found.fields() == schema.fields() {
                    false => Err("it has other columns".to_owned()),
                    true if !ipc::is_as_written(&path, &found) => {
                        Err("it was changed, or copied without its time, after it was written".to_owned())
                    }
                    true if segment.shards.is_empty() || !segment.shards.iter().all(|s| shards.contains(s)) => {
                        Err("the files that it was read from have changed or gone".to_owned())
                    }
                    true => Ok(segment),
                }
            });
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
        tokio::task::spawn_blocking(move || span.in_scope(open))
            .await
            .map_err(|e| Error::TaskDied { task: "store", message: e.to_string() })
    }

    /// Reads a source into the segment that comes next.
    async fn read(&self, source: &dyn Source, before: &[Segment], progress: Progress<'_>) -> Result<Segment> {
        let shards = source.fingerprint().map(|Fingerprint { shards, .. }| shards).unwrap_or_default();
        let stream = source.read(&self.columns)?;
        let (tx, rx) = mpsc::channel(2);
        let target = self.path(before.len());
        let schema = Arc::new(self.schema.as_ref().clone().with_metadata(metadata(&shards)));
        let later: Vec<_> = (before.len() + 1..).map_while(|n| self.path(n).filter(|path| path.exists())).collect();
        let span = self.span.clone();
        let (skipped, before_it) = (Arc::new(AtomicUsize::new(0)), source.counts().skipped_rows);
        let skipped_too = skipped.clone();
        let task = move || {
            span.in_scope(|| {
                // What was added to a segment that is no more.
                for path in later.into_iter().rev() {
                    std::fs::remove_file(&path).map_err(|cause| Error::Io { action: "remove", path, cause })?;
                }
                write(rx, schema, target, &skipped_too)
            })
        };
        let writer = tokio::task::spawn_blocking(task);
        let rows = before.iter().map(Segment::len).sum();
        let counts = || skipped.store(source.counts().skipped_rows - before_it, Relaxed);
        let sent = send(stream, tx, rows, progress, counts).instrument(self.span.clone()).await;
        let written = writer.await.map_err(|e| Error::TaskDied { task: "store", message: e.to_string() })?;
        // Where the source failed, the writer saw its input cut short: the source's error is the cause.
        sent?;
        Ok(Segment { shards, skipped_rows: skipped.load(Relaxed), batches: written? })
    }

    fn path(&self, number: usize) -> Option<PathBuf> {
        self.cache.as_ref().map(|(dir, key)| dir.join(format!("{key}-{number}.arrow")))
    }
}

fn known(segments: &[Segment]) -> Vec<Shard> {
    segments.iter().flat_map(|segment| segment.shards.clone()).collect()
}

fn metadata(shards: &[Shard]) -> std::collections::HashMap<String, String> {
    let line = |shard: &Shard| format!("{}\t{}", shard.version, shard.uri);
    [(SHARDS.to_owned(), shards.iter().map(line).collect::<Vec<_>>().join("\n"))].into()
}

fn shards_of(schema: &Schema) -> Vec<Shard> {
    let lines = schema.metadata().get(SHARDS).into_iter().flat_map(|text| text.lines());
    let shard = |(version, uri): (&str, &str)| Shard { uri: uri.to_owned(), version: version.to_owned() };
    lines.filter_map(|line| line.split_once('\t')).map(shard).collect()
}

/// Hands the source's record batches to the writer, and calls `ended` before it tells it of the end. A writer that is
/// gone has its own error to report.
async fn send(
    mut stream: RecordBatches,
    tx: mpsc::Sender<Result<RecordBatch>>,
    mut rows: usize,
    progress: Progress<'_>,
    ended: impl FnOnce(),
) -> Result<()> {
    while let Some(item) = stream.next().await {
        let batch = match item {
            Ok(batch) => batch,
            Err(error) => {
                // Tells the writer to throw its file away.
                let interrupted = std::io::Error::other("the source failed");
                let abort = Error::Io { action: "read", path: PathBuf::new(), cause: interrupted };
                let _ = tx.send(Err(abort)).await;
                return Err(error);
            }
        };
        rows += batch.num_rows();
        if tx.send(Ok(batch)).await.is_err() {
            break;
        }
        progress(rows);
    }
    ended();
    Ok(())
}

fn write(
    mut rx: mpsc::Receiver<Result<RecordBatch>>,
    schema: SchemaRef,
    path: Option<PathBuf>,
    skipped: &AtomicUsize,
) -> Result<Vec<RecordBatch>> {
    let mut writer = IpcWriter::create(path.as_deref(), &schema)?;
    let mut coalescer = BatchCoalescer::new(schema.clone(), ROWS_PER_BATCH);
    let failed = |cause| Error::Arrow { action: "join record batches", cause };
    let mut buffered = 0;
    while let Some(batch) = rx.blocking_recv() {
        for piece in pieces(to_plain(&batch?, &schema)?) {
            let bytes = advice::bytes(&piece);
            buffered += bytes;
            if buffered > BYTES_PER_BATCH {
                coalescer.finish_buffered_batch().map_err(failed)?;
                buffered = bytes;
            }
            coalescer.push_batch(piece).map_err(failed)?;
            while let Some(full) = coalescer.next_completed_batch() {
                writer.write(&full)?;
                buffered = buffered.min(bytes);
            }
        }
    }
    coalescer.finish_buffered_batch().map_err(failed)?;
    while let Some(rest) = coalescer.next_completed_batch() {
        writer.write(&rest)?;
    }
    writer.note(SKIPPED, skipped.load(Relaxed).to_string());
    writer.stamp();
    writer.finish(path.as_deref())
}

/// A record batch cut up until no piece has more bytes than a record batch of the cache may have, or it is one row.
fn pieces(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows <= 1 || advice::bytes(&batch) <= BYTES_PER_BATCH {
        return vec![batch];
    }
    let half = rows / 2;
    [batch.slice(0, half), batch.slice(half, rows - half)].into_iter().flat_map(pieces).collect()
}

/// The schema without dictionaries and run-end encoded columns, however deep: an IPC file holds one dictionary a
/// column, a source may have one a row group, and both hide nulls among their values.
pub(crate) fn plain(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(plain_field).collect::<Vec<_>>())
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let encoded = matches!(field.data_type(), DataType::Dictionary(..) | DataType::RunEndEncoded(..));
    let field = field.as_ref().clone().with_data_type(plain_type(field.data_type()));
    let nullable = encoded || field.is_nullable();
    Arc::new(field.with_nullable(nullable))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(plain_field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

fn to_plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(array, field)| cast(array, field.data_type())).collect::<Result<Vec<_>, _>>();
    columns
        .and_then(|columns| RecordBatch::try_new(schema.clone(), columns))
        .map_err(|cause| Error::Arrow { action: "store a record batch", cause })
}

/// A name for cache files. Another Rust release may hash differently; the cache is then built anew.
fn key(settings: &str, schema: &Schema) -> String {
    let mut hasher = DefaultHasher::new();
    (settings, format!("{:?}", schema.fields()), ROWS_PER_BATCH).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Under what the schema of a cache file names the shards that it was read from.
const SHARDS: &str = "prosampler.shards";

/// And its footer, how many rows of them are missing.
const SKIPPED: &str = "prosampler.skipped_rows";
