//! Where the hub is, who asks, and where its own clients keep files: what they read of the environment, too.

use std::env::{home_dir, var, var_os};
use std::path::{Path, PathBuf};

use url::Url;

use crate::source::find::access::Access;

/// How the hub is reached. Options of the source come before the environment.
pub(super) struct Settings {
    pub endpoint: Url,
    pub token: Option<String>,
    cache: PathBuf,
}

impl Settings {
    /// The error is the reason why the hub cannot be reached.
    pub fn of(access: &Access) -> Result<Self, String> {
        if let Some(key) = access.options.keys().find(|key| !["endpoint", "token"].contains(&key.as_str())) {
            return Err(format!("`source.options` has `{key}`, and the hub knows `endpoint` and `token` alone"));
        }
        let option = |key: &str| access.options.get(key).cloned();
        let endpoint = option("endpoint").or_else(|| set("HF_ENDPOINT"));
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = Url::parse(&endpoint)
            .ok()
            .filter(Url::has_host)
            .ok_or_else(|| format!("the hub's endpoint is `{endpoint}`; give a url in HF_ENDPOINT, or leave it out"))?;
        let home = home();
        let token_file = var_os("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let from_file = || std::fs::read_to_string(token_file).ok();
        let token = option("token").or_else(|| set("HF_TOKEN")).or_else(from_file);
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let cache = var_os("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
        Ok(Self { endpoint, token, cache })
    }

    /// The folder of a data set in the cache of the hub's own clients.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.cache.join(format!("datasets--{}", name.replace('/', "--")))
    }
}

/// Whether the hub's own clients stay off the network.
pub(super) fn is_offline() -> bool {
    set("HF_HUB_OFFLINE").is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_ascii_lowercase()))
}

fn home() -> PathBuf {
    let in_cache = |cache: &Path| cache.join("huggingface");
    let of_system = || match var_os("XDG_CACHE_HOME") {
        Some(cache) => in_cache(cache.as_ref()),
        None => in_cache(&home_dir().unwrap_or_default().join(".cache")),
    };
    var_os("HF_HOME").map_or_else(of_system, PathBuf::from)
}

/// A variable that is set and not empty.
fn set(name: &str) -> Option<String> {
    var(name).ok().filter(|value| !value.is_empty())
}
