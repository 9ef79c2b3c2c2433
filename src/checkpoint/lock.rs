//! The lock of a checkpoint folder: two runs would remove each other's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// Locks a folder, and creates it if it is missing. The lock ends when the file is closed.
///
/// Waits a few seconds for another run to end, since work of one that was just dropped may still be running.
pub(super) async fn lock(dir: &Path) -> Result<fs::File> {
    let path = lock_path(dir);
    let io = |action, cause| Error::Io { action, path: path.clone(), cause };
    fs::create_dir_all(dir).map_err(|cause| io("create the folder of", cause))?;
    let file = fs::File::create(&path).map_err(|cause| io("create", cause))?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(fs::TryLockError::Error(cause)) => return Err(io("lock", cause)),
        }
    }
    let reason = "is in use by a run that has not ended; end that, or name another";
    Err(Error::State { reason: format!("checkpoint.dir `{}` {reason}", dir.display()) })
}

/// The file that is locked as long as the run's rank 0 is there.
pub(super) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Five seconds in all.
const LOCK_ATTEMPTS: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
