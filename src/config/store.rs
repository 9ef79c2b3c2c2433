use std::path::PathBuf;

use serde::Deserialize;

use super::check::{Check, Checker};

/// `[store]`: where the rows are kept once read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// Folder for the cache of the source's rows, made if missing; it takes about the size of the uncompressed data. A
    /// later run over the same files and columns opens it instead of reading them again. Default: none, and the rows go
    /// to a temporary file that vanishes with the run.
    pub cache_dir: Option<PathBuf>,
    /// What the system is told about how the rows are read. Default `auto`.
    pub advice: Advice,
    /// When the cached rows are checked against the checksums that they were written with. Default `first_use`.
    pub verify: Verify,
}

/// What the system is told about how the rows are read; on Linux only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// `random` if the rows take more than half of the memory that is available to the process, `normal` otherwise.
    #[default]
    Auto,
    /// Nothing: it reads ahead around each row, and the whole file is soon in memory.
    Normal,
    /// That rows are read at random, and which ones each mini-batch needs before they are gathered. Much faster if rows
    /// are not in memory, slower if they are; see docs/store.md.
    Random,
}

/// When cached rows are checked against their checksums: a failing disk or memory may change them silently.
///
/// If a cache file's time shows that it was copied or written to, all of it is checked at once in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// All of them before the run begins: reads the whole cache.
    Open,
    /// Each record batch of 8,192 rows when it is first used, which costs no extra reading if all rows are embedded.
    /// Rows that are [read at random](Advice) from data larger than memory are checked in passes over all of them only.
    #[default]
    FirstUse,
    /// Never.
    Never,
}

impl Check for StoreConfig {
    const SECTION: &'static str = "store";

    fn check(&self, check: &mut Checker<'_>) {
        let given = self.cache_dir.as_ref().is_none_or(|d| !d.as_os_str().is_empty());
        check.require(given, "cache_dir", "is empty; name a folder, or leave the key out");
    }
}
