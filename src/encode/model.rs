//! An ONNX model, opened: as many sessions as there are threads, its declared inputs, and the output in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use super::inputs::{Declared, Input};
use super::provider::open_sessions;
use crate::config::{EncodeConfig, Provider};
use crate::error::{Cause, Error, Result};

/// A model's sessions, each on one thread: on a CPU, small batches side by side beat one session on all threads.
pub(super) struct Model {
    pub path: PathBuf,
    pub inputs: Vec<Declared>,
    pub outputs: Vec<String>,
    /// What it runs on.
    pub provider: Provider,
    sessions: Vec<Mutex<Session>>,
    /// Of the file, when it was opened.
    version: Version,
}

/// Size and time of the last change.
type Version = (u64, Option<SystemTime>);

/// The models that some encoders have open, for the others to share.
#[derive(Clone, Default)]
pub(super) struct Models(Arc<Mutex<Vec<Weak<Model>>>>);

impl Models {
    /// The model at `path`, opened by now or before. Blocks for as long as it takes to load.
    pub fn open(&self, path: &Path, config: &EncodeConfig) -> Result<Arc<Model>> {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model| model.strong_count() > 0);
        let version = version(path)?;
        let open = models.iter().filter_map(Weak::upgrade).find(|m| m.path == path && m.version == version);
        if let Some(model) = open {
            return Ok(model);
        }
        let model = Arc::new(Model::open(path, config, version)?);
        models.push(Arc::downgrade(&model));
        Ok(model)
    }
}

impl Model {
    fn open(path: &Path, config: &EncodeConfig, version: Version) -> Result<Self> {
        let (sessions, provider) = open_sessions(path, config)?;
        let first = &sessions[0];
        let inputs = first.inputs().iter().map(|i| Declared::new(i.name(), i.dtype())).collect();
        let outputs = first.outputs().iter().map(|o| o.name().to_owned()).collect();
        let sessions = sessions.into_iter().map(Mutex::new).collect();
        Ok(Self { path: path.to_owned(), inputs, outputs, provider, sessions, version })
    }

    /// Whether the file has changed since.
    pub fn is_outdated(&self) -> Result<bool> {
        Ok(version(&self.path)? != self.version)
    }

    /// Copies of the model.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Runs the model on `inputs`, those of them that it declares, and gives shape and numbers of `output` to `take`.
    pub fn run<T>(
        &self,
        inputs: Vec<Input>,
        output: &str,
        take: impl FnOnce(&[i64], &[f32]) -> Result<T>,
    ) -> Result<T> {
        let failed = |e: ort::Error| {
            let cause: Cause = e.message().to_owned().into();
            match is_out_of_memory(e.message()) {
                true => Error::ModelMemory { path: self.path.clone(), cause },
                false => self.fault("cannot be run".into(), Some(cause)),
            }
        };
        let mut values = Vec::with_capacity(self.inputs.len());
        for input in inputs {
            if let Some(declared) = self.inputs.iter().find(|declared| declared.name == input.name) {
                let value = declared.value(input).map_err(|reason| self.fault(reason, None))?.map_err(failed)?;
                values.push((declared.name.as_str(), value));
            }
        }
        let worker = rayon::current_thread_index().unwrap_or(0) % self.sessions.len();
        let mut session = self.sessions[worker].lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(values).map_err(failed)?;
        let output = &outputs[output];
        if let ValueType::Tensor { ty: TensorElementType::Float16, .. } = output.dtype() {
            let (shape, states) = output.try_extract_tensor::<half::f16>().map_err(failed)?;
            return take(shape, &states.iter().map(|x| x.to_f32()).collect::<Vec<_>>());
        }
        let (shape, states) = output.try_extract_tensor::<f32>().map_err(failed)?;
        take(shape, states)
    }

    pub fn fault(&self, reason: String, cause: Option<Cause>) -> Error {
        fault(&self.path, reason, cause)
    }
}

/// By what ONNX Runtime's arena and CUDA say; there is no code for it.
fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    ["failed to allocate memory", "out of memory", "available memory of", "cudaerrormemoryallocation"]
        .iter()
        .any(|sign| message.contains(sign))
}

fn fault(path: &Path, reason: String, cause: Option<Cause>) -> Error {
    Error::Model { path: path.to_owned(), reason, cause }
}

fn version(path: &Path) -> Result<Version> {
    let about = path.metadata().map_err(|cause| Error::Io { action: "look at", path: path.into(), cause })?;
    Ok((about.len(), about.modified().ok()))
}
