use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// Tells when a model's file has changed and is whole, as far as its size and time of change can tell: a model that is
/// still being written would be refused when it is opened.
#[derive(Debug)]
pub(super) struct ModelWatch {
    paths: Vec<PathBuf>,
    changes: mpsc::UnboundedReceiver<()>,
    /// A change was heard of, and is not known to be over.
    changing: bool,
    _watcher: RecommendedWatcher,
}

impl ModelWatch {
    pub fn new(paths: &[&Path]) -> Result<Self> {
        let failed = |path: &Path, e: notify::Error| Error::Io {
            action: "watch",
            path: path.into(),
            cause: match e.kind {
                notify::ErrorKind::Io(cause) => cause,
                other => std::io::Error::other(format!("{other:?}")),
            },
        };
        let absolute = |path: &&Path| {
            std::path::absolute(path).map_err(|cause| Error::Io { action: "find", path: path.into(), cause })
        };
        let paths = paths.iter().map(absolute).collect::<Result<Vec<_>>>()?;
        let (tx, changes) = mpsc::unbounded_channel();
        let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()).map(ToOwned::to_owned).collect();
        let told = move |event: notify::Result<notify::Event>| {
            let is_one = |path: &PathBuf| names.iter().any(|name| path.file_name() == Some(name));
            // An error may hide a change.
            let concerns = event.map_or(true, |event| !event.kind.is_access() && event.paths.iter().any(is_one));
            if concerns {
                // Nobody there to hear it: then nobody needs to.
                let _ = tx.send(());
            }
        };
        let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
        let mut watcher = notify::recommended_watcher(told).map_err(|e| failed(first, e))?;
        // The folders: a file that is renamed to this name is another one.
        let mut folders: Vec<_> = paths.iter().map(|path| path.parent().unwrap_or(path)).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(|e| failed(folder, e))?;
        }
        Ok(Self { paths, changes, changing: false, _watcher: watcher })
    }

    /// Waits for the next change to be over. Loses nothing where it is dropped meanwhile.
    pub async fn changed(&mut self) {
        if !self.changing {
            if self.changes.recv().await.is_none() {
                return std::future::pending().await;
            }
            self.changing = true;
        }
        loop {
            let before = versions(&self.paths);
            tokio::time::sleep(SETTLED).await;
            while self.changes.try_recv().is_ok() {}
            if before.is_some() && before == versions(&self.paths) {
                self.changing = false;
                return;
            }
        }
    }
}

/// Size and time of all; `None` where one is not there.
fn versions(paths: &[PathBuf]) -> Option<Vec<(u64, SystemTime)>> {
    let version = |path: &PathBuf| {
        let about = path.metadata().ok()?;
        Some((about.len(), about.modified().ok()?))
    };
    paths.iter().map(version).collect()
}

/// How long a file must not change to be whole.
const SETTLED: Duration = Duration::from_millis(500);
