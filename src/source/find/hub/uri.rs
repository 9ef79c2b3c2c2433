use std::path::PathBuf;

use super::settings::{Settings, is_offline};
use crate::source::find::access::Access;

/// What a uri `hf://datasets/OWNER/NAME@REVISION/PATH` names.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) struct HubUri {
    /// `OWNER/NAME`
    pub name: String,
    /// A branch, a tag or a commit; `main` if none is named.
    pub revision: String,
    /// The uri of the data set, without a path.
    pub root: String,
    /// May be a pattern.
    pub path: String,
}

impl HubUri {
    /// Parses a uri; `None` if it is none of the hub. The error is the reason why it names no data set.
    pub fn parse(uri: &str) -> Option<Result<Self, String>> {
        let rest = uri.strip_prefix("hf://")?;
        Some(Self::parse_rest(rest).ok_or_else(|| {
            "it names no data set; write hf://datasets/OWNER/NAME/PATH, or hf://datasets/OWNER/NAME@REVISION/PATH"
                .to_owned()
        }))
    }

    fn parse_rest(rest: &str) -> Option<Self> {
        let (owner, rest) = rest.strip_prefix("datasets/")?.split_once('/')?;
        let (name, mut path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = name.split_once('@').map_or((name, None), |(name, revision)| (name, Some(revision)));
        let mut revision = revision.unwrap_or("main").replace("%2F", "/");
        if revision == "refs" {
            // Revisions such as refs/convert/parquet have slashes of their own.
            let end = path.match_indices('/').nth(1).map_or(path.len(), |(place, _)| place);
            revision = format!("refs/{}", &path[..end]);
            path = path[end..].trim_start_matches('/');
        }
        let is_name = |text: &str| !text.is_empty() && !text.contains(['*', '?', '[', ' ']);
        if !is_name(owner) || !is_name(name) || !is_name(&revision) {
            return None;
        }
        let name = format!("{owner}/{name}");
        let root = match revision.as_str() {
            "main" => format!("hf://datasets/{name}"),
            revision => format!("hf://datasets/{name}@{revision}"),
        };
        Some(Self { name, revision, root, path: path.to_owned() })
    }

    /// The folder of the hub's cache with this data set, `None` unless the environment says to stay off the network.
    ///
    /// The error is the reason why the cache does not have it.
    pub fn offline(&self, access: &Access) -> Option<Result<PathBuf, String>> {
        if !is_offline() {
            return None;
        }
        let find = || {
            let folder = Settings::of(access)?.folder(&self.name);
            let commit = std::fs::read_to_string(folder.join("refs").join(&self.revision));
            let commit = commit.unwrap_or_else(|_| self.revision.clone());
            let snapshot = folder.join("snapshots").join(commit.trim());
            snapshot.is_dir().then_some(snapshot).ok_or_else(|| {
                let Self { name, revision, .. } = self;
                format!(
                    "HF_HUB_OFFLINE is set, and {} has no revision {revision} of it; fetch it first, with `hf download \
                     --repo-type dataset {name} --revision {revision}`",
                    folder.display()
                )
            })
        };
        Some(find())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_data_set_a_revision_and_a_path() {
        for (uri, name, revision, path) in [
            ("hf://datasets/a/b", "a/b", "main", ""),
            ("hf://datasets/a/b/", "a/b", "main", ""),
            ("hf://datasets/a/b/c/*.parquet", "a/b", "main", "c/*.parquet"),
            ("hf://datasets/a/b@v1.0/c.parquet", "a/b", "v1.0", "c.parquet"),
            ("hf://datasets/a/b@refs%2Fpr%2F7/c", "a/b", "refs/pr/7", "c"),
            ("hf://datasets/a/b@refs/convert/parquet/default/train", "a/b", "refs/convert/parquet", "default/train"),
            ("hf://datasets/a/b@refs/pr/7", "a/b", "refs/pr/7", ""),
        ] {
            let parsed = HubUri::parse(uri).unwrap().unwrap();
            assert_eq!((&*parsed.name, &*parsed.revision, &*parsed.path), (name, revision, path), "{uri}");
            let root = parsed.root;
            assert_eq!(HubUri::parse(&root).unwrap().unwrap().revision, revision, "{root}");
        }
        for uri in ["hf://a/b/c", "hf://datasets/a", "hf://datasets//b", "hf://datasets/a/*", "hf://datasets/a/b@/c"] {
            assert!(HubUri::parse(uri).unwrap().unwrap_err().contains("hf://datasets/OWNER/NAME"), "{uri}");
        }
        assert!(HubUri::parse("s3://a/b").is_none());
    }
}
