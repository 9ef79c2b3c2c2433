//! Settings that are paths, and what they are relative to.

use std::path::{Path, PathBuf};

use super::PipelineConfig;

impl PipelineConfig {
    /// All settings that are paths, each with its key.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = (String, &mut PathBuf)> {
        let (encode, store, checkpoint) = (&mut self.encode, &mut self.store, &mut self.checkpoint);
        let single = [
            ("encode.model", &mut encode.model),
            ("encode.tokenizer", &mut encode.tokenizer),
            ("encode.runtime", &mut encode.runtime),
            ("encode.cache_dir", &mut encode.cache_dir),
            ("store.cache_dir", &mut store.cache_dir),
            ("checkpoint.dir", &mut checkpoint.dir),
        ];
        let single = single.into_iter().map(|(key, path)| (key.to_owned(), path));
        let views = encode.views.iter_mut().enumerate().flat_map(|(place, view)| {
            let key = |name: &str| format!("encode.views[{place}].{name}");
            [(key("model"), &mut view.model), (key("tokenizer"), &mut view.tokenizer)]
        });
        let cuda = encode.cuda.iter_mut().map(|c| ("encode.cuda.tensorrt_cache".to_owned(), &mut c.tensorrt_cache));
        let guide = self.guards.guide.iter_mut().flat_map(|guide| {
            [("model", &mut guide.model), ("tokenizer", &mut guide.tokenizer)]
                .map(|(name, path)| (format!("guards.guide.{name}"), path))
        });
        single.chain(views).chain(cuda).chain(guide).filter_map(|(key, path)| Some((key, path.as_mut()?)))
    }

    /// Replaces `~` by the home folder, if that is known.
    pub(super) fn expand_home(&mut self) {
        let Some(home) = std::env::home_dir().filter(|home| !home.as_os_str().is_empty()) else { return };
        for (_, path) in self.paths() {
            if let Ok(rest) = path.strip_prefix("~") {
                *path = home.join(rest);
            }
        }
    }

    /// Takes the paths among these settings, and relative uris, as relative to the folder `base`.
    pub(super) fn make_relative_to(&mut self, base: &Path, is_meant: impl Fn(&str) -> bool) {
        for (key, path) in self.paths() {
            if is_meant(&key) && !path.starts_with("~") {
                *path = base.join(&*path);
            }
        }
        let own = self.source.uri.iter_mut().filter(|_| is_meant("source.uri"));
        let named = self.sources.iter_mut().flat_map(|source| &mut source.uri).filter(|_| is_meant("sources"));
        let corpus = self.pairs.corpus.iter_mut().filter(|_| is_meant("pairs.corpus"));
        for uri in own.chain(named).chain(corpus) {
            let is_home = uri == "~" || uri.starts_with("~/");
            let is_absolute = uri.contains("://") || uri.to_ascii_lowercase().starts_with("file:/");
            if !is_home && !is_absolute && uri != "-" {
                *uri = joined(base, uri);
            }
        }
    }
}

/// A uri relative to a folder. If the folder's name is not UTF-8, it is encoded.
fn joined(base: &Path, uri: &str) -> String {
    let path = base.join(uri);
    if let Some(path) = path.to_str() {
        return path.to_owned();
    }
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let mut text = String::from("file://");
    for byte in base.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{text}/{}", uri.replace('%', "%25"))
}
