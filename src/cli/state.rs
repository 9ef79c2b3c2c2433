//! The file in which `prosampler run --state` keeps where its run stands.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, MiniBatchStream, Result, State};

/// The file that keeps where a run stands. At any time it is the new one or the one before, never a part.
pub(super) struct StateFile {
    path: PathBuf,
    written: Instant,
}

impl StateFile {
    /// Refuses a place that cannot be written to, before a run that would end there.
    pub fn open(path: PathBuf) -> Result<Self> {
        let file = Self { path, written: Instant::now() };
        tempfile::NamedTempFile::new_in(file.folder()).map_err(|cause| file.failed("write", cause))?;
        Ok(file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Adds the file that a state is in to an error about the state.
    pub fn named(&self, error: Error) -> Error {
        match error {
            Error::State { reason } if self.path.exists() => {
                Error::State { reason: format!("{reason}; the state is in `{}`", self.path.display()) }
            }
            other => other,
        }
    }

    /// Reads the state of a run that has ended, if the file is there.
    pub fn read(&self) -> Result<Option<State>> {
        let text = match std::fs::read(&self.path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|cause| self.failed("read", cause))?,
        };
        let state = serde_json::from_slice(&text);
        state.map(Some).map_err(|cause| Error::State {
            reason: format!(
                "`{}` holds no state of a run: {cause}; give the file of an earlier run, or remove it to start anew",
                self.path.display()
            ),
        })
    }

    /// Saves where the stream stands, at most once a second.
    pub async fn follow(&mut self, stream: &MiniBatchStream) -> Result<()> {
        if self.written.elapsed() < SAVE_INTERVAL { Ok(()) } else { self.save(stream).await }
    }

    /// Saves where the stream stands.
    ///
    /// Trainers call `keep` first, then write their own checkpoint: see
    /// [`RefreshHandle::keep`](crate::refresh::RefreshHandle::keep). Here the file comes first, and is put back if
    /// `keep` fails. The command pushes no vectors, which are all that a state lacks that was not kept yet, and if it
    /// is killed between the two for the first time, the file is there to be resumed from.
    pub async fn save(&mut self, stream: &MiniBatchStream) -> Result<()> {
        let state = stream.state();
        let before = self.read().unwrap_or(None);
        self.write(&state)?;

        let kept = stream.handle().keep(&state).await;
        if kept.is_err() {
            match before {
                Some(before) => self.write(&before)?,
                None => std::fs::remove_file(&self.path).map_err(|cause| self.failed("remove", cause))?,
            }
        }
        kept
    }

    fn write(&mut self, state: &State) -> Result<()> {
        self.written = Instant::now();
        let write = || {
            let file = tempfile::NamedTempFile::new_in(self.folder())?;
            serde_json::to_writer_pretty(&file, state)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|cause| self.failed("write", cause))
    }

    fn failed(&self, action: &'static str, cause: std::io::Error) -> Error {
        Error::Io { action, path: self.path.clone(), cause }
    }
}

/// The least time between two saves while the run goes on.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch};
    use arrow::datatypes::Float32Type;
    use futures::TryStreamExt;
    use tempfile::TempDir;

    use super::*;
    use crate::Pipeline;
    use crate::config::{CheckpointConfig, GraphConfig, WalkConfig};
    use crate::encode::ColumnEncoder;
    use crate::source::MemorySource;

    /// A run over 100 samples with checkpoints in a folder.
    async fn start(checkpoints: &Path) -> MiniBatchStream {
        let vector = |i: i32| Some([Some((i as f32).sin()), Some((i as f32).cos())]);
        let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..100).map(vector), 2);
        let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)]).unwrap();
        Pipeline::builder()
            .encoder(ColumnEncoder::new(&rows.schema(), "vector").unwrap())
            .source(MemorySource::new(vec![rows]).unwrap())
            .graph(GraphConfig { candidates: 20.into(), neighbors: Some(5), ..GraphConfig::default() })
            .walk(WalkConfig { batch_size: 10, ..WalkConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(checkpoints.into()), ..CheckpointConfig::default() })
            .start()
            .await
            .unwrap()
    }

    /// The file must not have a state that the checkpoint folder does not keep.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_state_that_is_not_kept_leaves_the_file_as_it_was() {
        let dir = TempDir::new().unwrap();
        let checkpoints = dir.path().join("checkpoints");
        let mut stream = start(&checkpoints).await;
        let mut file = StateFile::open(dir.path().join("run.json")).unwrap();
        stream.try_next().await.unwrap();
        file.save(&stream).await.unwrap();
        let kept = fs::read(file.path()).unwrap();
        stream.try_next().await.unwrap();
        // Nothing can be kept in a folder that is gone.
        fs::remove_dir_all(&checkpoints).unwrap();
        file.save(&stream).await.unwrap_err();
        assert_eq!(String::from_utf8(fs::read(file.path()).unwrap()), String::from_utf8(kept));

        fs::remove_file(file.path()).unwrap();
        file.save(&stream).await.unwrap_err();
        assert!(!file.path().exists(), "there was no state before");
    }
}
