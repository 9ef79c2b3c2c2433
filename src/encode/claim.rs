//! Which process embeds a record batch, among those that keep embeddings in one folder.

use std::fs::{File, TryLockError};
use std::io::Result;
use std::path::{Path, PathBuf};

/// What entitles this process to embed a record batch.
///
/// It is a lock on an empty file beside the file that the embeddings will be in. The system releases the lock when the
/// process ends, however that happens, and the file is removed once the embeddings are kept.
///
/// A claim saves work; nothing goes wrong without one. If two processes embed the same rows, both get the same vectors,
/// and the second file replaces the first.
#[derive(Debug)]
pub(super) struct Claim {
    /// `None` if there is nobody to share the work with.
    lock: Option<(File, PathBuf)>,
}

impl Claim {
    /// Claims the record batch whose embeddings will be in this file; `None` while another process has claimed it.
    ///
    /// # Errors
    /// The folder cannot be written to, or its file system has no locks.
    pub fn of(embeddings: &Path) -> Result<Option<Self>> {
        let path = embeddings.with_extension("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { lock: Some((file, path)) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(cause),
        }
    }

    /// A claim that no other process sees.
    pub fn unshared() -> Self {
        Self { lock: None }
    }

    /// Gives the claim up after the embeddings were kept, so that nobody claims the record batch again.
    pub fn end(self) {
        if let Some((_, path)) = &self.lock {
            // If the empty file stays, it is in nobody's way.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_excludes_others_until_it_is_given_up() {
        let dir = tempfile::TempDir::new().unwrap();
        let embeddings = dir.path().join("a.arrow");
        let lock = dir.path().join("a.lock");
        let claim = Claim::of(&embeddings).unwrap().unwrap();
        assert!(Claim::of(&embeddings).unwrap().is_none());
        assert!(Claim::of(&dir.path().join("b.arrow")).unwrap().is_some());
        // Another process may have opened the file before, as a forked one has.
        let opened_before = File::open(&lock).unwrap();
        let duplicate = claim.lock.as_ref().unwrap().0.try_clone().unwrap();
        drop(claim);
        assert!(lock.exists());
        let claim = Claim::of(&embeddings).unwrap().unwrap();
        claim.end();
        assert!(!lock.exists());
        opened_before.try_lock().unwrap();
        drop(duplicate);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(Claim::of(Path::new("no such folder/a.arrow")).is_err());
    }
}
