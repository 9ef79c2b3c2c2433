//! Decides which files of a folder are data.

use serde::Deserialize;

use super::pattern::is_hidden;
use crate::error::{Error, Result, quoted};

/// What a uri names.
#[derive(Debug)]
pub(super) struct Found<T> {
    /// The data files, in order.
    pub files: Vec<T>,
    /// The names of the other entries of a folder.
    pub foreign: Vec<String>,
}

impl<T> Found<T> {
    /// Finds data files only.
    pub fn files(files: Vec<T>) -> Self {
        Self { files, foreign: Vec::new() }
    }
}

/// The endings of data files in a folder.
pub(super) const ENDINGS: [&str; 5] = ["parquet", "arrow", "arrows", "feather", "ipc"];

/// Splits a folder's entries into data, in order, and the names of the others. Leaves out hidden ones.
pub(super) fn sort_out<T>(mut entries: Vec<(String, T)>) -> (Vec<T>, Vec<String>) {
    entries.retain(|(name, _)| !is_hidden(name));
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let cached = entries.iter().any(|(name, _)| is_dataset_of_hf(name));
    let mut data = Vec::new();
    let mut foreign = Vec::new();
    for (name, entry) in entries {
        if is_data(&name) && !(cached && is_cache_of_hf(&name)) {
            data.push(entry);
        } else {
            foreign.push(name);
        }
    }
    (data, foreign)
}

/// Whether a name has the ending of data files, in upper or lower case.
fn is_data(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| ENDINGS.iter().any(|ending| end.eq_ignore_ascii_case(ending)))
}

/// Whether a file of this name is a cache of Hugging Face's datasets.
///
/// It holds results of `map` and the like: other rows than the data set's, or the same ones again.
pub(super) fn is_cache_of_hf(name: &str) -> bool {
    name.starts_with(CACHE) && name.ends_with(".arrow")
}

/// Whether a file of this name shows that the folder is one of Hugging Face's datasets.
pub(super) fn is_dataset_of_hf(name: &str) -> bool {
    name == INFO || name == STATE
}

/// Finds the file that names a folder's data files, if there is one.
pub(super) fn manifest<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    [SPLITS, STATE].into_iter().find(|manifest| names.clone().any(|name| name == *manifest))
}

/// Reads the names of the data files, in order, from the manifest of the folder `uri`.
///
/// The result is `None` if the manifest was written by another program.
///
/// # Errors
/// [`Error::UnsupportedSource`] for a folder of several splits, and if an index chooses among the rows;
/// [`Error::Corrupt`] for a manifest that cannot be read.
pub(super) fn data_files(uri: &str, manifest: &str, text: &[u8]) -> Result<Option<Vec<String>>> {
    let uri = uri.trim_end_matches('/');
    let corrupt = |cause: serde_json::Error| Error::Corrupt {
        uri: format!("{uri}/{manifest}"),
        place: None,
        expected: "what Hugging Face's datasets writes beside its files",
        cause: cause.into(),
    };
    let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
    if manifest == SPLITS {
        let Splits { splits } = serde_json::from_slice(text).map_err(corrupt)?;
        let first = splits.first().map(|first| format!("; name one, such as `{uri}/{first}`, or several in a list"));
        let found = quoted(&splits);
        let reason = format!("it is a DatasetDict with the splits {found}{}", first.unwrap_or_default());
        return Err(unsupported(reason));
    }
    let SavedState { data_files, indices } = serde_json::from_slice(text).map_err(corrupt)?;
    let Some(data_files) = data_files else { return Ok(None) };
    if indices.is_some_and(|indices| !indices.is_empty()) {
        let reason = "its rows are chosen by an index beside the data; call flatten_indices() before save_to_disk()";
        return Err(unsupported(reason.to_owned()));
    }
    Ok(Some(data_files.into_iter().map(|file| file.filename).collect()))
}

/// `state.json` of a folder that `save_to_disk` wrote.
#[derive(Deserialize)]
struct SavedState {
    #[serde(rename = "_data_files")]
    data_files: Option<Vec<NamedFile>>,
    /// Written by versions before 2.
    #[serde(rename = "_indices_data_files")]
    indices: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
struct NamedFile {
    filename: String,
}

/// `dataset_dict.json`, beside a folder for each split.
#[derive(Deserialize)]
struct Splits {
    splits: Vec<String>,
}

const STATE: &str = "state.json";
const INFO: &str = "dataset_info.json";
const SPLITS: &str = "dataset_dict.json";

/// The start of the names of cache files.
pub(super) const CACHE: &str = "cache-";
