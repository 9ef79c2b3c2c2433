use std::path::PathBuf;

use serde::Deserialize;

use super::faults::{Check, Checker};
use super::read::layer;

/// `[store]`: where the rows are kept once read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// Folder for the cache of the source's rows, made if missing; it takes about the size of the uncompressed data.
    /// A later run over the same files and columns opens it instead of reading them again. Default: none, and the
    /// rows go to a temporary file that vanishes with the run.
    pub cache_dir: Option<PathBuf>,
}

layer!(StoreConfig: cache_dir);

impl Check for StoreConfig {
    const SECTION: &'static str = "store";

    fn check(&self, check: &mut Checker<'_>) {
        let given = self.cache_dir.as_ref().is_none_or(|d| !d.as_os_str().is_empty());
        check.require(given, "cache_dir", "is empty; name a folder, or leave the key out");
    }
}
