//! Uris to files, in a fixed order.

use std::path::{Path, PathBuf};

use super::Access;
use super::location::Location;
#[cfg(feature = "cloud")]
use super::object::Remote;
use crate::error::{Error, Result};

/// The files that `uris` name: each a file, a folder of files with one of the endings, or a shell pattern.
pub(super) async fn list(uris: &[String], access: &Access) -> Result<Vec<Location>> {
    let mut remote = Remote::new(access);
    let mut files = Vec::new();
    for uri in uris {
        let found = match uri.split_once("://") {
            Some((scheme, _)) if scheme != "file" => remote.list(uri).await?,
            _ => local(uri.clone()).await?,
        };
        if found.is_empty() {
            let hint = format!("; no file matches (folders are searched for *.{}, not below)", ENDINGS.join(", *."));
            return Err(Error::NotFound { uri: uri.clone(), hint });
        }
        files.extend(found);
    }
    Ok(files)
}

/// What there is without the cargo feature `cloud`.
#[cfg(not(feature = "cloud"))]
struct Remote;

#[cfg(not(feature = "cloud"))]
impl Remote {
    fn new(_: &Access) -> Self {
        Self
    }

    async fn list(&mut self, uri: &str) -> Result<Vec<Location>> {
        let reason = "it needs a build with the cargo feature `cloud`; or copy the files to a local folder".to_owned();
        Err(Error::UnsupportedSource { uri: uri.to_owned(), reason })
    }
}

/// The uri as it holds from any working directory.
pub(super) fn absolute(uri: &str) -> String {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    if path.contains("://") {
        return path.to_owned();
    }
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

async fn local(uri: String) -> Result<Vec<Location>> {
    let locate = move || expand(&uri)?.into_iter().map(Location::file).collect();
    tokio::task::spawn_blocking(locate).await.map_err(|e| Error::TaskDied { task: "source", message: e.to_string() })?
}

fn expand(uri: &str) -> Result<Vec<PathBuf>> {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    if Path::new(path).is_dir() {
        let mut files = matching(uri, &format!("{}/*", glob::Pattern::escape(path)))?;
        files.retain(|file| file.extension().is_some_and(|e| ENDINGS.iter().any(|ending| e == *ending)));
        return Ok(files);
    }
    if Path::new(path).exists() {
        return Ok(vec![path.into()]);
    }
    if path.contains(['*', '?', '[']) {
        return matching(uri, path);
    }
    Err(Error::NotFound { uri: uri.to_owned(), hint: nearby(Path::new(path)) })
}

fn matching(uri: &str, pattern: &str) -> Result<Vec<PathBuf>> {
    let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
    let paths = glob::glob(pattern).map_err(|e| unsupported(format!("not a shell pattern: {e}")))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|e| unsupported(e.to_string()))?;
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What to try instead of a path that is not there.
fn nearby(path: &Path) -> String {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return format!("; the folder `{}` does not exist either", parent.display());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let nearest = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .map(|other| (strsim::damerau_levenshtein(&name, &other), other))
        .filter(|(distance, other)| *distance <= 1 + other.len() / 3)
        .min();
    match nearest {
        Some((_, other)) => format!("; did you mean `{}`?", parent.join(other).display()),
        None => "; check the path".to_owned(),
    }
}

/// What files of a folder are called that are data.
pub(super) const ENDINGS: [&str; 5] = ["parquet", "arrow", "arrows", "feather", "ipc"];
