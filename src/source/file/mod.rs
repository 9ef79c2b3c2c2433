mod data_file;
mod foreign;
mod reading;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use self::data_file::DataFile;
use self::reading::{Damage, FilePart};
use super::columns::{Adapter, unified};
use super::find::{self, Access, absolute};
use super::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
use super::location::Location;
use crate::config::{OnCorrupt, SourceConfig};
use crate::error::{Error, Result};
use crate::telemetry;

/// A source of Parquet files, and of Arrow IPC files and streams.
///
/// They are on disk or, with the cargo feature `cloud`, in an object store or on a web server. The first bytes of a
/// file tell its format.
///
/// **Schemas.** Files may differ in the order of their columns, in columns that nobody uses, and in types if one type
/// holds the values of both exactly: `Int32` and `Int64`, `Utf8` and `LargeUtf8`, lists whose items have other names.
/// [`schema`](Source::schema) has the columns of all files with such a type. A column in use that a file lacks, or that
/// has an incompatible type there, is [`ColumnError::Drift`](crate::error::ColumnError::Drift) when it is read.
/// Parquet's INT96 timestamps are read in microseconds.
///
/// **Completeness.** Every row arrives or there is an error: the rows of a part are counted against the file's footer.
/// A text column with a value that is not UTF-8 is `Binary` (or `LargeBinary`) in the record batch that has it, so that
/// nothing is lost.
///
/// **Cost.** Opening reads footers and schemas only. Parts, which are row groups of Parquet and whole files of Arrow
/// IPC, are read on tokio's blocking threads, up to four at a time, each at most four record batches ahead. A record
/// batch has up to 2,048 rows, fewer if these are longer than about 8 MiB in all. Objects are fetched in blocks of
/// 8 MiB, only where columns in use lie; one block a column and part is kept. Requests that fail for a passing reason
/// (5xx, throttling, reset, timeout) are sent again, with exponential backoff and jitter, and counted.
#[derive(Clone)]
pub struct FileSource {
    uri: String,
    uris: Vec<String>,
    access: Access,
    schema: SchemaRef,
    files: Vec<Arc<DataFile>>,
    on_corrupt: OnCorrupt,
    damage: Arc<Damage>,
}

impl FileSource {
    /// Opens a file, the data files of a folder, or all files that match a shell pattern.
    ///
    /// Data files of a folder end in `parquet`, `arrow`, `arrows`, `feather` or `ipc`; see [`SourceConfig::uri`].
    ///
    /// # Errors
    /// The errors of [`open_all`](Self::open_all).
    pub async fn open(uri: impl Into<String>) -> Result<Self> {
        Self::open_all(&SourceConfig { uri: vec![uri.into()], ..SourceConfig::default() }).await
    }

    /// Opens the uris of `config` as one source, in their order. Ignores its `filter` and `columns`.
    ///
    /// # Errors
    /// - [`Error::NotFound`] if there is no such file.
    /// - [`Error::UnsupportedSource`] for a file that is neither Parquet nor Arrow IPC.
    /// - [`Error::Corrupt`] for a damaged file.
    /// - [`Error::Remote`] if an object store cannot be reached.
    pub async fn open_all(config: &SourceConfig) -> Result<Self> {
        let access = Access::new(config);
        let files = opened(find::list(&config.uri, &access, telemetry::foreign_files).await?).await;
        Ok(Self::of(config, access, files.into_iter().collect::<Result<_>>()?))
    }

    /// Opens the files that can be opened, and returns the errors of the others.
    ///
    /// # Errors
    /// The errors of [`open_all`](Self::open_all) if no file can be opened.
    #[cfg(feature = "cli")]
    pub(crate) async fn open_readable(config: &SourceConfig) -> Result<(Self, Vec<Error>)> {
        let access = Access::new(config);
        let mut files = Vec::new();
        let mut errors = Vec::new();
        for opened in opened(find::list(&config.uri, &access, telemetry::foreign_files).await?).await {
            match opened {
                Ok(file) => files.push(file),
                Err(error) => errors.push(error),
            }
        }
        if files.is_empty() {
            return Err(errors.swap_remove(0));
        }
        Ok((Self::of(config, access, files), errors))
    }

    fn of(config: &SourceConfig, access: Access, files: Vec<Arc<DataFile>>) -> Self {
        let schemas: Vec<_> = files.iter().map(|file| file.schema()).collect();
        Self {
            uri: config.uri.join(", "),
            uris: config.uri.clone(),
            access,
            schema: unified(&schemas),
            files,
            on_corrupt: config.on_corrupt,
            damage: Arc::default(),
        }
    }

    /// Returns the errors of the parts skipped since the last call.
    #[cfg(feature = "cli")]
    pub(crate) fn take_damage(&self) -> Vec<Error> {
        self.damage.take()
    }

    /// Lists the files, each with its uri, its format, and the number of its parts.
    pub fn files(&self) -> impl Iterator<Item = (String, &'static str, usize)> {
        self.files.iter().map(|file| (file.location.uri(), file.kind(), file.parts()))
    }
}

/// Opens files, up to [`MAX_OPENING`] at the same time.
async fn opened(locations: Vec<Location>) -> Vec<Result<Arc<DataFile>>> {
    let open = |location| async {
        tokio::task::spawn_blocking(|| DataFile::open(location).map(Arc::new))
            .await
            .map_err(|e| Error::of_task("source", e))?
    };
    futures::stream::iter(locations).map(open).buffered(MAX_OPENING).collect().await
}

// Options may hold credentials, and files have long footers: neither is shown.
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
        let files = self.files.iter().map(|file| file.location.source_file()).collect();
        let uris: Vec<_> = self.uris.iter().map(|uri| absolute(uri)).collect();
        Some(Fingerprint { settings: format!("{uris:?} {:?}", self.on_corrupt), files })
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts {
            skipped_rows: self.damage.rows(),
            bad_texts: 0,
            failed_requests: self.access.failed_requests.load(Relaxed),
        }
    }

    fn added(&self, known: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let added = async move {
            let mut locations = find::list(&self.uris, &self.access, |_, _| {}).await?;
            for SourceFile { uri, version } in &known {
                let change = match locations.iter().map(Location::source_file).find(|found| found.uri == *uri) {
                    None => "is gone",
                    Some(found) if found.version != *version => "has changed",
                    Some(_) => continue,
                };
                return Err(Error::SourceChanged { uri: uri.clone(), change });
            }
            locations.retain(|location| !known.contains(&location.source_file()));
            if locations.is_empty() {
                return Ok(None);
            }
            let files = opened(locations).await.into_iter().collect::<Result<_>>()?;
            Ok(Some(Box::new(Self { files, ..self.clone() }) as Box<dyn Source>))
        };
        added.boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let declared = self.schema.project(&column_indices(&self.uri, &self.schema, columns)?);
        let declared = Arc::new(declared.map_err(|cause| Error::Arrow { action: "select columns", cause })?);
        let mut parts = VecDeque::new();
        for file in &self.files {
            let adapter = Arc::new(Adapter::new(&file.location.uri(), declared.clone(), &file.schema())?);
            let part = |number| FilePart { file: file.clone(), number, adapter: adapter.clone() };
            parts.extend((0..file.parts()).map(part));
        }
        Ok(reading::in_order(parts, self.on_corrupt, self.damage.clone()))
    }
}

/// The most files that are opened at the same time.
const MAX_OPENING: usize = 16;
