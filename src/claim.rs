//! Which process makes a file, among those that all need it: a record batch's embeddings, a graph.

use std::fs::{File, TryLockError};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// What entitles this process to make a file.
///
/// It is a lock on a small file beside it, which names the process. The system releases the lock when the process ends,
/// however that happens, and the small file is removed once the other one is there.
///
/// A claim saves work; nothing goes wrong without one. If two processes make the same file, the second one replaces the
/// first.
#[derive(Debug)]
pub(crate) struct Claim {
    /// `None` if there is nobody to share the work with.
    lock: Option<(File, PathBuf)>,
}

impl Claim {
    /// Claims the file that will be at `made`; `None` while another process has claimed it.
    ///
    /// # Errors
    /// The folder cannot be written to, or its file system has no locks.
    pub fn of(made: &Path, rank: usize) -> Result<Option<Self>> {
        let path = lock_path(made);
        let mut file = File::options().write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(cause),
        }
        // The name is for messages alone.
        let _ = file.set_len(0).and_then(|()| write!(file, "rank {rank} (process {})", std::process::id()));
        Ok(Some(Self { lock: Some((file, path)) }))
    }

    /// Names the process that has claimed a file, or did so last.
    pub fn holder(made: &Path) -> String {
        let name = std::fs::read_to_string(lock_path(made)).unwrap_or_default();
        if name.is_empty() { "another process".into() } else { name }
    }

    /// A claim that no other process sees.
    pub fn unshared() -> Self {
        Self { lock: None }
    }

    /// Gives the claim up after the file was made, so that nobody claims it again.
    pub fn end(self) {
        if let Some((_, path)) = &self.lock {
            // If the small file stays, it is in nobody's way.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((file, _)) = &self.lock {
            // A forked process may have the file open too, so closing it here may not release the lock.
            let _ = file.unlock();
        }
    }
}

fn lock_path(made: &Path) -> PathBuf {
    made.with_extension("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_excludes_others_until_it_is_given_up() {
        let dir = tempfile::TempDir::new().unwrap();
        let embeddings = dir.path().join("a.arrow");
        let lock = dir.path().join("a.lock");
        let claim = Claim::of(&embeddings, 3).unwrap().unwrap();
        assert!(Claim::of(&embeddings, 2).unwrap().is_none());
        assert_eq!(Claim::holder(&embeddings), format!("rank 3 (process {})", std::process::id()));
        assert!(Claim::of(&dir.path().join("b.arrow"), 2).unwrap().is_some());
        // Another process may have opened the file before, as a forked one has.
        let opened_before = File::open(&lock).unwrap();
        let duplicate = claim.lock.as_ref().unwrap().0.try_clone().unwrap();
        drop(claim);
        assert!(lock.exists());
        let claim = Claim::of(&embeddings, 2).unwrap().unwrap();
        claim.end();
        assert!(!lock.exists());
        opened_before.try_lock().unwrap();
        drop(duplicate);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(Claim::of(Path::new("no such folder/a.arrow"), 0).is_err());
    }
}
