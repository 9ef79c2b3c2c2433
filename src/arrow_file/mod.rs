//! Uncompressed Arrow IPC files with checksums: written under a temporary name, memory-mapped.
//!
//! The store's cache, saved graphs, saved embeddings and what a checkpoint has besides. Nothing of a mapped file is
//! copied: its buffers must be aligned as Arrow's own writer aligns them. The footer has a checksum of each record
//! batch, of what comes before the first, and of itself. Opening checks the last two, and that no offset or text leads
//! astray; a record batch is checked against its checksum where [`Part::verify`] is called.

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
    /// What was noted is among its metadata.
    pub schema: SchemaRef,
    pub parts: Vec<Part>,
}

/// A record batch of a mapped file, and what its bytes must add up to. Cloning shares what is known of them.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub batch: RecordBatch,
    bytes: Arc<Summed>,
}

#[derive(Debug)]
struct Summed {
    file: Arc<Path>,
    number: usize,
    bytes: Buffer,
    checksum: u64,
    verified: AtomicBool,
}

impl Part {
    /// The same part with other columns of it.
    pub fn project(&self, positions: &[usize]) -> Result<Self, ArrowError> {
        Ok(Self { batch: self.batch.project(positions)?, bytes: self.bytes.clone() })
    }

    /// Checks that its bytes are those that were written, once: reads all of them.
    ///
    /// # Errors
    /// [`Error::Damaged`], without a remedy.
    pub fn verify(&self) -> Result<()> {
        let Summed { file, number, bytes, checksum: expected, verified } = &*self.bytes;
        if !verified.load(Relaxed) {
            if checksum(bytes) != *expected {
                let place = Some(format!("in record batch {number}"));
                return Err(Error::Damaged { path: file.to_path_buf(), place, remedy: None });
            }
            verified.store(true, Relaxed);
        }
        Ok(())
    }

    /// Takes it as checked.
    pub fn trust(&self) {
        self.bytes.verified.store(true, Relaxed);
    }

    /// What its bytes add up to.
    pub fn checksum(&self) -> u64 {
        self.bytes.checksum
    }
}

impl ArrowFile {
    /// Opens a finished file. All offsets and texts are checked, so a damaged file is an error and never a wild pointer.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] for a file that is damaged where that shows, or was not written here.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })?;
        decode(map(&file, path)?, path).map_err(|e| failed(path, e))
    }

    /// Checks all its record batches.
    ///
    /// # Errors
    /// [`Error::Damaged`] for the first one that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        self.parts.iter().try_for_each(Part::verify)
    }

    /// Whether a stamped file has the time that it names: nobody has written to it since, and it is no copy.
    pub fn is_as_written(&self, path: &Path) -> bool {
        let Some(stamp) = self.schema.metadata().get(STAMP) else { return false };
        if stamp == UNKNOWN {
            return true;
        }
        // Any number may stand there, also one that is beyond all times.
        let named = stamp.parse().ok().map(Duration::from_secs);
        let found = std::fs::metadata(path).and_then(|of| of.modified()).ok();
        named.is_some() && named == found.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
    }
}

/// How the names of unfinished files begin, for files whose names begin with `stem`.
pub(crate) fn unfinished(stem: &str) -> String {
    let dash = if stem.is_empty() { "" } else { "-" };
    format!(".building-{stem}{dash}")
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has the names in a folder brought to disk: a file that was renamed has its new name after a power cut, too.
pub(crate) fn sync_folder(dir: &Path) -> Result<()> {
    #[cfg(unix)]
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    #[cfg(not(unix))]
    let synced = Ok(());
    synced.map_err(|cause| Error::Io { action: "write the folder", path: dir.to_owned(), cause })
}

/// Writes a file of one record batch: `path` is the whole new file or what it was before. Missing folders are made.
pub(crate) fn save(path: &Path, batch: &RecordBatch) -> Result<()> {
    let mut writer = ArrowFileWriter::create(Some(path), &batch.schema())?;
    writer.write(batch)?;
    writer.finish(Some(path)).map(drop)
}

/// Opens a file of one record batch whose metadata name this `format`, checks that it is as it was written, and gives
/// what `decode` makes of it. A file of another kind is [`Error::Corrupt`], with what is wrong and what was `expected`.
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

/// Key of the schema's metadata.
pub(crate) const FORMAT_VERSION: &str = "format_version";

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

fn decode(buffer: Buffer, path: &Path) -> Result<ArrowFile, ArrowError> {
    // Arrow's decoder panics on some damaged metadata: a buffer that ends beyond the file, for one.
    guarded(|| decode_sound(&buffer, path))
        .unwrap_or_else(|panic| Err(ArrowError::IpcError(format!("its metadata point to what is not there: {panic}"))))
}

fn decode_sound(buffer: &Buffer, path: &Path) -> Result<ArrowFile, ArrowError> {
    let unsound = |reason: &str| ArrowError::IpcError(reason.to_owned());
    let short = || unsound("the file is too short");
    let end = buffer.len().checked_sub(TRAILER).ok_or_else(short)?;
    let trailer = buffer[end..].try_into().map_err(|_| short())?;
    read_footer_length(trailer)?;
    let range = footer_range(buffer.len(), trailer).ok_or_else(short)?;
    let footer = root_as_footer(&buffer[range.clone()]).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let (bytes, start) = (&buffer[range.start..], range.start);
    let place = checksum::place_in(&footer, bytes).ok_or_else(|| unsound("its footer has no checksum"))?;
    if bytes[place.clone()] != *to_text(checksum::of_footer(bytes, &place)).as_bytes() {
        return Err(unsound("its footer does not have the checksum that was written"));
    }
    let checksums = checksum::of_parts(&footer).ok_or_else(|| unsound("its footer has no checksums"))?;
    let blocks: Vec<&Block> = footer.recordBatches().iter().flatten().collect();
    let ranges: Vec<_> = blocks.iter().map(|block| range_of(block, start)).collect::<Option<_>>().ok_or_else(short)?;
    let (Some((&first, checksums)), true) = (checksums.split_first(), checksums.len() == blocks.len() + 1) else {
        return Err(unsound("it has not one checksum for each record batch"));
    };
    let begin = ranges.first().map_or(start.saturating_sub(END), |range| range.start);
    if checksum(&buffer[..begin]) != first {
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
        parts.push(Part { batch, bytes: Arc::new(Summed { file: file.clone(), number, bytes, checksum, verified }) });
    }
    Ok(ArrowFile { schema, parts })
}

/// The schema, and what was noted among its metadata.
fn schema_of(footer: &Footer<'_>) -> Result<SchemaRef, ArrowError> {
    let schema = footer.schema().ok_or_else(|| ArrowError::IpcError("the footer has no schema".into()))?;
    let mut schema = try_fb_to_schema(schema)?;
    let noted = footer.custom_metadata().into_iter().flatten();
    schema.metadata.extend(noted.filter_map(|pair| Some((pair.key()?.to_owned(), pair.value()?.to_owned()))));
    Ok(Arc::new(schema))
}

/// The bytes of a record batch, all before the footer, which begins at `end`.
fn range_of(block: &Block, end: usize) -> Option<Range<usize>> {
    let start = usize::try_from(block.offset()).ok()?;
    let length = i64::from(block.metaDataLength()).checked_add(block.bodyLength())?;
    let range = start..start.checked_add(usize::try_from(length).ok()?)?;
    (range.end <= end).then_some(range)
}

/// Where the footer of a file of this length lies.
fn footer_range(file: usize, trailer: [u8; TRAILER]) -> Option<Range<usize>> {
    let end = file.checked_sub(TRAILER)?;
    Some(end.checked_sub(read_footer_length(trailer).ok()?)?..end)
}

/// The system's reason where there is one (a full disk: only writing gives one), Arrow's otherwise.
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

/// Footer length and magic.
const TRAILER: usize = 10;

/// The mark behind the last record batch.
const END: usize = 8;
