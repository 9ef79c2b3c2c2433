//! Lists what a cache folder holds, from all runs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::build::files_of;
use crate::arrow_file::ArrowFile;
use crate::error::{Error, Result};

/// A file of rows in a cache folder.
#[derive(Debug)]
pub(crate) struct CachedRows {
    /// The size of the file.
    pub bytes: u64,
    pub rows: usize,
    /// The files that the rows were read from.
    pub uris: Vec<String>,
    /// When the file was written, if the file system tells.
    pub written: Option<SystemTime>,
}

/// Opens the files of rows in a cache folder, by name; one that cannot be opened is an error in the list.
///
/// The list is empty if there is no folder.
pub(crate) fn cached(dir: &Path) -> Result<Vec<(PathBuf, Result<CachedRows>)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|cause| Error::Io { action: "list", path: dir.to_owned(), cause })?,
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    paths.sort();
    Ok(paths.into_iter().map(|path| (path.clone(), open(&path))).collect())
}

fn open(path: &Path) -> Result<CachedRows> {
    let metadata = std::fs::metadata(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })?;
    let file = ArrowFile::open(path)?;
    let rows = file.parts.iter().map(|part| part.batch.num_rows()).sum();
    let uris = files_of(&file.schema).into_iter().map(|source_file| source_file.uri).collect();
    Ok(CachedRows { bytes: metadata.len(), rows, uris, written: metadata.modified().ok() })
}

/// Whether a file is named as [`build`](super::build) names them: by a checksum and a number.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parts = name.strip_suffix(".arrow").and_then(|stem| stem.split_once('-'));
    parts.is_some_and(|(key, number)| {
        key.len() == 16 && key.chars().all(|c| c.is_ascii_hexdigit()) && number.parse::<usize>().is_ok()
    })
}
