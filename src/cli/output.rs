//! Where `prosampler run --output` writes its mini-batches: an Arrow IPC stream, or a Parquet file.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tempfile::NamedTempFile;

use super::out::system_error;
use super::output_apart::must_be_apart;
use crate::arrow_file::unfinished;
use crate::config::PipelineConfig;
use crate::source::column_indices;
use crate::{Error, Fault, Faults, MiniBatch, MiniBatchStream, Result};

/// The mini-batches of a run as they are written, one record batch each.
///
/// A file is opened before anything is read or embedded, so that no hours are spent if it cannot be written. It is
/// replaced when the stream has started: an Arrow stream is emptied then and grows in place, so that others may follow
/// it; a Parquet file, which nobody can read before its end, is written under another name and renamed.
pub(super) struct Output {
    /// What errors name.
    path: PathBuf,
    place: Place,
    writer: Option<Writer>,
}

/// What has been opened.
enum Place {
    Stdout,
    Stream(OpenedFile),
    Parquet(ParquetPlace),
}

/// What writes record batches.
enum Writer {
    Stream(Box<StreamWriter<BufWriter<Box<dyn Write + Send>>>>),
    Parquet(Box<ArrowWriter<NamedTempFile>>),
}

/// Whether this value of `--output` means standard output.
pub(super) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-" || path.as_os_str() == "/dev/stdout"
}

impl Output {
    /// Opens what `--output` names. A file must be none that the run reads or keeps, nor one of these `others`.
    pub fn open(path: PathBuf, config: &PipelineConfig, others: &[&Path]) -> Result<Self> {
        if is_stdout(&path) {
            return Self::to_stdout();
        }
        let opened = OpenedFile::open(&path)?;
        must_be_apart(&path, config, others)?;
        let is_parquet = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"));
        let place = if is_parquet { Place::Parquet(opened.into_parquet()?) } else { Place::Stream(opened) };
        Ok(Self { path, place, writer: None })
    }

    fn to_stdout() -> Result<Self> {
        if std::io::stdout().is_terminal() {
            let message = "is a terminal, which shows no Arrow stream; pipe it to a program, or name a file";
            return Err(Faults::one(Faults::COMMAND_LINE, Fault::new("--output -", message)).into());
        }
        Ok(Self { path: "standard output".into(), place: Place::Stdout, writer: None })
    }

    /// Empties the file and writes the schema of the mini-batches that follow.
    pub fn begin(&mut self, stream: &MiniBatchStream) -> Result<()> {
        let schema = MiniBatch::schema(&stream.schema());
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
        column_indices("the file of mini-batches", &schema, &names)?;
        let writer = match &mut self.place {
            Place::Stdout => self.stream_writer(Box::new(std::io::stdout()), &schema)?,
            Place::Stream(opened) => {
                let file = opened.emptied()?;
                self.stream_writer(Box::new(file), &schema)?
            }
            Place::Parquet(place) => {
                let file = place.create()?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
                    .build();
                let writer = ArrowWriter::try_new(file, schema.into(), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|error| self.failed(parquet_error(error)))?))
            }
        };
        self.writer = Some(writer);
        Ok(())
    }

    fn stream_writer(&self, to: Box<dyn Write + Send>, schema: &Schema) -> Result<Writer> {
        let writer = StreamWriter::try_new_buffered(to, schema);
        writer.map(|writer| Writer::Stream(Box::new(writer))).map_err(|error| self.failed(system_error(error)))
    }

    /// Writes a mini-batch. A reader of a stream gets it at once.
    pub fn write(&mut self, mini_batch: &MiniBatch) -> Result<()> {
        let rows = mini_batch.to_record_batch()?;
        let written = match &mut self.writer {
            None => Ok(()),
            Some(Writer::Stream(writer)) => writer.write(&rows).and_then(|()| writer.flush()).map_err(system_error),
            Some(Writer::Parquet(writer)) => writer.write(&rows).map_err(parquet_error),
        };
        written.map_err(|cause| self.failed(cause))
    }

    /// Completes what was written.
    pub fn finish(mut self) -> Result<()> {
        let finished = match (self.writer.take(), &self.place) {
            (Some(Writer::Stream(mut writer)), _) => {
                writer.finish().and_then(|()| writer.flush()).map_err(system_error)
            }
            (Some(Writer::Parquet(writer)), Place::Parquet(place)) => {
                writer.into_inner().map_err(parquet_error).and_then(|file| place.persist(file))
            }
            _ => Ok(()),
        };
        finished.map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        Error::Io { action: "write", path: self.path.clone(), cause }
    }
}

/// A file that was opened to be written. If it was not there before and nothing is written, it is removed.
struct OpenedFile {
    path: PathBuf,
    is_new: bool,
    /// The file, until it is written to.
    file: Option<File>,
}

impl OpenedFile {
    fn open(path: &Path) -> Result<Self> {
        let failed = |cause: std::io::Error| Error::Io { action: "create", path: path.to_owned(), cause };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let reason = format!("there is no folder `{}`", folder.display());
            return Err(failed(std::io::Error::new(ErrorKind::NotFound, reason)));
        }
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), is_new, file: Some(file) })
    }

    /// The file without its former content.
    fn emptied(&mut self) -> Result<File> {
        let failed = |cause| Error::Io { action: "empty", path: self.path.clone(), cause };
        let file = self.file.take().ok_or_else(|| failed(std::io::Error::other("it was opened once only")))?;
        // Pipes and devices have no length.
        if file.metadata().is_ok_and(|about| about.is_file()) {
            file.set_len(0).map_err(failed)?;
        }
        Ok(file)
    }

    /// The place of a Parquet file: whatever is there stays as it is until the new file is complete.
    fn into_parquet(self) -> Result<ParquetPlace> {
        let failed = |cause| Error::Io { action: "open", path: self.path.clone(), cause };
        // A link stays, and what it leads to is replaced.
        let path = self.path.canonicalize().map_err(failed)?;
        let about = path.metadata().map_err(failed)?;
        if !about.is_file() {
            let message = format!(
                "`{}` is a pipe or a device, and a Parquet file is complete only at its end; name a file, or let the \
                 name end otherwise for an Arrow stream",
                self.path.display()
            );
            return Err(Faults::one(Faults::COMMAND_LINE, Fault::new("--output", message)).into());
        }
        Ok(ParquetPlace { path, permissions: about.permissions() })
    }
}

impl Drop for OpenedFile {
    fn drop(&mut self) {
        if self.is_new && self.file.is_some() {
            // The file is empty; if it stays, nothing is lost.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where a Parquet file will be.
struct ParquetPlace {
    path: PathBuf,
    /// Those of the file before it, or those that a new file gets.
    permissions: std::fs::Permissions,
}

impl ParquetPlace {
    /// Creates the file under another name, which no source finds. It is removed if the run fails.
    fn create(&self) -> Result<NamedTempFile> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let failed = |cause| Error::Io { action: "create a file in", path: folder.to_owned(), cause };
        let file = tempfile::Builder::new().prefix(&unfinished(&stem)).tempfile_in(folder).map_err(failed)?;
        file.as_file().set_permissions(self.permissions.clone()).map_err(failed)?;
        Ok(file)
    }

    fn persist(&self, file: NamedTempFile) -> std::io::Result<()> {
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }
}

/// The system's own error, if Parquet only passes it on.
fn parquet_error(error: ParquetError) -> std::io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast() {
            Ok(cause) => *cause,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    }
}

/// About how large a row group becomes; this much is held in memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
