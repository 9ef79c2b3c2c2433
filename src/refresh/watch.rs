//! Whether a model's files have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::encode::external_data::named_files;
use crate::encode::{Encoder, FileState};
use crate::telemetry;

/// Tells when a model has changed and is complete, as far as the state of its files shows.
///
/// A model that is still being written would be refused when it is opened. So a change counts only after no file has
/// changed for a while and none is missing.
///
/// The model's files and its external data are polled, since the system reports no changes of link targets, renamed
/// folders and network file systems. If it does report a change, the files are looked at at once.
#[derive(Debug)]
pub(crate) struct ModelWatch {
    /// The models' own files. A newer model may keep its external data elsewhere.
    models: Arc<[PathBuf]>,
    /// The files when the encoder was opened, or at the last change that was reported.
    known: Vec<Files>,
    /// Hints of the system that something has changed.
    hints: mpsc::UnboundedReceiver<()>,
    /// `None` if the system gives no hints.
    watcher: Option<RecommendedWatcher>,
    next_look: Instant,
    /// A change that is not over yet.
    changing: Option<Change>,
    /// Whether a warning about a missing file was logged.
    has_warned: bool,
}

/// The files as they were last seen, and since when.
#[derive(Debug)]
struct Change {
    files: Vec<Files>,
    since: Instant,
}

/// A model and its external data, with their states; `None` for a file that is missing.
type Files = Vec<(PathBuf, Option<FileState>)>;

impl ModelWatch {
    /// Watches the model of an encoder that was just opened; `None` if it has no files.
    pub async fn open(encoder: &dyn Encoder) -> Option<Self> {
        let files = encoder.model_files();
        if files.is_empty() { None } else { Some(Self::new(&files).await) }
    }

    async fn new(files: &[&Path]) -> Self {
        let files: Vec<_> = files.iter().map(|file| std::path::absolute(file).unwrap_or(file.into())).collect();
        let models = tokio::task::spawn_blocking(|| without_external_data(files)).await.unwrap_or_default();
        let mut watch = Self {
            models: models.into(),
            known: Vec::new(),
            hints: mpsc::unbounded_channel().1,
            watcher: None,
            next_look: Instant::now() + POLL_INTERVAL,
            changing: None,
            has_warned: false,
        };
        watch.known = watch.look().await;
        watch.listen();
        watch
    }

    /// Waits until the next change is over. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        loop {
            self.wait().await;
            let now = self.look().await;
            if now == self.known {
                self.changing = None;
                continue;
            }
            let since = match self.changing.take() {
                Some(Change { files, since }) if files == now => since,
                _ => Instant::now(),
            };
            let missing = now.iter().flatten().find(|(_, state)| state.is_none());
            if since.elapsed() < SETTLE_TIME {
                self.next_look = since + SETTLE_TIME;
            } else if let Some((file, _)) = missing {
                if !self.has_warned {
                    telemetry::model_incomplete(file);
                    self.has_warned = true;
                }
            } else {
                self.known = now;
                self.has_warned = false;
                self.listen();
                return;
            }
            self.changing = Some(Change { files: now, since });
        }
    }

    /// Waits until it is time to look, or until a hint. During a change hints are ignored, since there are too many.
    async fn wait(&mut self) {
        let time = tokio::time::sleep_until(self.next_look);
        if self.changing.is_some() {
            return time.await;
        }
        tokio::select! {
            Some(()) = self.hints.recv() => {}
            () = time => {}
        }
    }

    async fn look(&mut self) -> Vec<Files> {
        while self.hints.try_recv().is_ok() {}
        let models = self.models.clone();
        let known = self.known.clone();
        let looked = tokio::task::spawn_blocking(move || look(&models, &known)).await;
        self.next_look = Instant::now() + POLL_INTERVAL;
        match looked {
            Ok(files) => files,
            // The runtime is shutting down.
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks the system for hints. They are about folders, which may have been replaced, so this is asked again after
    /// each change.
    fn listen(&mut self) {
        let (tx, hints) = mpsc::unbounded_channel();
        let paths = |(path, state): &(PathBuf, Option<FileState>)| {
            [Some(path.clone()), state.as_ref().map(|state| state.resolved().to_owned())]
        };
        let files: Vec<_> = self.known.iter().flatten().flat_map(paths).flatten().collect();
        let mut folders: Vec<_> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
        folders.sort_unstable();
        folders.dedup();
        let hint = move |event: notify::Result<notify::Event>| {
            let is_watched = |path: &PathBuf| files.iter().any(|file| file.file_name() == path.file_name());
            // An error may hide a change.
            if event.map_or(true, |event| !event.kind.is_access() && event.paths.iter().any(is_watched)) {
                // The receiver of an earlier watcher is gone; nothing to report to.
                let _ = tx.send(());
            }
        };
        let listen = || {
            let mut watcher = notify::recommended_watcher(hint)?;
            folders.iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
            Ok(watcher)
        };
        self.watcher =
            listen().inspect_err(|reason: &notify::Error| telemetry::watch_failed(reason, POLL_INTERVAL)).ok();
        self.hints = hints;
    }
}

/// The files that are not external data of another one. Blocks.
fn without_external_data(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let external: Vec<_> = files.iter().flat_map(|file| external_data(file)).collect();
    files.into_iter().filter(|file| !external.contains(file)).collect()
}

fn external_data(model: &Path) -> Vec<PathBuf> {
    named_files(model).map_or_else(|_| Vec::new(), |files| files.into_iter().skip(1).collect())
}

/// The files of these models as they are now. Blocks.
///
/// A model is read for the names of its external data only if it has changed since `known`.
fn look(models: &[PathBuf], known: &[Files]) -> Vec<Files> {
    let with_state = |path: PathBuf| {
        let state = FileState::of(&path).ok();
        (path, state)
    };
    let files = |model: &PathBuf| {
        let model = with_state(model.clone());
        let external = match known.iter().find(|known| known[0] == model) {
            Some(known) => known[1..].iter().map(|(path, _)| path.clone()).collect(),
            None => external_data(&model.0),
        };
        std::iter::once(model).chain(external.into_iter().map(with_state)).collect()
    };
    models.iter().map(files).collect()
}

/// How often files are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long no file may change before a change is over.
const SETTLE_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    const MODEL: &[u8] = include_bytes!("../../tests/data/external/scaled.onnx");
    const RENAMED: &[u8] = include_bytes!("../../tests/data/external/renamed.onnx");

    /// A folder with a model and its external data; all that differs between two of them is `weights`.
    fn model(weights: &str) -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("scaled.onnx"), MODEL).unwrap();
        fs::write(dir.path().join("scaled.onnx_data"), weights).unwrap();
        dir
    }

    async fn watch(model: &Path) -> ModelWatch {
        ModelWatch::new(&[model, &model.with_file_name("scaled.onnx_data")]).await
    }

    /// Whether it reports a change, and no more than one. The time is paused: it passes while no task has work.
    async fn changes(watch: &mut ModelWatch) -> bool {
        let changed = timeout(Duration::from_secs(60), watch.changed()).await.is_ok();
        assert!(timeout(Duration::from_secs(60), watch.changed()).await.is_err(), "it reports it twice");
        changed
    }

    #[tokio::test(start_paused = true)]
    async fn external_data_are_watched() {
        let dir = model("12 bytes, 1.");
        let mut watch = watch(&dir.path().join("scaled.onnx")).await;
        assert!(!changes(&mut watch).await);
        let data = dir.path().join("scaled.onnx_data");
        let time = fs::metadata(&data).unwrap().modified().unwrap();
        // Another file of the same size and time.
        fs::write(dir.path().join("incoming"), "12 bytes, 2.").unwrap();
        fs::File::options().write(true).open(dir.path().join("incoming")).unwrap().set_modified(time).unwrap();
        fs::rename(dir.path().join("incoming"), &data).unwrap();
        assert!(changes(&mut watch).await);
        fs::write(&data, "in place, and longer").unwrap();
        assert!(changes(&mut watch).await);
    }

    /// A model may be a link to the newest one, such as `latest.onnx`.
    #[tokio::test(start_paused = true)]
    async fn a_link_that_leads_elsewhere_is_a_change() {
        let (one, two, dir) = (model("12 bytes, 1."), model("12 bytes, 2."), TempDir::new().unwrap());
        let latest = dir.path().join("latest.onnx");
        symlink(one.path().join("scaled.onnx"), &latest).unwrap();
        fs::write(dir.path().join("scaled.onnx_data"), "beside the link").unwrap();
        let mut watch = ModelWatch::new(&[&latest]).await;
        symlink(two.path().join("scaled.onnx"), dir.path().join("next")).unwrap();
        fs::rename(dir.path().join("next"), &latest).unwrap();
        assert!(changes(&mut watch).await);
        // The target, not the link.
        fs::write(two.path().join("scaled.onnx"), [MODEL, b"\x10\x01"].concat()).unwrap();
        assert!(changes(&mut watch).await);
    }

    /// Kubernetes mounts volumes like this: all files are links through `..data`, itself a link to the newest folder.
    #[tokio::test(start_paused = true)]
    async fn a_switched_link_of_the_folder_is_a_change() {
        let (one, two, dir) = (model("12 bytes, 1."), model("12 bytes, 2."), TempDir::new().unwrap());
        symlink(one.path(), dir.path().join("..data")).unwrap();
        for name in ["scaled.onnx", "scaled.onnx_data"] {
            symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
        }
        let mut watch = watch(&dir.path().join("scaled.onnx")).await;
        assert!(!changes(&mut watch).await);
        symlink(two.path(), dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert!(changes(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_in_anothers_place_is_a_change() {
        let dir = TempDir::new().unwrap();
        let current = dir.path().join("current");
        fs::rename(model("12 bytes, 1.").keep(), &current).unwrap();
        let mut watch = watch(&current.join("scaled.onnx")).await;
        fs::rename(&current, dir.path().join("old")).unwrap();
        assert!(!changes(&mut watch).await, "it was reported while the folder is missing");
        fs::rename(model("12 bytes, 2.").keep(), &current).unwrap();
        assert!(changes(&mut watch).await);
        fs::rename(&current, dir.path().join("newer")).unwrap();
        fs::rename(dir.path().join("newer"), &current).unwrap();
        assert!(!changes(&mut watch).await, "it is the same as before");
    }

    /// A newer model may keep its weights elsewhere, and that file may come last.
    #[tokio::test(start_paused = true)]
    async fn a_model_is_whole_once_all_that_it_names_is_there() {
        let dir = model("12 bytes, 1.");
        let file = dir.path().join("scaled.onnx");
        let mut watch = watch(&file).await;
        fs::write(&file, RENAMED).unwrap();
        fs::remove_file(dir.path().join("scaled.onnx_data")).unwrap();
        assert!(!changes(&mut watch).await, "its external data are not there");
        fs::write(dir.path().join("renamed.onnx_data"), "12 bytes, 2.").unwrap();
        assert!(changes(&mut watch).await);
        fs::write(dir.path().join("renamed.onnx_data"), "12 bytes, 3., and more").unwrap();
        assert!(changes(&mut watch).await);
    }

    /// The system may give no hints.
    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_without_the_systems_help() {
        let dir = model("12 bytes, 1.");
        let mut watch = watch(&dir.path().join("scaled.onnx")).await;
        watch.watcher = None;
        watch.hints = mpsc::unbounded_channel().1;
        fs::write(dir.path().join("scaled.onnx_data"), "another size").unwrap();
        fs::write(dir.path().join("scaled.onnx"), [MODEL, b"\x10\x01"].concat()).unwrap();
        assert!(changes(&mut watch).await);

        // A folder that is not there cannot be listened to.
        let later = dir.path().join("later");
        let mut watch = ModelWatch::new(&[&later.join("scaled.onnx")]).await;
        assert!(watch.watcher.is_none());
        fs::rename(model("12 bytes, 2.").keep(), &later).unwrap();
        assert!(changes(&mut watch).await);
        assert!(watch.watcher.is_some(), "it is asked again");
    }

    /// A run whose steps trigger refreshes all the time waits anew each time, and must still see the change.
    #[tokio::test(start_paused = true)]
    async fn dropping_the_future_loses_no_change() {
        let dir = model("12 bytes, 1.");
        let mut watch = watch(&dir.path().join("scaled.onnx")).await;
        watch.watcher = None;
        watch.hints = mpsc::unbounded_channel().1;
        fs::write(dir.path().join("scaled.onnx_data"), "longer than that").unwrap();
        let mut rounds = 0;
        while timeout(Duration::from_millis(300), watch.changed()).await.is_err() {
            rounds += 1;
            assert!(rounds < 10, "its turn never comes");
        }
    }
}
