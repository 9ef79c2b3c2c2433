//! Files that ranks share.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph::ProximityGraph;

/// What can be shared: saved to a file, and mapped.
pub(crate) trait Shareable: Sized {
    /// What names of files begin with, and messages call it.
    const NAME: &str;

    fn save(&self, path: &Path) -> Result<()>;
    fn map(path: &Path) -> Result<Self>;
}

impl Shareable for EmbeddingTable {
    const NAME: &str = "embeddings";

    fn save(&self, path: &Path) -> Result<()> {
        self.save_for_now(path)
    }

    fn map(path: &Path) -> Result<Self> {
        Self::map(path)
    }
}

impl Shareable for ProximityGraph {
    const NAME: &str = "graph";

    fn save(&self, path: &Path) -> Result<()> {
        self.save_for_now(path)
    }

    fn map(path: &Path) -> Result<Self> {
        Self::open(path)
    }
}

/// A file that stays as long as some rank has it in use.
#[derive(Debug)]
pub(crate) struct FileInUse {
    /// Locked for all that use it.
    pub file: File,
    pub path: PathBuf,
}

impl Drop for FileInUse {
    fn drop(&mut self) {
        // A lock that all others have given up, too, can be had alone.
        if self.file.unlock().is_ok() && self.file.try_lock().is_ok() {
            // Windows keeps a file that is mapped; the next run removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
