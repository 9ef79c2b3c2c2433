//! "Here are uris, give me the files that they name, in a fixed order."

mod access;
mod folder;
#[cfg(feature = "cloud")]
mod hub;
mod local;
mod pattern;
#[cfg(feature = "cloud")]
mod remote;
mod uri;

use std::collections::HashSet;

pub(super) use self::access::Access;
use self::folder::ENDINGS;
#[cfg(not(feature = "cloud"))]
use self::folder::Found;
#[cfg(feature = "cli")]
pub(crate) use self::local::local_files;
#[cfg(feature = "cloud")]
use self::remote::Remote;
pub(super) use self::uri::absolute;
use self::uri::is_local;
use super::location::Location;
use crate::error::{Error, Result, quoted};
use crate::telemetry;

/// Lists the files that `uris` name, in their order.
///
/// Each uri names a file, a folder with files of one of the [`ENDINGS`], or files that match a shell pattern. `foreign`
/// is called with a folder and the names of what else is in it.
///
/// # Errors
/// [`Error::NotFound`] for a uri without files, [`Error::UnsupportedSource`], and errors of disk and network.
pub(super) async fn list(
    uris: &[String],
    access: &Access,
    mut foreign: impl FnMut(&str, &[String]),
) -> Result<Vec<Location>> {
    let mut remote = Remote::new(access);
    let mut files = Vec::new();
    for uri in uris {
        let found = if is_local(uri) { local::list(uri.clone()).await? } else { remote.list(uri).await? };
        if found.files.is_empty() {
            let endings = ENDINGS.join(", *.");
            let beside = match &found.foreign[..] {
                [] => String::new(),
                names => format!("; it has {}", some_of(names)),
            };
            let below = "not below: FOLDER/**/*.parquet is for that";
            let hint = Some(format!("no file matches (folders are searched for *.{endings}, {below}){beside}"));
            return Err(Error::NotFound { uri: uri.clone(), hint });
        }
        if !found.foreign.is_empty() {
            foreign(uri, &found.foreign);
        }
        files.extend(found.files);
    }
    let mut known = HashSet::new();
    if let Some(file) = files.iter().map(|file| file.source_file().uri).find(|uri| !known.insert(uri.clone())) {
        telemetry::file_twice(&file);
    }
    Ok(files)
}

/// Quotes the first of some names, and says how many more there are.
fn some_of(names: &[String]) -> String {
    let shown = quoted(&names[..names.len().min(MAX_SHOWN_NAMES)]);
    match names.len().saturating_sub(MAX_SHOWN_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Stands in for object stores without the cargo feature `cloud`: every uri of theirs is an error.
#[cfg(not(feature = "cloud"))]
struct Remote;

#[cfg(not(feature = "cloud"))]
impl Remote {
    fn new(_: &Access) -> Self {
        Self
    }

    async fn list(&mut self, uri: &str) -> Result<Found<Location>> {
        let reason = "it needs a build with the cargo feature `cloud`; or copy the files to a local folder".to_owned();
        Err(Error::UnsupportedSource { uri: uri.to_owned(), reason })
    }
}

/// The most names that a message shows.
const MAX_SHOWN_NAMES: usize = 3;
