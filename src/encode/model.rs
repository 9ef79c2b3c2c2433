//! An ONNX model, opened: as many sessions as there are threads, its declared inputs, and the output in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};
use rayon::prelude::*;

use super::inputs::{Declared, Input};
use super::runtime::Runtime;
use crate::config::EncodeConfig;
use crate::error::{Cause, Error, Result};

/// A model's sessions, each on one thread: on a CPU, small batches side by side beat one session on all threads.
pub(super) struct Model {
    pub path: PathBuf,
    pub inputs: Vec<Declared>,
    pub outputs: Vec<String>,
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
        let runtime = Runtime::load(config.runtime.as_deref())?;
        let first = open_session(&runtime, path)?;
        let inputs = first.inputs().iter().map(|i| Declared::new(i.name(), i.dtype())).collect();
        let outputs = first.outputs().iter().map(|o| o.name().to_owned()).collect();
        let count = match config.sessions {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        let more = (1..count).into_par_iter().map(|_| open_session(&runtime, path)).collect::<Result<Vec<_>>>()?;
        let sessions = std::iter::once(first).chain(more).map(Mutex::new).collect();
        Ok(Self { path: path.to_owned(), inputs, outputs, sessions, version })
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
        let failed = |e: ort::Error| self.fault("cannot be run".into(), Some(e.message().to_owned().into()));
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

fn open_session(runtime: &Runtime, path: &Path) -> Result<Session> {
    let open = || {
        Session::builder(runtime.environment())?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Every batch has another shape, so remembered layouts would only pile up.
            .with_memory_pattern(false)?
            .commit_from_file(path)
    };
    open().map_err(|e: ort::Error| {
        let reason = "cannot be opened as an ONNX model; export it again, and see whether its opset is one that this \
                      ONNX Runtime knows";
        fault(path, reason.into(), Some(e.message().to_owned().into()))
    })
}

fn fault(path: &Path, reason: String, cause: Option<Cause>) -> Error {
    Error::Model { path: path.to_owned(), reason, cause }
}

fn version(path: &Path) -> Result<Version> {
    let about = path.metadata().map_err(|cause| Error::Io { action: "look at", path: path.into(), cause })?;
    Ok((about.len(), about.modified().ok()))
}
