use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::UNIX_EPOCH;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::ipc::IpcFile;
use super::memory::same_columns;
use super::parquet::ParquetFile;
use super::{RecordBatches, Source, files, positions};
use crate::compute::panic_message;
use crate::config::OnCorrupt;
use crate::error::{Cause, Error, Result};
use crate::telemetry;

/// Files on disk: Parquet, and Arrow IPC files and streams. Which of them a file is, its first bytes tell.
///
/// Opening reads footers and schemas only. Parts are read in parallel, in order: row groups of Parquet, whole files of
/// Arrow IPC; up to four at a time, each at most four record batches of 2,048 rows ahead, on tokio's blocking threads.
#[derive(Clone, Debug)]
pub struct FileSource {
    uri: String,
    schema: SchemaRef,
    files: Vec<Arc<DataFile>>,
    on_corrupt: OnCorrupt,
    skipped: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct DataFile {
    path: PathBuf,
    /// Size in bytes and time of the last change in nanoseconds since 1970: what a cache's validity hangs on.
    version: (u64, u128),
    format: Format,
}

#[derive(Debug)]
enum Format {
    Parquet(ParquetFile),
    Ipc(IpcFile),
}

/// What goes on after a record batch was handed over.
pub(super) enum Listening {
    Yes,
    /// Nobody takes any more.
    No,
}

/// Takes a record batch.
pub(super) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> Listening;

impl FileSource {
    /// Opens a file, a folder's files with the endings `parquet`, `arrow`, `arrows`, `feather` or `ipc`, or all that
    /// match a shell pattern.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::UnsupportedSource`], [`Error::Corrupt`] for what is neither Parquet nor Arrow IPC,
    /// and [`Error::SchemaDrift`] where files differ in their columns.
    pub async fn open(uri: impl Into<String>) -> Result<Self> {
        Self::open_all(vec![uri.into()]).await
    }

    /// Opens several uris as one source, in this order.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_all(uris: Vec<String>) -> Result<Self> {
        let open = move || {
            let open = |path| DataFile::open(path).map(Arc::new);
            let files = files::list(&uris)?.into_iter().map(open).collect::<Result<Vec<_>>>()?;
            let schema = files[0].schema();
            for file in &files {
                same_columns(&file.path.display().to_string(), &schema, &file.schema())?;
            }
            let (on_corrupt, skipped) = Default::default();
            Ok(Self { uri: uris.join(", "), schema, files, on_corrupt, skipped })
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(|e| Error::TaskDied { task: "source", message: e.to_string() })?
    }

    /// What to do with a damaged part; default [`OnCorrupt::Fail`].
    #[must_use]
    pub fn on_corrupt(mut self, on_corrupt: OnCorrupt) -> Self {
        self.on_corrupt = on_corrupt;
        self
    }

    /// Rows that were in damaged parts and skipped so far, where their number is known: in Parquet it is.
    #[must_use]
    pub fn skipped_rows(&self) -> usize {
        self.skipped.load(Relaxed)
    }

    /// The files, each with what it is and the number of its parts.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &'static str, usize)> {
        self.files.iter().map(|file| (file.path.as_path(), file.kind(), file.parts()))
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

    fn fingerprint(&self) -> Option<String> {
        let one = |file: &Arc<DataFile>| {
            let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
            format!("{} {} {}", path.display(), file.version.0, file.version.1)
        };
        let files: Vec<_> = self.files.iter().map(one).collect();
        Some(format!("{:?}\n{}", self.on_corrupt, files.join("\n")))
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

impl DataFile {
    fn open(path: PathBuf) -> Result<Self> {
        let io = |action| {
            let path = path.clone();
            move |cause| Error::Io { action, path, cause }
        };
        let mut file = File::open(&path).map_err(io("open"))?;
        let about = file.metadata().map_err(io("inspect"))?;
        let modified = about.modified().map_err(io("inspect"))?;
        let version = (about.len(), modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
        let mut begin = Vec::new();
        file.by_ref().take(8).read_to_end(&mut begin).map_err(io("read"))?;
        let format = match &begin[..] {
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Format::Ipc(guarded(&path, || IpcFile::open(&path, true))?),
            [0xff, 0xff, 0xff, 0xff, ..] => Format::Ipc(guarded(&path, || IpcFile::open(&path, false))?),
            [b'P', b'A', b'R', b'1', ..] => Format::Parquet(guarded(&path, || ParquetFile::open(&path))?),
            [] => return Err(corrupt(&path, String::new(), "the file is empty".into())),
            _ => {
                let cause = "it begins like neither of the two".into();
                return Err(corrupt(&path, String::new(), cause));
            }
        };
        Ok(Self { path, version, format })
    }

    fn kind(&self) -> &'static str {
        match &self.format {
            Format::Parquet(_) => "Parquet",
            Format::Ipc(file) if file.is_file() => "Arrow IPC file",
            Format::Ipc(_) => "Arrow IPC stream",
        }
    }

    fn schema(&self) -> SchemaRef {
        match &self.format {
            Format::Parquet(file) => file.schema(),
            Format::Ipc(file) => file.schema(),
        }
    }

    fn parts(&self) -> usize {
        match &self.format {
            Format::Parquet(file) => file.row_groups(),
            Format::Ipc(_) => 1,
        }
    }

    fn part_rows(&self, part: usize) -> Option<usize> {
        match &self.format {
            Format::Parquet(file) => file.row_group_rows(part),
            Format::Ipc(_) => None,
        }
    }

    fn rows(&self) -> Option<usize> {
        (0..self.parts()).map(|part| self.part_rows(part)).sum()
    }

    fn read(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<Listening> {
        guarded(&self.path, || match &self.format {
            Format::Parquet(file) => file.read(&self.path, part, columns, emit),
            Format::Ipc(file) => file.read(&self.path, columns, emit),
        })
    }
}

/// Decoders panic on some damaged files; that must not look like the end of the data.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(corrupt(path, String::new(), panic_message(panic.as_ref()).into())))
}

pub(super) fn corrupt(path: &Path, place: String, cause: Cause) -> Error {
    Error::Corrupt { uri: path.display().to_string(), place, expected: "Parquet or Arrow IPC", cause }
}

/// Parts that are read at the same time.
const IN_FLIGHT: usize = 4;

/// Record batches that a part is read ahead.
const AHEAD: usize = 4;

/// Rows of a record batch.
pub(super) const ROWS: usize = 2048;
