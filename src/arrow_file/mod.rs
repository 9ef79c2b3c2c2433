//! Uncompressed Arrow IPC files with checksums, which are memory-mapped.
//!
//! The store's cache, saved graphs, saved embeddings and other files of a checkpoint have this format.
//!
//! - A file is written under a temporary name, and renamed when it is complete.
//! - Nothing of a mapped file is copied: its buffers must be aligned as Arrow's own writer aligns them.
//! - The footer has a checksum of each record batch, of what precedes the first one, and of itself. Opening checks the
//!   last two, and that offsets and texts are valid; [`Part::verify`] checks a record batch.

mod checksum;
mod writer;

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::{Block, Footer, root_as_footer};
use bytes::Bytes;
use memmap2::Mmap;

pub(crate) use self::checksum::{checksum, checksum_of_rows, to_text};
pub(crate) use self::writer::ArrowFileWriter;
use crate::error::{Error, Result};
use crate::panics::guarded;

/// A finished file, mapped.
#[derive(Debug)]
pub(crate) struct ArrowFile {
    /// The columns. The metadata of the file are among those of the schema.
    pub schema: SchemaRef,
    pub parts: Vec<Part>,
}

/// A record batch of a mapped file, with its checksum. Clones share whether it was verified.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub batch: RecordBatch,
    bytes: Arc<CheckedBytes>,
}

/// The bytes of a record batch, and what their checksum must be.
#[derive(Debug)]
struct CheckedBytes {
    file: Arc<Path>,
    number: usize,
    bytes: Buffer,
    checksum: u64,
    verified: AtomicBool,
}

impl Part {
    /// Returns the part with only these of its columns.
    pub fn project(&self, column_indices: &[usize]) -> Result<Self, ArrowError> {
        Ok(Self { batch: self.batch.project(column_indices)?, bytes: self.bytes.clone() })
    }

    /// Checks that the bytes are those that were written. Reads all of them, but only the first time.
    ///
    /// # Errors
    /// [`Error::Damaged`], without a remedy, if they are not.
    pub fn verify(&self) -> Result<()> {
        let CheckedBytes { file, number, bytes, checksum: expected, verified } = &*self.bytes;
        if !verified.load(Relaxed) {
            if checksum(bytes) != *expected {
                let place = Some(format!("in record batch {number}"));
                return Err(Error::Damaged { path: file.to_path_buf(), place, remedy: None });
            }
            verified.store(true, Relaxed);
        }
        Ok(())
    }

    /// Regards the part as verified.
    pub fn trust(&self) {
        self.bytes.verified.store(true, Relaxed);
    }

    /// Returns the checksum of the bytes as they were written.
    pub fn checksum(&self) -> u64 {
        self.bytes.checksum
    }
}

impl ArrowFile {
    /// Opens a finished file.
    ///
    /// All offsets and texts are checked, so that a damaged file is an error and never an invalid pointer.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] for a file that is visibly damaged, or was not written by this crate.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })?;
        decode(map(&file, path)?, path).map_err(|e| failed(path, e))
    }

    /// Checks all record batches.
    ///
    /// # Errors
    /// [`Error::Damaged`] for the first one that has changed since it was written.
    pub fn verify(&self) -> Result<()> {
        self.parts.iter().try_for_each(Part::verify)
    }

    /// Whether the file has the modification time that it records: it is not a copy, and nobody has written to it
    /// since.
    pub fn is_as_written(&self, path: &Path) -> bool {
        let Some(recorded) = self.schema.metadata().get(MTIME) else { return false };
        if recorded == UNKNOWN_MTIME {
            return true;
        }
        // The number may be anything, also beyond all times.
        let recorded = recorded.parse().ok().map(Duration::from_secs);
        let found = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        recorded.is_some() && recorded == found.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
    }
}

/// Returns what the names of unfinished files start with, for files whose names start with `stem`.
pub(crate) fn unfinished(stem: &str) -> String {
    let dash = if stem.is_empty() { "" } else { "-" };
    format!(".building-{stem}{dash}")
}

/// Removes files in `dir` that killed processes left unfinished, but not recent ones, which others may be writing.
pub(crate) fn remove_unfinished(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(&unfinished(""));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if is_unfinished && age.is_some_and(|age| age > MIN_ABANDONED_AGE) {
            // Another process may be doing the same.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Returns the folder of a file; the working directory if the path has none.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the names in a folder to disk, so that a renamed file has its new name also after a power cut.
pub(crate) fn sync_folder(dir: &Path) -> Result<()> {
    #[cfg(unix)]
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    #[cfg(not(unix))]
    let synced = Ok(());
    synced.map_err(|cause| Error::Io { action: "write the folder", path: dir.to_owned(), cause })
}

/// Writes a file of one record batch, all of it or nothing. Creates missing folders.
pub(crate) fn save(path: &Path, batch: &RecordBatch) -> Result<()> {
    let mut writer = ArrowFileWriter::create(Some(path), &batch.schema())?;
    writer.write(batch)?;
    writer.finish(Some(path)).map(drop)
}

/// Writes a file as [`save`] does, and does not wait for the disk: for a file that no later run needs.
pub(crate) fn save_for_now(path: &Path, batch: &RecordBatch) -> Result<()> {
    let mut writer = ArrowFileWriter::create(Some(path), &batch.schema())?.for_now();
    writer.write(batch)?;
    writer.finish(Some(path)).map(drop)
}

/// Opens and verifies a file of one record batch, and decodes it.
///
/// The metadata of the file must have `format` as their [`FORMAT_VERSION`].
///
/// # Errors
/// [`Error::Io`]; [`Error::Damaged`]; [`Error::Corrupt`] for a file of another kind, with the reason and what was
/// `expected`.
pub(crate) fn open_one<T>(
    path: &Path,
    format: &str,
    expected: &'static str,
    decode: impl FnOnce(&Schema, &RecordBatch) -> Result<T, String>,
) -> Result<T> {
    let file = ArrowFile::open(path)?;
    file.verify()?;
    let decoded = match (file.schema.metadata().get(FORMAT_VERSION), file.parts.as_slice()) {
        (None, _) => Err(format!("its metadata have no `{FORMAT_VERSION}`")),
        (Some(found), _) if found != format => Err(format!("its format version is `{found}`, not {format}")),
        (_, [part]) => decode(&file.schema, &part.batch),
        (_, parts) => Err(format!("it has {} record batches, not one", parts.len())),
    };
    let uri = path.display().to_string();
    decoded.map_err(|reason| Error::Corrupt { uri, place: None, expected, cause: reason.into() })
}

/// The key of the format's version in the schema's metadata.
pub(crate) const FORMAT_VERSION: &str = "format_version";

/// The key of the recorded modification time in the file's metadata.
const MTIME: &str = "prosampler.written";

/// The value of [`MTIME`] if the file system does not keep times.
const UNKNOWN_MTIME: &str = "unknown";

fn map(file: &File, path: &Path) -> Result<Buffer> {
    // SAFETY: the file is either unlinked or renamed to its final name, and this crate never writes to it again. Only
    // another process that truncates the file could take the pages away.
    let map = unsafe { Mmap::map(file) }.map_err(|cause| Error::Io { action: "map", path: path.into(), cause })?;
    Ok(Buffer::from(Bytes::from_owner(map)))
}

fn decode(buffer: Buffer, path: &Path) -> Result<ArrowFile, ArrowError> {
    // Arrow's decoder panics on some damaged metadata, such as a buffer that ends beyond the file.
    guarded(|| decode_unguarded(&buffer, path))
        .unwrap_or_else(|panic| Err(ArrowError::IpcError(format!("its metadata point to what is not there: {panic}"))))
}

/// Checks a file's footer and beginning, and decodes its record batches.
fn decode_unguarded(buffer: &Buffer, path: &Path) -> Result<ArrowFile, ArrowError> {
    let unsound = |reason: &str| ArrowError::IpcError(reason.to_owned());
    let short = || unsound("the file is too short");
    let end = buffer.len().checked_sub(TRAILER_BYTES).ok_or_else(short)?;
    let trailer = buffer[end..].try_into().map_err(|_| short())?;
    read_footer_length(trailer)?;
    let range = footer_range(buffer.len(), trailer).ok_or_else(short)?;
    let footer = root_as_footer(&buffer[range.clone()]).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let start = range.start;
    let bytes = &buffer[start..];
    let sum_range = checksum::range_in(&footer, bytes).ok_or_else(|| unsound("its footer has no checksum"))?;
    if bytes[sum_range.clone()] != *to_text(checksum::of_footer(bytes, &sum_range)).as_bytes() {
        return Err(unsound("its footer does not have the checksum that was written"));
    }
    let checksums = checksum::of_parts(&footer).ok_or_else(|| unsound("its footer has no checksums"))?;
    let blocks: Vec<&Block> = footer.recordBatches().iter().flatten().collect();
    let ranges: Vec<_> = blocks.iter().map(|block| range_of(block, start)).collect::<Option<_>>().ok_or_else(short)?;
    let (Some((&first, checksums)), true) = (checksums.split_first(), checksums.len() == blocks.len() + 1) else {
        return Err(unsound("it has not one checksum for each record batch"));
    };
    let beginning = ranges.first().map_or(start.saturating_sub(END_MARK_BYTES), |range| range.start);
    if checksum(&buffer[..beginning]) != first {
        return Err(unsound("its beginning does not have the checksum that was written"));
    }
    let schema = schema_of(&footer)?;
    let decoder = FileDecoder::new(schema.clone(), footer.version()).with_require_alignment(true);
    let file: Arc<Path> = path.into();
    let mut parts = Vec::new();
    for (number, ((block, range), &checksum)) in blocks.into_iter().zip(ranges).zip(checksums).enumerate() {
        let bytes = buffer.slice_with_length(range.start, range.len());
        let batch = decoder.read_record_batch(block, &bytes)?;
        let batch = batch.ok_or_else(|| unsound("one of its record batches has no rows"))?;
        let verified = AtomicBool::new(false);
        parts.push(Part {
            batch,
            bytes: Arc::new(CheckedBytes { file: file.clone(), number, bytes, checksum, verified }),
        });
    }
    Ok(ArrowFile { schema, parts })
}

/// Reads the schema, with the metadata of the file among its own.
fn schema_of(footer: &Footer<'_>) -> Result<SchemaRef, ArrowError> {
    let schema = footer.schema().ok_or_else(|| ArrowError::IpcError("the footer has no schema".into()))?;
    let mut schema = try_fb_to_schema(schema)?;
    let of_file = footer.custom_metadata().into_iter().flatten();
    schema.metadata.extend(of_file.filter_map(|pair| Some((pair.key()?.to_owned(), pair.value()?.to_owned()))));
    Ok(Arc::new(schema))
}

/// Returns the range of a record batch; `None` if it reaches beyond `end`, where the footer starts.
fn range_of(block: &Block, end: usize) -> Option<Range<usize>> {
    let start = usize::try_from(block.offset()).ok()?;
    let length = i64::from(block.metaDataLength()).checked_add(block.bodyLength())?;
    let range = start..start.checked_add(usize::try_from(length).ok()?)?;
    (range.end <= end).then_some(range)
}

/// Returns the range of the footer of a file of `file` bytes.
fn footer_range(file: usize, trailer: [u8; TRAILER_BYTES]) -> Option<Range<usize>> {
    let end = file.checked_sub(TRAILER_BYTES)?;
    Some(end.checked_sub(read_footer_length(trailer).ok()?)?..end)
}

/// Returns the error of the system if it has one, which only writing gives, such as a full disk; else that of Arrow.
fn failed(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, cause) => Error::Io { action: "write", path: path.into(), cause },
        other => Error::Corrupt {
            uri: path.display().to_string(),
            place: None,
            expected: "an uncompressed Arrow IPC file of this crate's",
            cause: other.into(),
        },
    }
}

/// The age from which an unfinished file is abandoned: nothing takes as long to write.
const MIN_ABANDONED_AGE: Duration = Duration::from_secs(3600);

/// The bytes at the end of a file: the footer's length and a mark.
const TRAILER_BYTES: usize = 10;

/// The bytes of the mark after the last record batch.
const END_MARK_BYTES: usize = 8;
