//! One pass over a source, into a cache file.

use std::fs::{File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{BatchCoalescer, cast};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use futures::StreamExt;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use super::ipc::{self, IpcWriter};
use super::{ROWS_PER_BATCH, Store};
use crate::config::StoreConfig;
use crate::error::{Error, Result};
use crate::source::{Source, positions};
use crate::telemetry;

pub(super) async fn build(
    source: &dyn Source,
    columns: &[String],
    config: &StoreConfig,
    progress: &mut (dyn FnMut(usize) + Send),
    span: Span,
) -> Result<Store> {
    let positions = positions(source.uri(), &source.schema(), columns)?;
    let selected =
        source.schema().project(&positions).map_err(|cause| Error::Arrow { action: "select columns", cause })?;
    let schema = Arc::new(plain(&selected));
    let fingerprint = source.fingerprint().map(|f| hash(&f, &schema));
    let path = config.cache_dir.as_ref().zip(fingerprint.as_ref()).map(|(dir, f)| dir.join(format!("{f}.arrow")));

    let mut lock = None;
    if let Some(path) = &path {
        let mut cached = open_cached(path, &schema, span.clone()).await?;
        if cached.is_none() {
            lock = Some(BuildLock::acquire(path, span.clone()).await?);
            // Another process may have built it in the meantime.
            cached = open_cached(path, &schema, span.clone()).await?;
        }
        if let Some(batches) = cached {
            let store = Store::new(source.uri(), schema, batches, config.advice)?;
            progress(store.len());
            return Ok(store);
        }
    }

    let stream = source.read(columns)?;
    let (tx, rx) = mpsc::channel(2);
    let task = {
        let (schema, span) = (schema.clone(), span.clone());
        move || span.in_scope(|| write(rx, schema, path))
    };
    let writer = tokio::task::spawn_blocking(task);
    let sent = send(stream, tx, progress).instrument(span).await;
    let written = writer.await.map_err(|e| Error::TaskDied { task: "store", message: e.to_string() })?;
    // Where the source failed, the writer saw its input cut short: the source's error is the cause.
    sent?;
    drop(lock);
    Store::new(source.uri(), schema, written?, config.advice)
}

/// Held while a cache is built: another process that wants the same one waits, and then opens it. The system gives it
/// back when the process ends, however that happens.
struct BuildLock {
    _file: File,
}

impl BuildLock {
    async fn acquire(path: &Path, span: Span) -> Result<Self> {
        let path = path.to_owned();
        let acquire = move || span.in_scope(|| Self::acquire_blocking(&path));
        tokio::task::spawn_blocking(acquire)
            .await
            .map_err(|e| Error::TaskDied { task: "store", message: e.to_string() })?
    }

    fn acquire_blocking(path: &Path) -> Result<Self> {
        let lock = path.with_extension("lock");
        let io = |action| {
            let path = lock.clone();
            move |cause| Error::Io { action, path, cause }
        };
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(io("create a file in the folder of"))?;
        let file = File::create(&lock).map_err(io("create"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                telemetry::cache_awaited(path);
                file.lock().map_err(io("lock"))?;
            }
            Err(TryLockError::Error(cause)) => return Err(io("lock")(cause)),
        }
        // What a process that was killed has left behind.
        let unfinished = ipc::unfinished(path);
        for entry in std::fs::read_dir(dir).map_err(io("list the folder of"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&unfinished) {
                std::fs::remove_file(entry.path()).map_err(io("clean up beside"))?;
            }
        }
        Ok(Self { _file: file })
    }
}

async fn open_cached(path: &Path, schema: &SchemaRef, span: Span) -> Result<Option<Vec<RecordBatch>>> {
    let (path, schema) = (path.to_owned(), schema.clone());
    let open = move || {
        span.in_scope(|| match path.exists().then(|| ipc::open(&path)) {
            None => None,
            Some(Ok((found, batches))) if found.fields() == schema.fields() => {
                telemetry::cache_opened(&path);
                Some(batches)
            }
            Some(Ok(_)) => {
                telemetry::cache_discarded(&path, &"it has other columns");
                None
            }
            Some(Err(error)) => {
                telemetry::cache_discarded(&path, &error);
                None
            }
        })
    };
    tokio::task::spawn_blocking(open).await.map_err(|e| Error::TaskDied { task: "store", message: e.to_string() })
}

/// Hands the source's record batches to the writer. A writer that is gone has its own error to report.
async fn send(
    mut stream: crate::source::RecordBatches,
    tx: mpsc::Sender<Result<RecordBatch>>,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<()> {
    let mut rows = 0;
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
    Ok(())
}

fn write(
    mut rx: mpsc::Receiver<Result<RecordBatch>>,
    schema: SchemaRef,
    path: Option<PathBuf>,
) -> Result<Vec<RecordBatch>> {
    let mut writer = IpcWriter::create(path.as_deref(), &schema)?;
    let mut coalescer = BatchCoalescer::new(schema.clone(), ROWS_PER_BATCH);
    let failed = |cause| Error::Arrow { action: "join record batches", cause };
    while let Some(batch) = rx.blocking_recv() {
        coalescer.push_batch(to_plain(&batch?, &schema)?).map_err(failed)?;
        while let Some(full) = coalescer.next_completed_batch() {
            writer.write(&full)?;
        }
    }
    coalescer.finish_buffered_batch().map_err(failed)?;
    while let Some(rest) = coalescer.next_completed_batch() {
        writer.write(&rest)?;
    }
    writer.finish(path.as_deref())
}

/// The schema without dictionaries: an IPC file holds one dictionary a column, a source may have one a row group.
fn plain(schema: &Schema) -> Schema {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Dictionary(_, value) => field.as_ref().clone().with_data_type(value.as_ref().clone()),
            _ => field.as_ref().clone(),
        })
        .collect();
    Schema::new(fields)
}

fn to_plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(array, field)| cast(array, field.data_type())).collect::<Result<Vec<_>, _>>();
    columns
        .and_then(|columns| RecordBatch::try_new(schema.clone(), columns))
        .map_err(|cause| Error::Arrow { action: "store a record batch", cause })
}

/// A name for a cache file. Another Rust release may hash differently; the cache is then built anew.
fn hash(fingerprint: &str, schema: &Schema) -> String {
    let mut hasher = DefaultHasher::new();
    (fingerprint, format!("{schema:?}"), ROWS_PER_BATCH).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
