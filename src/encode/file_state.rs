//! Tells whether a file has changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The state of a file. If two states differ, it may be another file or have other content.
///
/// Time and size alone are not enough: a link that leads elsewhere, a renamed folder, or a file that has replaced
/// another may have an older time and the same size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    size: u64,
    modified: Option<SystemTime>,
    /// The path with all links resolved.
    resolved: PathBuf,
    /// The device, and the number of the file on it; zeros if the system has no such numbers.
    device_and_inode: (u64, u64),
}

impl FileState {
    /// Reads the state of a file, following links. Blocks.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let resolved = path.canonicalize()?;
        let metadata = resolved.metadata()?;
        #[cfg(unix)]
        let device_and_inode = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let device_and_inode = (0, 0);
        Ok(Self { size: metadata.len(), modified: metadata.modified().ok(), resolved, device_and_inode })
    }

    /// Whether both are states of the same file, with the same content or not.
    #[cfg(feature = "cli")]
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.resolved == other.resolved || (cfg!(unix) && self.device_and_inode == other.device_and_inode)
    }

    /// Returns the path with all links resolved.
    pub fn resolved(&self) -> &Path {
        &self.resolved
    }
}
