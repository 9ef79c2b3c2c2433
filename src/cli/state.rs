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
        state.map(Some).map_err(|cause| self.failed("read a run's state in", cause.into()))
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
