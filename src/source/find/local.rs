//! Lists the files of this machine that a uri names.

use std::path::{Path, PathBuf};

use super::folder::{CACHE, Found, data_files, is_cache_of_hf, is_dataset_of_hf, manifest, sort_out};
use super::pattern::Component;
#[cfg(feature = "cli")]
use super::uri::is_local;
use super::uri::{Local, nearby};
use crate::error::{Error, Result};
use crate::source::location::Location;

/// Lists the files that a local uri names, on a blocking thread.
pub(super) async fn list(uri: String) -> Result<Found<Location>> {
    let locate = move || {
        let Found { files, foreign } = expand(&uri)?;
        Ok(Found { files: files.into_iter().map(Location::file).collect::<Result<_>>()?, foreign })
    };
    tokio::task::spawn_blocking(locate).await.map_err(|e| Error::of_task("source", e))?
}

/// Lists the paths that a local uri names: itself, the data files of a folder, or what matches a pattern.
fn expand(uri: &str) -> Result<Found<PathBuf>> {
    let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
    let local = Local::parse(uri).map_err(unsupported)?;
    // The name of a file may itself contain wildcards or backslashes.
    for path in [local.path.clone(), local.unescaped()] {
        if path.is_dir() {
            return folder(&path);
        }
        if path.is_file() {
            return Ok(Found::files(vec![path]));
        }
        if path.exists() {
            let reason = "it is neither a file nor a folder (a pipe, say), and rows are read from several places at \
                          once; write them to a file";
            return Err(unsupported(reason.to_owned()));
        }
    }
    let (folder, parts) = local.split();
    if parts.is_empty() {
        return Err(Error::NotFound { uri: uri.to_owned(), hint: Some(nearby(&local.path)) });
    }
    let components = parts.into_iter().map(Component::new).collect::<Result<Vec<_>, _>>().map_err(unsupported)?;
    let mut walk = PatternWalk::default();
    walk.below(&folder, &components)?;
    let mut files = walk.files;
    if !components.last().is_some_and(|last| last.begins_with(CACHE)) {
        files.retain(|file| !is_cached(file));
    }
    files.sort();
    files.dedup();
    Ok(Found::files(files))
}

/// Lists the data files of a folder.
fn folder(folder: &Path) -> Result<Found<PathBuf>> {
    let entries = entries(folder)?;
    let names = entries.iter().map(|(name, _)| name.as_str());
    if let Some(manifest) = manifest(names) {
        let path = folder.join(manifest);
        let text = std::fs::read(&path).map_err(|cause| Error::Io { action: "read", path, cause })?;
        if let Some(names) = data_files(&folder.display().to_string(), manifest, &text)? {
            let files: Vec<_> = names.into_iter().map(|name| folder.join(name)).collect();
            if let Some(missing) = files.iter().find(|file| !file.is_file()) {
                let hint = Some(format!("`{}` names it: copy it there, too", folder.join(manifest).display()));
                return Err(Error::NotFound { uri: missing.display().to_string(), hint });
            }
            return Ok(Found::files(files));
        }
    }
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, path)| path.is_dir());
    let (files, mut foreign) = sort_out(files);
    let (_, folders) = sort_out(folders.into_iter().map(|(name, _)| (format!("{name}/"), ())).collect());
    foreign.extend(folders);
    Ok(Found { files, foreign })
}

/// Collects the files that match a pattern.
#[derive(Default)]
struct PatternWalk {
    files: Vec<PathBuf>,
    /// The folders that `**` has passed on its way here: one that is met again is a circle of links.
    above: Vec<PathBuf>,
}

impl PatternWalk {
    /// Collects the files below `folder` that match these components.
    fn below(&mut self, folder: &Path, components: &[Component]) -> Result<()> {
        let Some((first, rest)) = components.split_first() else { return Ok(()) };
        match first {
            Component::Name(name) => self.matched(folder.join(name), rest),
            Component::Wild { .. } => {
                let mut admitted = entries(folder)?.into_iter().filter(|(name, _)| first.admits(name));
                admitted.try_for_each(|(_, path)| self.matched(path, rest))
            }
            Component::Folders => {
                let real = or_here(folder).canonicalize().unwrap_or_else(|_| folder.to_owned());
                if self.above.contains(&real) {
                    return Ok(());
                }
                self.above.push(real);
                self.below(folder, rest)?;
                let mut folders =
                    entries(folder)?.into_iter().filter(|(name, path)| first.admits(name) && path.is_dir());
                folders.try_for_each(|(_, path)| self.below(&path, components))?;
                self.above.pop();
                Ok(())
            }
        }
    }

    /// Goes on with a path that matches all components before `rest`.
    fn matched(&mut self, path: PathBuf, rest: &[Component]) -> Result<()> {
        match rest {
            [] if path.is_file() => self.files.push(path),
            [_, ..] if path.is_dir() => self.below(&path, rest)?,
            _ => {}
        }
        Ok(())
    }
}

/// Lists the entries of a folder: their names as texts, and their paths.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let list = || -> std::io::Result<_> {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry?.file_name();
            Ok((name.to_string_lossy().into_owned(), folder.join(name)))
        };
        std::fs::read_dir(or_here(folder))?.map(entry).collect()
    };
    list().map_err(|cause| Error::Io { action: "list", path: or_here(folder).into(), cause })
}

/// Returns the folder, or the working directory if its path is empty.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether a file is a cache that Hugging Face's datasets keeps beside its data.
fn is_cached(file: &Path) -> bool {
    let is_cache = file.file_name().is_some_and(|name| is_cache_of_hf(&name.to_string_lossy()));
    is_cache && {
        let beside = file.parent().map(entries);
        beside.is_some_and(|entries| entries.is_ok_and(|e| e.iter().any(|(name, _)| is_dataset_of_hf(name))))
    }
}

/// Lists the files that those of `uris` name that are local.
///
/// # Errors
/// [`Error::NotFound`] and [`Error::UnsupportedSource`].
#[cfg(feature = "cli")]
pub(crate) fn local_files(uris: &[String]) -> Result<Vec<PathBuf>> {
    let found = uris.iter().filter(|uri| is_local(uri)).map(|uri| Ok(expand(uri)?.files));
    Ok(found.collect::<Result<Vec<_>>>()?.concat())
}
