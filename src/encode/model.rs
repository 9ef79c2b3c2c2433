//! An open ONNX model: its sessions, and the inputs and outputs that it declares.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ort::session::Session;

use super::external_data::model_files;
use super::file_state::FileState;
use super::inputs::{Declared, Input};
use super::outputs;
use super::provider::{is_out_of_memory, open_sessions};
use super::transfer::Transfer;
use super::until_exit::UntilExit;
use crate::compute;
use crate::config::{EncodeConfig, Provider};
use crate::error::{Cause, Error, ModelError, Result};

/// An open model.
///
/// On a CPU it has a session for each thread, since small batches side by side are faster than one session on all
/// threads. On a GPU it has two: one runs while the other gets its next batch.
pub(super) struct Model {
    pub path: PathBuf,
    pub inputs: Vec<Declared>,
    pub outputs: Vec<Declared>,
    /// The execution provider that it runs on.
    pub provider: Provider,
    sessions: UntilExit<Vec<(Mutex<Session>, Transfer)>>,
    /// The number of GPUs; the first sessions are one on each.
    gpus: usize,
    /// The files of the model, the model itself first, in the state in which it was opened.
    files: Vec<(PathBuf, FileState)>,
}

/// The models that are open, which encoders share.
#[derive(Clone, Default)]
pub(super) struct Models(Arc<Mutex<Vec<Weak<Model>>>>);

impl Models {
    /// Returns the model at `path`, and opens it unless it is open already. Blocks while it is loaded.
    pub fn open(&self, path: &Path, config: &EncodeConfig) -> Result<Arc<Model>> {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model| model.strong_count() > 0);
        let files = files(path)?;
        let open = models.iter().filter_map(Weak::upgrade).find(|m| m.path == path && m.files == files);
        if let Some(model) = open {
            return Ok(model);
        }
        let model = Arc::new(Model::open(path, config, files)?);
        models.push(Arc::downgrade(&model));
        Ok(model)
    }
}

impl Model {
    fn open(path: &Path, config: &EncodeConfig, files: Vec<(PathBuf, FileState)>) -> Result<Self> {
        let (sessions, provider) = open_sessions(path, config)?;
        let first = &sessions[0].0;
        let inputs = first.inputs().iter().map(|i| Declared::new(i.name(), i.dtype())).collect();
        let outputs = first.outputs().iter().map(|o| Declared::new(o.name(), o.dtype())).collect();
        let gpus = sessions.iter().skip(1).take_while(|(_, gpu)| *gpu != sessions[0].1).count() + 1;
        let with_transfer = |(session, gpu)| {
            let transfer = Transfer::of(&session, provider, gpu)?;
            Ok((Mutex::new(session), transfer))
        };
        let sessions: ort::Result<Vec<_>> = sessions.into_iter().map(with_transfer).collect();
        let sessions =
            sessions.map_err(|e| fault(path, "cannot be run".into(), Some(e.message().to_owned().into())))?;
        let sessions = UntilExit::new(sessions, provider);
        Ok(Self { path: path.to_owned(), inputs, outputs, provider, sessions, gpus, files })
    }

    /// Lists the files of the model: the model itself, then its external data.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Whether one of its files has changed since it was opened.
    pub fn is_outdated(&self) -> Result<bool> {
        for (path, state) in &self.files {
            if state_of(path)? != *state {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the number of sessions, each of which holds a copy of the model.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Runs the model, and passes shape and numbers of `output` to `take`. Ignores inputs that it does not declare.
    pub fn run<T>(
        &self,
        inputs: Vec<Input>,
        output: &str,
        take: impl FnOnce(&[i64], &[f32]) -> Result<T>,
    ) -> Result<T> {
        let failed = |e: ort::Error| {
            let cause: Cause = e.message().to_owned().into();
            if is_out_of_memory(e.message()) {
                return Error::model_out_of_memory(&self.path, cause);
            }
            self.fault("cannot be run".into(), Some(cause))
        };
        // With a limited share of the GPU a session pauses between batches. A second session would run meanwhile.
        let one_each = self.provider != Provider::Cpu && compute::is_gpu_throttled();
        let count = if one_each { self.gpus } else { self.sessions.len() };
        let (session, transfer) = &self.sessions[rayon::current_thread_index().unwrap_or(0) % count];
        let mut values = Vec::with_capacity(self.inputs.len());
        for input in inputs {
            if let Some(declared) = self.inputs.iter().find(|declared| declared.is(&input.name)) {
                let value =
                    declared.value(input, transfer).map_err(|reason| self.fault(reason, None))?.map_err(failed)?;
                values.push((declared.name.as_str(), value));
            }
        }
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || transfer.run(&mut session, values, output);
        let output = if self.provider == Provider::Cpu { run() } else { compute::throttled(run) }.map_err(failed)?;
        // Other threads can use the session while this one converts the output.
        drop(session);
        let (shape, numbers) = outputs::numbers(&output).map_err(failed)?;
        take(&shape, &numbers)
    }

    /// Makes an error about this model.
    pub fn fault(&self, reason: String, cause: Option<Cause>) -> Error {
        fault(&self.path, reason, cause)
    }
}

fn fault(path: &Path, reason: String, cause: Option<Cause>) -> Error {
    ModelError::Unusable { path: path.to_owned(), reason, cause }.into()
}

/// Lists the files of the model at `path` with their present states.
fn files(path: &Path) -> Result<Vec<(PathBuf, FileState)>> {
    // The state is read before the names of external data, so that a change in between is noticed.
    let state = state_of(path)?;
    let mut files = vec![(path.to_owned(), state)];
    for file in model_files(path)?.into_iter().skip(1) {
        let state = state_of(&file)?;
        files.push((file, state));
    }
    Ok(files)
}

fn state_of(path: &Path) -> Result<FileState> {
    FileState::of(path).map_err(|cause| Error::Io { action: "look at", path: path.into(), cause })
}

/// Returns where the `tokenizer.json` of a model should be.
///
/// It is beside the model, or beside its folder if that is called `onnx`, as in the repositories of Hugging Face.
pub(crate) fn tokenizer_of(model: &Path) -> PathBuf {
    let beside = model.with_file_name("tokenizer.json");
    let folder = model.parent().filter(|folder| !beside.exists() && folder.ends_with("onnx"));
    let above = folder.map(|folder| folder.with_file_name("tokenizer.json"));
    above.filter(|above| above.exists()).unwrap_or(beside)
}

/// The names of the inputs that the model of these settings declares.
///
/// # Errors
/// Those of opening the model.
#[cfg(feature = "cli")]
pub(crate) fn declared_inputs(config: &EncodeConfig) -> Result<Vec<String>> {
    let path = config.model.as_deref().ok_or_else(|| Error::setting("encode.model", "is required; name a model"))?;
    let model = Models::default().open(path, config)?;
    Ok(model.inputs.iter().map(|input| input.base_name().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_beside_its_model_or_above_a_folder_onnx() {
        let dir = tempfile::TempDir::new().unwrap();
        let model = dir.path().join("onnx/model.onnx");
        std::fs::create_dir(dir.path().join("onnx")).unwrap();
        let (beside, above) = (dir.path().join("onnx/tokenizer.json"), dir.path().join("tokenizer.json"));
        assert_eq!(tokenizer_of(&model), beside);
        std::fs::write(&above, "").unwrap();
        assert_eq!(tokenizer_of(&model), above);
        assert_eq!(tokenizer_of(&dir.path().join("other/model.onnx")), dir.path().join("other/tokenizer.json"));
        std::fs::write(&beside, "").unwrap();
        assert_eq!(tokenizer_of(&model), beside);
    }
}
