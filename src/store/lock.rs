//! A lock by which only one process builds a cache.

use std::fs::{File, TryLockError};
use std::path::Path;

use tracing::Span;

use crate::arrow_file;
use crate::error::{Error, Result};
use crate::telemetry;

/// A file lock that is held while a cache is built.
///
/// Another process that wants the same cache waits, and then opens it. The system releases the lock when the process
/// ends, however that happens.
#[derive(Debug)]
pub(super) struct BuildLock {
    _file: File,
}

impl BuildLock {
    /// Waits for the lock of the cache files in `dir` whose names start with `key`.
    pub async fn acquire(dir: &Path, key: &str, span: Span) -> Result<Self> {
        let (dir, key) = (dir.to_owned(), key.to_owned());
        let acquire = move || span.in_scope(|| Self::acquire_blocking(&dir, &key));
        tokio::task::spawn_blocking(acquire).await.map_err(|e| Error::of_task("store", e))?
    }

    fn acquire_blocking(dir: &Path, key: &str) -> Result<Self> {
        let lock = dir.join(format!("{key}.lock"));
        let io = |action| {
            let path = lock.clone();
            move |cause| Error::Io { action, path, cause }
        };
        std::fs::create_dir_all(dir).map_err(io("create a file in the folder of"))?;
        let file = File::create(&lock).map_err(io("create"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                telemetry::cache_awaited(&lock);
                file.lock().map_err(io("lock"))?;
            }
            Err(TryLockError::Error(cause)) => return Err(io("lock")(cause)),
        }
        // These files were left by a process that was killed.
        let unfinished = arrow_file::unfinished(key);
        for entry in std::fs::read_dir(dir).map_err(io("list the folder of"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&unfinished) {
                std::fs::remove_file(entry.path()).map_err(io("clean up beside"))?;
            }
        }
        Ok(Self { _file: file })
    }
}
