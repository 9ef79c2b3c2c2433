use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// Tells when a model's file has changed and is whole, as far as its size and time of change can tell: a model that is
/// still being written would be refused when it is opened.
#[derive(Debug)]
pub(super) struct ModelWatch {
    path: PathBuf,
    changes: mpsc::UnboundedReceiver<()>,
    /// A change was heard of, and is not known to be over.
    changing: bool,
    _watcher: RecommendedWatcher,
}

impl ModelWatch {
    pub fn new(path: &Path) -> Result<Self> {
        let failed = |e: notify::Error| Error::Io {
            action: "watch",
            path: path.into(),
            cause: match e.kind {
                notify::ErrorKind::Io(cause) => cause,
                other => std::io::Error::other(format!("{other:?}")),
            },
        };
        let path = std::path::absolute(path).map_err(|cause| Error::Io { action: "find", path: path.into(), cause })?;
        let (tx, changes) = mpsc::unbounded_channel();
        let name = path.file_name().map(ToOwned::to_owned);
        let told = move |event: notify::Result<notify::Event>| {
            // An error may hide a change.
            let concerns = event.map_or(true, |event| {
                !event.kind.is_access() && event.paths.iter().any(|path| path.file_name() == name.as_deref())
            });
            if concerns {
                // Nobody there to hear it: then nobody needs to.
                let _ = tx.send(());
            }
        };
        let mut watcher = notify::recommended_watcher(told).map_err(failed)?;
        // The folder: a file that is renamed to this name is another one.
        watcher.watch(path.parent().unwrap_or(&path), RecursiveMode::NonRecursive).map_err(failed)?;
        Ok(Self { path, changes, changing: false, _watcher: watcher })
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
            let before = version(&self.path);
            tokio::time::sleep(SETTLED).await;
            while self.changes.try_recv().is_ok() {}
            if before.is_some() && before == version(&self.path) {
                self.changing = false;
                return;
            }
        }
    }
}

fn version(path: &Path) -> Option<(u64, SystemTime)> {
    let about = path.metadata().ok()?;
    Some((about.len(), about.modified().ok()?))
}

/// How long a file must not change to be whole.
const SETTLED: Duration = Duration::from_millis(500);
