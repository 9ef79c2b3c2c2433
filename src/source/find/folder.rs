//! Which files of a folder are data.

use serde::Deserialize;

use super::pattern::is_hidden;
use crate::error::{Error, Result, quoted};

/// What a uri names.
#[derive(Debug)]
pub(super) struct Found<T> {
    /// Data, in order.
    pub files: Vec<T>,
    /// The names of what lies beside them in a folder and is no data.
    pub foreign: Vec<String>,
}

impl<T> Found<T> {
    pub fn files(files: Vec<T>) -> Self {
        Self { files, foreign: Vec::new() }
    }
}

/// What files of a folder are called that are data.
pub(super) const ENDINGS: [&str; 5] = ["parquet", "arrow", "arrows", "feather", "ipc"];

/// Those of a folder's entries that are data, in order, and the names of the others. Hidden ones are neither.
pub(super) fn sort_out<T>(mut entries: Vec<(String, T)>) -> (Vec<T>, Vec<String>) {
    entries.retain(|(name, _)| !is_hidden(name));
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let cached = entries.iter().any(|(name, _)| is_dataset_of_hf(name));
    let (mut data, mut foreign) = (Vec::new(), Vec::new());
    for (name, entry) in entries {
        match is_data(&name) && !(cached && is_cache_of_hf(&name)) {
            true => data.push(entry),
            false => foreign.push(name),
        }
    }
    (data, foreign)
}

/// Whether a name ends as those of data do, whatever the case.
pub(super) fn is_data(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| ENDINGS.iter().any(|ending| end.eq_ignore_ascii_case(ending)))
}

/// Whether a name is one of the files in which Hugging Face's datasets keeps what `map` and the like gave: other rows,
/// or the same once more.
pub(super) fn is_cache_of_hf(name: &str) -> bool {
    name.starts_with(CACHE) && name.ends_with(".arrow")
}

/// Whether a file of this name makes the folder one of Hugging Face's datasets.
pub(super) fn is_dataset_of_hf(name: &str) -> bool {
    name == INFO || name == STATE
}

/// The file that says what a folder's data are, if there is one.
pub(super) fn manifest<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    [SPLITS, STATE].into_iter().find(|manifest| names.clone().any(|name| name == *manifest))
}

/// What the manifest of the folder `uri` says: the names of the data files, in order; `None` where it is another
/// program's.
///
/// # Errors
/// [`Error::UnsupportedSource`] for a folder of several splits, and for rows that are chosen by an index;
/// [`Error::Corrupt`] for a manifest that cannot be read.
pub(super) fn data_files(uri: &str, manifest: &str, text: &[u8]) -> Result<Option<Vec<String>>> {
    let uri = uri.trim_end_matches('/');
    let corrupt = |cause: serde_json::Error| Error::Corrupt {
        uri: format!("{uri}/{manifest}"),
        place: String::new(),
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
    let State { data_files, indices } = serde_json::from_slice(text).map_err(corrupt)?;
    let Some(data_files) = data_files else { return Ok(None) };
    if indices.is_some_and(|indices| !indices.is_empty()) {
        let reason = "its rows are chosen by an index beside the data; call flatten_indices() before save_to_disk()";
        return Err(unsupported(reason.to_owned()));
    }
    Ok(Some(data_files.into_iter().map(|file| file.filename).collect()))
}

/// `state.json` of a folder that `save_to_disk` wrote.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    data_files: Option<Vec<DataFile>>,
    /// Until version 2.
    #[serde(rename = "_indices_data_files")]
    indices: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
struct DataFile {
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

/// What names of cache files begin with.
pub(super) const CACHE: &str = "cache-";
