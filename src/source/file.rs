use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::data_file::{DataFile, Listening};
use super::location::Location;
use super::memory::same_columns;
use super::uri::absolute;
use super::{Access, Fingerprint, RecordBatches, Shard, Source, SourceCounts, files, positions};
use crate::config::{OnCorrupt, SourceConfig};
use crate::error::{Error, Result};
use crate::telemetry;

/// Files of Parquet, and of Arrow IPC in both its forms, on disk or (with the cargo feature `cloud`) in an object store
/// or on a web server. Which format a file has, its first bytes tell.
///
/// Opening reads footers and schemas only. Parts are read in parallel, in order: row groups of Parquet, whole files of
/// Arrow IPC; up to four at a time, each at most four record batches ahead, on tokio's blocking threads. These have 2,048
/// rows, or 8 MB where rows are long.
/// Objects are fetched in blocks of 8 MiB, of which one a column and part is kept, and only where columns in use lie.
/// Requests that fail for a passing reason (5xx, throttling, reset, timeout) are sent again, with exponential backoff
/// and jitter, each counted.
#[derive(Clone)]
pub struct FileSource {
    uri: String,
    uris: Vec<String>,
    access: Access,
    schema: SchemaRef,
    files: Vec<Arc<DataFile>>,
    on_corrupt: OnCorrupt,
    skipped: Arc<AtomicUsize>,
}

impl FileSource {
    /// Opens a file, a folder's files with the endings `parquet`, `arrow`, `arrows`, `feather` or `ipc`, or all that
    /// match a shell pattern; see [`SourceConfig::uri`].
    ///
    /// # Errors
    /// As [`open_all`](Self::open_all).
    pub async fn open(uri: impl Into<String>) -> Result<Self> {
        Self::open_all(&SourceConfig { uri: vec![uri.into()], ..SourceConfig::default() }).await
    }

    /// Opens the uris of `config` as one source, in their order; its `filter` and `columns` are not looked at.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::UnsupportedSource`], [`Error::Corrupt`] for what is neither Parquet nor Arrow IPC,
    /// [`Error::SchemaDrift`] where files differ in their columns, [`Error::Remote`] for a store that cannot be reached.
    pub async fn open_all(config: &SourceConfig) -> Result<Self> {
        let access = Access::new(config);
        let locations = files::list(&config.uri, &access, telemetry::foreign_files).await?;
        let files: Vec<_> = opened(locations).await?;
        let schema = files[0].schema();
        same_schema(&schema, &files)?;
        let (uri, uris, skipped) = (config.uri.join(", "), config.uri.clone(), Arc::default());
        Ok(Self { uri, uris, access, schema, files, on_corrupt: config.on_corrupt, skipped })
    }

    /// The files, each with its uri, what it is, and the number of its parts.
    pub fn files(&self) -> impl Iterator<Item = (String, &'static str, usize)> {
        self.files.iter().map(|file| (file.location.uri(), file.kind(), file.parts()))
    }
}

/// Opens files, some at the same time.
async fn opened(locations: Vec<Location>) -> Result<Vec<Arc<DataFile>>> {
    let open = |location| async {
        tokio::task::spawn_blocking(|| DataFile::open(location).map(Arc::new))
            .await
            .map_err(|e| Error::TaskDied { task: "source", message: e.to_string() })?
    };
    futures::stream::iter(locations).map(open).buffered(OPENING).try_collect().await
}

fn same_schema(schema: &SchemaRef, files: &[Arc<DataFile>]) -> Result<()> {
    files.iter().try_for_each(|file| same_columns(&file.location.uri(), schema, &file.schema()))
}

/// Options may hold credentials, and files have long footers: neither is shown.
impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource").field("uri", &self.uri).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Source for FileSource {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<usize> {
        self.files.iter().map(|file| file.rows()).sum()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let shards = self.files.iter().map(|file| file.location.shard()).collect();
        let uris: Vec<_> = self.uris.iter().map(|uri| absolute(uri)).collect();
        Some(Fingerprint { settings: format!("{uris:?} {:?}", self.on_corrupt), shards })
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts { skipped_rows: self.skipped.load(Relaxed), faults: self.access.faults.load(Relaxed) }
    }

    fn added(&self, known: Vec<Shard>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let added = async move {
            let mut locations = files::list(&self.uris, &self.access, |_, _| {}).await?;
            for Shard { uri, version } in &known {
                let change = match locations.iter().map(Location::shard).find(|found| found.uri == *uri) {
                    None => "is gone",
                    Some(found) if found.version != *version => "has changed",
                    Some(_) => continue,
                };
                return Err(Error::SourceChanged { uri: uri.clone(), change });
            }
            locations.retain(|location| !known.contains(&location.shard()));
            if locations.is_empty() {
                return Ok(None);
            }
            let files = opened(locations).await?;
            same_schema(&self.schema, &files)?;
            Ok(Some(Box::new(Self { files, ..self.clone() }) as Box<dyn Source>))
        };
        added.boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let positions = positions(&self.uri, &self.schema, columns)?;
        let parts = self.files.iter().flat_map(|file| (0..file.parts()).map(move |part| (file.clone(), part)));
        let reading = Reading {
            parts: parts.collect(),
            running: VecDeque::new(),
            positions: positions.into(),
            on_corrupt: self.on_corrupt,
            skipped: self.skipped.clone(),
        };
        Ok(futures::stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) })
            .boxed())
    }
}

/// Parts that are being read, the first one's record batches being those that are handed out.
struct Reading {
    parts: VecDeque<(Arc<DataFile>, usize)>,
    running: VecDeque<mpsc::Receiver<Result<RecordBatch>>>,
    positions: Arc<[usize]>,
    on_corrupt: OnCorrupt,
    skipped: Arc<AtomicUsize>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            while self.running.len() < IN_FLIGHT
                && let Some((file, part)) = self.parts.pop_front()
            {
                self.start(file, part);
            }
            match self.running.front_mut()?.recv().await {
                None => drop(self.running.pop_front()),
                Some(Err(error)) => {
                    self.parts.clear();
                    self.running.clear();
                    return Some(Err(error));
                }
                Some(batch) => return Some(batch),
            }
        }
    }

    fn start(&mut self, file: Arc<DataFile>, part: usize) {
        let (tx, rx) = mpsc::channel(AHEAD);
        let (positions, on_corrupt, skipped) = (self.positions.clone(), self.on_corrupt, self.skipped.clone());
        tokio::task::spawn_blocking(move || {
            let mut rows = 0;
            let mut emit = |batch: RecordBatch| {
                rows += batch.num_rows();
                if tx.blocking_send(Ok(batch)).is_ok() { Listening::Yes } else { Listening::No }
            };
            let error = match file.read(part, &positions, &mut emit) {
                Ok(_) => return,
                Err(error) => error,
            };
            if on_corrupt == OnCorrupt::Skip && matches!(error, Error::Corrupt { .. }) {
                let lost = file.part_rows(part).map(|all| all.saturating_sub(rows));
                skipped.fetch_add(lost.unwrap_or(0), Relaxed);
                telemetry::rows_skipped(lost, &error);
            } else {
                // Nobody there to hear it: then nobody needs to.
                let _ = tx.blocking_send(Err(error));
            }
        });
        self.running.push_back(rx);
    }
}

/// Files that are opened at the same time.
const OPENING: usize = 16;

/// Parts that are read at the same time.
const IN_FLIGHT: usize = 4;

/// Record batches that a part is read ahead.
const AHEAD: usize = 4;
