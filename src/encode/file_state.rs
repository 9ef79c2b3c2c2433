use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a file was when it was looked at: where any of this differs, it may be another one or have another content.
///
/// Time alone is not enough: a link that leads elsewhere, a folder that was renamed and a file that was put in
/// another's place may all bring an older time and the same size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    size: u64,
    modified: Option<SystemTime>,
    /// Where all links lead.
    resolved: PathBuf,
    /// The number of the file on its device; 0 where the system has none.
    device_and_inode: (u64, u64),
}

impl FileState {
    /// Follows links. Blocks.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let resolved = path.canonicalize()?;
        let about = resolved.metadata()?;
        #[cfg(unix)]
        let device_and_inode = {
            use std::os::unix::fs::MetadataExt;
            (about.dev(), about.ino())
        };
        #[cfg(not(unix))]
        let device_and_inode = (0, 0);
        Ok(Self { size: about.len(), modified: about.modified().ok(), resolved, device_and_inode })
    }

    /// Whether both are one file, whatever has become of it.
    #[cfg(feature = "cli")]
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.resolved == other.resolved || (cfg!(unix) && self.device_and_inode == other.device_and_inode)
    }

    /// Where all links lead.
    pub fn resolved(&self) -> &Path {
        &self.resolved
    }
}
