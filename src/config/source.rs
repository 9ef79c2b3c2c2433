use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::check::{Check, Checker};

/// `[source]`: where the rows come from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct SourceConfig {
    /// A Parquet file, an Arrow IPC file or stream, a folder of these (`*.parquet`, `*.arrow`, `*.arrows`, `*.feather`,
    /// `*.ipc`), a shell pattern, or a list of all that. Files are read in the order of the list, and by name within a
    /// folder or pattern; that order gives the sample ids. With the cargo feature `cloud` also `s3://`, `gs://`,
    /// `az://`, single files at `http(s)://`, and data sets of Hugging Face's hub,
    /// `hf://datasets/OWNER/NAME@REVISION/PATH`. Required.
    ///
    /// Names that begin with `.` or `_` are not data, in folders and for the wildcards of patterns (`**/_part*` means
    /// them). In a folder that Hugging Face's `save_to_disk` wrote, the files that its `state.json` names are read.
    /// `**` stands for folders at any depth, and a backslash before a wildcard makes it a plain character. A name under
    /// which something exists is not a pattern. `~` is the home folder; `file:///a%20b` is decoded.
    #[serde(deserialize_with = "one_or_many")]
    pub uri: Vec<String>,
    /// The columns that mini-batches carry, in this order. Default: all. The encoder's columns are read in any case.
    pub columns: Option<Vec<String>>,
    /// Only rows for which this holds are samples: comparisons of a column with a value, joined by `and`, such as
    /// `split = 'train' and length >= 16`; see [`FilteredSource`](crate::source::FilteredSource). Default: all rows.
    pub filter: Option<String>,
    /// What to do with damaged parts of files. Default `fail`.
    pub on_corrupt: OnCorrupt,
    /// Options of an object store, such as `region`, `endpoint` or `timeout`, named as the crate object_store names
    /// them; for the hub `endpoint` and `token`. They take precedence over the store's usual environment variables,
    /// where credentials are better kept.
    /// Default: none.
    #[serde(deserialize_with = "scalars")]
    pub options: BTreeMap<String, String>,
    /// How often a request to an object store is sent again if it fails for a passing reason, with growing random
    /// pauses; 0 to 100, default 10. In any case, it is sent for no longer than three minutes.
    pub retries: usize,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            uri: Vec::new(),
            columns: None,
            filter: None,
            on_corrupt: OnCorrupt::Fail,
            options: BTreeMap::new(),
            retries: 10,
        }
    }
}

/// What to do with a damaged part of a file: a row group of Parquet, an Arrow IPC file from its first damaged record
/// batch on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCorrupt {
    /// Stop with an error that names file, row group and column.
    #[default]
    Fail,
    /// Go on after it. What was skipped is logged and counted.
    Skip,
}

impl Check for SourceConfig {
    const SECTION: &'static str = "source";

    fn check(&self, check: &mut Checker<'_>) {
        let given = !self.uri.is_empty() && self.uri.iter().all(|u| !u.trim().is_empty());
        check.require(
            given,
            "uri",
            "is required; give a Parquet or Arrow IPC file, a folder, a pattern, or a list of these",
        );
        let mut columns = self.columns.clone().unwrap_or_default();
        columns.sort_unstable();
        let twice = columns.windows(2).any(|pair| pair[0] == pair[1]);
        check.require(!twice, "columns", "names a column twice; name each once");
        check.require(self.retries <= 100, "retries", "must be 0 to 100; 10 is plenty");
    }
}

pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(uri) => vec![uri],
        OneOrMany::Many(uris) => uris,
    })
}

/// Options are texts; numbers and truth values may be written as such.
fn scalars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, a number or a truth value")]
    enum Scalar {
        Text(String),
        Bool(bool),
        Number(i64),
    }
    let options = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
    let text = |value| match value {
        Scalar::Text(text) => text,
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(value) => value.to_string(),
    };
    Ok(options.into_iter().map(|(key, value)| (key, text(value))).collect())
}
