use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use prosampler::{Error, SampleId, refresh};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;

use crate::errors::exception;
use crate::state;

/// Reaches into a running pipeline: refreshes at will, and vectors from the trainer.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct RefreshHandle {
    handle: refresh::RefreshHandle,
    runtime: Handle,
}

impl RefreshHandle {
    pub fn new(handle: refresh::RefreshHandle, runtime: Handle) -> Self {
        Self { handle, runtime }
    }
}

#[pymethods]
impl RefreshHandle {
    /// Starts a refresh, once the one that may be under way has ended.
    fn refresh(&self) -> Refresh {
        let (tx, answer) = channel();
        let handle = self.handle.clone();
        self.runtime.spawn(async move {
            // The receiver is gone; nothing to report to.
            let _ = tx.send(handle.refresh_now().await);
        });
        Refresh(Mutex::new(answer))
    }

    /// Vectors [ids × dimension], row-major, for these samples.
    fn push_embeddings(&self, py: Python<'_>, ids: Vec<u32>, vectors: PyBuffer<f32>) -> PyResult<()> {
        let vectors = vectors.to_vec(py)?;
        let ids: Vec<_> = ids.into_iter().map(SampleId).collect();
        py.detach(|| self.handle.push_embeddings(&ids, &vectors)).map_err(|e| exception(py, &e))
    }

    /// Keeps what a state stands on, on disk, until two newer ones are kept.
    fn keep(&self, py: Python<'_>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        let state = state::read(state)?;
        py.detach(|| self.runtime.block_on(self.handle.keep(&state))).map_err(|e| exception(py, &e))
    }

    /// Whether there is a folder to keep states in.
    #[getter]
    fn has_checkpoints(&self) -> bool {
        self.handle.has_checkpoints()
    }

    /// How refreshes have ended so far.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.handle.counts();
        let dict = PyDict::new(py);
        dict.set_item("published", counts.published)?;
        dict.set_item("skipped", counts.skipped)?;
        dict.set_item("failed", counts.failed)?;
        dict.set_item("cancelled", counts.cancelled)?;
        Ok(dict)
    }

    #[getter]
    fn graph_version(&self) -> Option<u64> {
        self.handle.snapshot().map(|snapshot| snapshot.graph_version().0)
    }

    #[getter]
    fn model_version(&self) -> Option<u64> {
        self.handle.snapshot().map(|snapshot| snapshot.model_version().0)
    }

    #[getter]
    fn dimension(&self) -> usize {
        self.handle.dimension()
    }

    /// The neighbors of a sample, most similar first, by the newest graph.
    fn neighbors(&self, py: Python<'_>, sample: u32) -> PyResult<Vec<(u32, f32)>> {
        let found = self.handle.neighbors(SampleId(sample)).map_err(|error| exception(py, &error))?;
        Ok(found.into_iter().map(|(id, similarity)| (id.0, similarity)).collect())
    }
}

/// A refresh under way.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct Refresh(Mutex<Receiver<prosampler::Result<refresh::Refreshed>>>);

#[pymethods]
impl Refresh {
    /// Waits for so many seconds at most; what the refresh did, once it has ended.
    fn poll(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<Refreshed>> {
        let waited = py.detach(|| {
            let answer = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            answer.recv_timeout(Duration::from_secs_f64(seconds))
        });
        match waited {
            Ok(Ok(refreshed)) => Ok(Some(Refreshed(refreshed))),
            Ok(Err(error)) => Err(exception(py, &error)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(exception(py, &Error::Cancelled)),
        }
    }
}

/// What a refresh did.
#[pyclass(frozen, module = "prosampler")]
pub struct Refreshed(refresh::Refreshed);

#[pymethods]
impl Refreshed {
    /// Which graph is in use now.
    #[getter]
    fn graph_version(&self) -> u64 {
        self.0.graph_version.0
    }

    /// Which model made the embeddings.
    #[getter]
    fn model_version(&self) -> u64 {
        self.0.model_version.0
    }

    /// Whether there was nothing to do: the graph in use is the one before.
    #[getter]
    fn skipped(&self) -> bool {
        self.0.skipped
    }

    /// Where there was a newer model: by how much its vectors have turned, 1 − cosine on average.
    #[getter]
    fn drift(&self) -> Option<f64> {
        self.0.drift.as_ref().map(|drift| drift.cosine_shift)
    }

    /// Samples that have come.
    #[getter]
    fn added(&self) -> usize {
        self.0.added
    }

    /// Samples whose vector was pushed.
    #[getter]
    fn pushed(&self) -> usize {
        self.0.pushed
    }

    /// How long it took.
    #[getter]
    fn seconds(&self) -> f64 {
        self.0.seconds.total()
    }

    fn __repr__(&self) -> String {
        let refresh::Refreshed { graph_version, model_version, skipped, pushed, seconds, .. } = &self.0;
        match skipped {
            true => format!("Refreshed(skipped, graph version {graph_version}, model version {model_version})"),
            false => format!(
                "Refreshed(graph version {graph_version}, model version {model_version}, {pushed} pushed, \
                 {:.1} s)",
                seconds.total()
            ),
        }
    }
}
