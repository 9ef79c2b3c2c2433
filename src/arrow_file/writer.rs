use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::root_as_footer;
use arrow::ipc::writer::FileWriter;
use tempfile::NamedTempFile;

use super::checksum::{self, ChecksumWriter};
use super::{
    MTIME, Part, TRAILER_BYTES, UNKNOWN_MTIME, decode, failed, folder, footer_range, map, sync_folder, unfinished,
};
use crate::error::{Error, Result};

/// A file that is being written, under a temporary name.
pub(crate) struct ArrowFileWriter {
    writer: FileWriter<ChecksumWriter<BufWriter<NamedTempFile>>>,
    path: PathBuf,
    /// The checksums of what is written so far: of the beginning, and of each record batch.
    checksums: Vec<u64>,
    /// Whether the file is to be on disk before it has its name.
    stays: bool,
    /// The modification time that the file records, and will be given.
    mtime: Option<SystemTime>,
}

impl ArrowFileWriter {
    /// Creates a file under a temporary name beside `target`, or among the system's temporary files.
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
        let summed = ChecksumWriter::new(BufWriter::new(file));
        let mut writer = FileWriter::try_new(summed, schema).map_err(|e| failed(&path, e))?;
        let checksums = vec![writer.get_mut().take()];
        Ok(Self { writer, path, checksums, stays: target.is_some(), mtime: None })
    }

    /// Says that the file need not outlive a power cut.
    pub fn for_now(self) -> Self {
        Self { stays: false, ..self }
    }

    /// Appends a record batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|e| failed(&self.path, e))?;
        self.checksums.push(self.writer.get_mut().take());
        if self.stays {
            start_to_sync(self.file());
        }
        Ok(())
    }

    /// Adds metadata of the file, which are kept in its footer beside those of the schema.
    pub fn add_metadata(&mut self, key: &str, value: String) {
        self.writer.write_metadata(key, value);
    }

    /// Records a modification time in the file, which it is given once it is complete.
    ///
    /// See [`ArrowFile::is_as_written`](super::ArrowFile::is_as_written). If the file system does not keep the time
    /// that it is given, the file records that.
    pub fn record_mtime(&mut self) {
        let file = self.file();
        // Some file systems keep even seconds only.
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() & !1);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let kept = file.set_modified(time).and_then(|()| file.metadata()).and_then(|metadata| metadata.modified());
        self.mtime = kept.is_ok_and(|kept| kept == time).then_some(time);
        self.add_metadata(MTIME, self.mtime.map_or(UNKNOWN_MTIME.to_owned(), |_| seconds.to_string()));
    }

    /// Completes the file, moves it to `target` if there is one, and maps it.
    ///
    /// Without a target the file has no name from here on, and its space is free again once the last mapping is gone.
    pub fn finish(mut self, target: Option<&Path>) -> Result<Vec<Part>> {
        let texts: String = self.checksums.iter().map(|&sum| checksum::to_text(sum)).collect();
        self.add_metadata(checksum::OF_PARTS, texts);
        self.add_metadata(checksum::OF_FOOTER, "-".repeat(checksum::DIGITS));
        let path = self.path;
        let io = |action, cause| Error::Io { action, path: path.clone(), cause };
        self.writer.finish().map_err(|e| failed(&path, e))?;
        let buffered = self.writer.into_inner().map_err(|e| failed(&path, e))?.into_inner();
        let mut file = buffered.into_inner().map_err(|e| io("write", e.into_error()))?;
        write_footer_checksum(file.as_file_mut()).map_err(|e| io("write", e))?;
        let Some(target) = target else {
            return Ok(decode(map(file.as_file(), &path)?, &path).map_err(|e| failed(&path, e))?.parts);
        };
        if let Some(time) = self.mtime {
            file.as_file().set_modified(time).map_err(|e| io("set the time of", e))?;
        }
        if self.stays {
            file.as_file().sync_all().map_err(|e| io("write", e))?;
        }
        let file = file.persist(target).map_err(|e| io("rename", e.error))?;
        if self.stays {
            sync_folder(folder(target))?;
        }
        Ok(decode(map(&file, target)?, target).map_err(|e| failed(target, e))?.parts)
    }

    fn file(&self) -> &File {
        self.writer.get_ref().get_ref().get_ref().as_file()
    }
}

/// Writes the footer's checksum where space was left for it.
fn write_footer_checksum(file: &mut File) -> std::io::Result<()> {
    let unsound = || std::io::Error::other("the footer that was just written cannot be found");
    let len = file.metadata()?.len();
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::End(-(TRAILER_BYTES as i64)))?;
    file.read_exact(&mut trailer)?;
    let range = footer_range(usize::try_from(len).map_err(|_| unsound())?, trailer).ok_or_else(unsound)?;
    let mut bytes = vec![0; range.len() + TRAILER_BYTES];
    file.seek(SeekFrom::Start(range.start as u64))?;
    file.read_exact(&mut bytes)?;
    let sum_range = root_as_footer(&bytes[..range.len()]).ok().and_then(|footer| checksum::range_in(&footer, &bytes));
    let sum_range = sum_range.ok_or_else(unsound)?;
    let text = checksum::to_text(checksum::of_footer(&bytes, &sum_range));
    file.seek(SeekFrom::Start((range.start + sum_range.start) as u64))?;
    file.write_all(text.as_bytes())
}

/// Starts to write to disk what is in the system's memory so far, and does not wait for it.
///
/// The disk then works while the next record batch is made, and there is less to wait for at the end.
fn start_to_sync(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: the file is open, and 0, 0 means all of it. If the call is refused, the sync at the end takes longer.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}
