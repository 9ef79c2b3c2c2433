//! Which refreshes begin, as rank 0 has decided for all ranks: a text file with a line for each step at which one may.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lock::lock_path;

/// The decisions of a run. Rank 0 writes them, the others read.
#[derive(Debug)]
pub(crate) struct Decisions {
    path: PathBuf,
    lock: PathBuf,
    is_writer: bool,
    known: BTreeMap<u64, bool>,
    /// How many bytes of the file are known.
    read: u64,
}

impl Decisions {
    pub(super) fn in_folder(dir: &Path, is_writer: bool) -> Self {
        Self { path: dir.join(FILE), lock: lock_path(dir), is_writer, known: BTreeMap::new(), read: 0 }
    }

    pub fn is_writer(&self) -> bool {
        self.is_writer
    }

    /// Whether a refresh begins at `step`; `None` if that is not decided. Blocks.
    pub fn at(&mut self, step: u64) -> Result<Option<bool>> {
        if !self.known.contains_key(&step) {
            self.read_on()?;
        }
        let decision = self.known.get(&step).copied();
        if decision.is_some() {
            // Nobody asks for earlier ones any more.
            self.known = self.known.split_off(&step);
        }
        Ok(decision)
    }

    /// Decides for all ranks. Blocks.
    pub fn write(&mut self, step: u64, begins: bool) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        file.write_all(line(step, begins).as_bytes())
    }

    /// Whether rank 0 is running. Blocks.
    pub fn has_writer(&self) -> bool {
        let Ok(file) = File::open(&self.lock) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    fn read_on(&mut self) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be unfinished.
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        self.known.extend(decisions(&text[..complete]));
        self.read += complete as u64;
        Ok(())
    }
}

/// Leaves the decisions for steps before `step`, which a run that goes on there takes again. Rank 0 does so.
pub(super) fn keep_before(dir: &Path, step: u64) -> Result<()> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let kept = decisions(&text).filter(|&(at, _)| at < step);
    fs::write(path, kept.map(|(at, begins)| line(at, begins)).collect::<String>())
}

fn line(step: u64, begins: bool) -> String {
    format!("{step} {}\n", if begins { BEGINS } else { "waits" })
}

fn decisions(text: &str) -> impl Iterator<Item = (u64, bool)> {
    text.lines().filter_map(|line| {
        let (step, what) = line.split_once(' ')?;
        Some((step.parse().ok()?, what == BEGINS))
    })
}

const FILE: &str = "refreshes.txt";
const BEGINS: &str = "begins";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rank_0_writes_the_others_read() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut writer = Decisions::in_folder(dir.path(), true);
        let mut reader = Decisions::in_folder(dir.path(), false);
        assert_eq!(reader.at(10).unwrap(), None);
        writer.write(10, false).unwrap();
        writer.write(20, true).unwrap();
        assert_eq!(reader.at(10).unwrap(), Some(false));
        // An unfinished line does not count.
        let mut file = File::options().append(true).open(dir.path().join(FILE)).unwrap();
        file.write_all(b"30 beg").unwrap();
        assert_eq!((reader.at(20).unwrap(), reader.at(30).unwrap()), (Some(true), None));
        file.write_all(b"ins\n").unwrap();
        assert_eq!(reader.at(30).unwrap(), Some(true));

        keep_before(dir.path(), 30).unwrap();
        let mut resumed = Decisions::in_folder(dir.path(), false);
        assert_eq!((resumed.at(20).unwrap(), resumed.at(30).unwrap()), (Some(true), None));
    }

    #[test]
    fn a_lock_tells_whether_rank_0_is_running() {
        let dir = tempfile::TempDir::new().unwrap();
        let reader = Decisions::in_folder(dir.path(), false);
        assert!(!reader.has_writer());
        let lock = File::create(lock_path(dir.path())).unwrap();
        assert!(!reader.has_writer());
        lock.lock().unwrap();
        assert!(reader.has_writer());
        drop(lock);
        assert!(!reader.has_writer());
    }
}
