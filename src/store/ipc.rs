//! Uncompressed Arrow IPC files: written under a temporary name, memory-mapped.
//!
//! The store's cache and saved graphs. Nothing of a mapped file is copied: its buffers must be aligned as Arrow's own
//! writer aligns them.

use std::fs::File;
use std::io::{BufWriter, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::root_as_footer;
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;
use memmap2::Mmap;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::panics::guarded;

pub(crate) struct IpcWriter {
    writer: FileWriter<BufWriter<NamedTempFile>>,
    path: PathBuf,
    /// It will have a name, and be on disk.
    stays: bool,
    /// When it will say that it was changed last.
    stamp: Option<SystemTime>,
}

impl IpcWriter {
    /// A new file under a temporary name beside `target`, or among the system's temporary files.
    pub fn create(target: Option<&Path>, schema: &SchemaRef) -> Result<Self> {
        let beside = |target: &Path| {
            let dir = folder(target);
            std::fs::create_dir_all(dir)?;
            let stem = target.file_stem().unwrap_or_default().to_string_lossy();
            tempfile::Builder::new().prefix(&unfinished(&stem)).tempfile_in(dir)
        };
        let file = target.map_or_else(NamedTempFile::new, beside).map_err(|cause| Error::Io {
            action: "create a file in",
            path: target.map_or_else(std::env::temp_dir, |target| folder(target).to_owned()),
            cause,
        })?;
        let path = file.path().to_owned();
        let writer = FileWriter::try_new(BufWriter::new(file), schema).map_err(|e| failed(&path, e))?;
        Ok(Self { writer, path, stays: target.is_some(), stamp: None })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|e| failed(&self.path, e))?;
        if self.stays {
            begin_to_sync(self.writer.get_ref().get_ref().as_file());
        }
        Ok(())
    }

    /// Says something about the whole, beside what the schema's metadata say.
    pub fn note(&mut self, key: &str, value: String) {
        self.writer.write_metadata(key, value);
    }

    /// Has the file name the time of its last change, and have that time once it is complete: see [`is_as_written`].
    /// Where its file system does not keep the time that it is told, the file says that.
    pub fn stamp(&mut self) {
        let file = self.writer.get_ref().get_ref().as_file();
        // Some keep even seconds only.
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() & !1);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let kept = file.set_modified(time).and_then(|()| file.metadata()).and_then(|of| of.modified());
        self.stamp = kept.is_ok_and(|kept| kept == time).then_some(time);
        self.note(STAMP, self.stamp.map_or(UNKNOWN.to_owned(), |_| seconds.to_string()));
    }

    /// Completes the file, moves it to `target` if there is one, and maps it. Without a target the file has no name
    /// from here on, and its space is free again once the last mapping is gone.
    pub fn finish(mut self, target: Option<&Path>) -> Result<Vec<RecordBatch>> {
        let path = self.path;
        let io = |action, cause| Error::Io { action, path: path.clone(), cause };
        self.writer.finish().map_err(|e| failed(&path, e))?;
        let mut buffered = self.writer.into_inner().map_err(|e| failed(&path, e))?;
        buffered.flush().map_err(|e| io("write", e))?;
        let file = buffered.into_inner().map_err(|e| io("write", e.into_error()))?;
        let Some(target) = target else {
            return Ok(decode(map(file.as_file(), &path)?).map_err(|e| failed(&path, e))?.1);
        };
        if let Some(time) = self.stamp {
            file.as_file().set_modified(time).map_err(|e| io("set the time of", e))?;
        }
        file.as_file().sync_all().map_err(|e| io("write", e))?;
        let file = file.persist(target).map_err(|e| io("rename", e.error))?;
        Ok(decode(map(&file, target)?).map_err(|e| failed(target, e))?.1)
    }
}

/// Has what is written so far brought to disk, and does not wait for it: the disk works while the next record batch is
/// made, where it would do nothing until the file is synced at the end.
fn begin_to_sync(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: an open file; 0, 0 is all of it. Where it is refused, syncing at the end takes longer, or fails then.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// How the names of unfinished files begin, for files whose names begin with `stem`.
pub(crate) fn unfinished(stem: &str) -> String {
    format!(".building-{stem}-")
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file of one record batch: `path` is the whole new file or what it was before. Missing folders are made.
pub(crate) fn save(path: &Path, batch: &RecordBatch) -> Result<()> {
    let mut writer = IpcWriter::create(Some(path), &batch.schema())?;
    writer.write(batch)?;
    writer.finish(Some(path)).map(drop)
}

/// Opens a file of one record batch whose metadata name this `format`, as what `decode` makes of it. A file of another
/// kind is [`Error::Corrupt`], with what is wrong and what was `expected`.
pub(crate) fn open_one<T>(
    path: &Path,
    format: &str,
    expected: &'static str,
    decode: impl FnOnce(&Schema, &RecordBatch) -> Result<T, String>,
) -> Result<T> {
    let (schema, batches) = open(path)?;
    let decoded = match (schema.metadata().get(FORMAT_VERSION), batches.as_slice()) {
        (None, _) => Err(format!("its metadata have no `{FORMAT_VERSION}`")),
        (Some(found), _) if found != format => Err(format!("its format version is `{found}`, not {format}")),
        (_, [batch]) => decode(&schema, batch),
        (_, batches) => Err(format!("it has {} record batches, not one", batches.len())),
    };
    let uri = path.display().to_string();
    decoded.map_err(|reason| Error::Corrupt { uri, place: String::new(), expected, cause: reason.into() })
}

/// Key of the schema's metadata.
pub(crate) const FORMAT_VERSION: &str = "format_version";

/// Opens a finished file; what was noted is among the schema's metadata. All offsets and texts are checked, so a damaged
/// file is an error and never a wild pointer.
pub(crate) fn open(path: &Path) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let file = File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })?;
    decode(map(&file, path)?).map_err(|e| failed(path, e))
}

/// Whether a stamped file has the time that it names: nobody has written to it since. That its numbers are those that
/// were written is not checked otherwise, as all of it would have to be read.
pub(crate) fn is_as_written(path: &Path, schema: &Schema) -> bool {
    let Some(stamp) = schema.metadata().get(STAMP) else { return false };
    if stamp == UNKNOWN {
        return true;
    }
    // Any number may stand in a damaged file, also one that is beyond all times.
    let named = stamp.parse().ok().map(Duration::from_secs);
    let found = std::fs::metadata(path).and_then(|of| of.modified()).ok();
    named.is_some() && named == found.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
}

/// Key of what is noted.
const STAMP: &str = "prosampler.written";

/// What stands there where the file system keeps no times.
const UNKNOWN: &str = "unknown";

fn map(file: &File, path: &Path) -> Result<Buffer> {
    // SAFETY: the file is either unlinked or renamed to its final name, and nothing of this crate ever writes to it
    // again; only another process that truncates the file could take the pages away.
    let map = unsafe { Mmap::map(file) }.map_err(|cause| Error::Io { action: "map", path: path.into(), cause })?;
    Ok(Buffer::from(Bytes::from_owner(map)))
}

fn decode(buffer: Buffer) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    // Arrow's decoder panics on some damaged metadata: a buffer that ends beyond the file, for one.
    guarded(|| decode_sound(&buffer))
        .unwrap_or_else(|panic| Err(ArrowError::IpcError(format!("its metadata point to what is not there: {panic}"))))
}

fn decode_sound(buffer: &Buffer) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let short = || ArrowError::IpcError("the file is too short".into());
    let end = buffer.len().checked_sub(TRAILER).ok_or_else(short)?;
    let trailer = buffer[end..].try_into().map_err(|_| short())?;
    let start = end.checked_sub(read_footer_length(trailer)?).ok_or_else(short)?;
    let footer = root_as_footer(&buffer[start..end]).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let schema = footer.schema().ok_or_else(|| ArrowError::IpcError("the footer has no schema".into()))?;
    let mut schema = try_fb_to_schema(schema)?;
    let noted = footer.custom_metadata().into_iter().flatten();
    schema.metadata.extend(noted.filter_map(|pair| Some((pair.key()?.to_owned(), pair.value()?.to_owned()))));
    let schema: SchemaRef = Arc::new(schema);
    let decoder = FileDecoder::new(schema.clone(), footer.version()).with_require_alignment(true);
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let (offset, meta, body) = (block.offset(), i64::from(block.metaDataLength()), block.bodyLength());
        let range = usize::try_from(offset).ok().zip(usize::try_from(meta + body).ok());
        let (offset, len) = range.filter(|(o, l)| o.checked_add(*l).is_some_and(|e| e <= start)).ok_or_else(short)?;
        let data = buffer.slice_with_length(offset, len);
        batches.extend(decoder.read_record_batch(block, &data)?);
    }
    Ok((schema, batches))
}

/// The system's reason where there is one (a full disk), Arrow's otherwise.
fn failed(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, cause) => Error::Io { action: "use", path: path.into(), cause },
        other => Error::Corrupt {
            uri: path.display().to_string(),
            place: String::new(),
            expected: "an uncompressed Arrow IPC file",
            cause: other.into(),
        },
    }
}

/// Footer length and magic.
const TRAILER: usize = 10;
