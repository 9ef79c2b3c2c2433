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

use super::checksum::{self, Summed};
use super::{Part, STAMP, TRAILER, UNKNOWN, decode, failed, folder, footer_range, map, sync_folder, unfinished};
use crate::error::{Error, Result};

/// A file in the making, under a temporary name.
pub(crate) struct ArrowFileWriter {
    writer: FileWriter<Summed<BufWriter<NamedTempFile>>>,
    path: PathBuf,
    /// Of what is written so far: the beginning, and each record batch.
    checksums: Vec<u64>,
    /// It will have a name, and be on disk.
    stays: bool,
    /// When it will say that it was changed last.
    stamp: Option<SystemTime>,
}

impl ArrowFileWriter {
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
        let summed = Summed::new(BufWriter::new(file));
        let mut writer = FileWriter::try_new(summed, schema).map_err(|e| failed(&path, e))?;
        let checksums = vec![writer.get_mut().take()];
        Ok(Self { writer, path, checksums, stays: target.is_some(), stamp: None })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|e| failed(&self.path, e))?;
        self.checksums.push(self.writer.get_mut().take());
        if self.stays {
            begin_to_sync(self.file());
        }
        Ok(())
    }

    /// Says something about the whole, beside what the schema's metadata say.
    pub fn note(&mut self, key: &str, value: String) {
        self.writer.write_metadata(key, value);
    }

    /// Has the file name the time of its last change, and have that time once it is complete: see
    /// [`ArrowFile::is_as_written`](super::ArrowFile::is_as_written). Where its file system does not keep the time that
    /// it is told, the file says that.
    pub fn stamp(&mut self) {
        let file = self.file();
        // Some keep even seconds only.
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() & !1);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let kept = file.set_modified(time).and_then(|()| file.metadata()).and_then(|of| of.modified());
        self.stamp = kept.is_ok_and(|kept| kept == time).then_some(time);
        self.note(STAMP, self.stamp.map_or(UNKNOWN.to_owned(), |_| seconds.to_string()));
    }

    /// Completes the file, moves it to `target` if there is one, and maps it. Without a target the file has no name
    /// from here on, and its space is free again once the last mapping is gone.
    pub fn finish(mut self, target: Option<&Path>) -> Result<Vec<Part>> {
        let texts: String = self.checksums.iter().map(|&sum| checksum::to_text(sum)).collect();
        self.note(checksum::OF_PARTS, texts);
        self.note(checksum::OF_FOOTER, "-".repeat(checksum::DIGITS));
        let path = self.path;
        let io = |action, cause| Error::Io { action, path: path.clone(), cause };
        self.writer.finish().map_err(|e| failed(&path, e))?;
        let buffered = self.writer.into_inner().map_err(|e| failed(&path, e))?.into_inner();
        let mut file = buffered.into_inner().map_err(|e| io("write", e.into_error()))?;
        sum_footer(file.as_file_mut()).map_err(|e| io("write", e))?;
        let Some(target) = target else {
            return Ok(decode(map(file.as_file(), &path)?, &path).map_err(|e| failed(&path, e))?.parts);
        };
        if let Some(time) = self.stamp {
            file.as_file().set_modified(time).map_err(|e| io("set the time of", e))?;
        }
        file.as_file().sync_all().map_err(|e| io("write", e))?;
        let file = file.persist(target).map_err(|e| io("rename", e.error))?;
        sync_folder(folder(target))?;
        Ok(decode(map(&file, target)?, target).map_err(|e| failed(target, e))?.parts)
    }

    fn file(&self) -> &File {
        self.writer.get_ref().get_ref().get_ref().as_file()
    }
}

/// Puts the footer's checksum where room was left for it.
fn sum_footer(file: &mut File) -> std::io::Result<()> {
    let unsound = || std::io::Error::other("the footer that was just written cannot be found");
    let len = file.metadata()?.len();
    let mut trailer = [0; TRAILER];
    file.seek(SeekFrom::End(-(TRAILER as i64)))?;
    file.read_exact(&mut trailer)?;
    let range = footer_range(usize::try_from(len).map_err(|_| unsound())?, trailer).ok_or_else(unsound)?;
    let mut bytes = vec![0; range.len() + TRAILER];
    file.seek(SeekFrom::Start(range.start as u64))?;
    file.read_exact(&mut bytes)?;
    let place = root_as_footer(&bytes[..range.len()]).ok().and_then(|footer| checksum::place_in(&footer, &bytes));
    let place = place.ok_or_else(unsound)?;
    let text = checksum::to_text(checksum::of_footer(&bytes, &place));
    file.seek(SeekFrom::Start((range.start + place.start) as u64))?;
    file.write_all(text.as_bytes())
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
