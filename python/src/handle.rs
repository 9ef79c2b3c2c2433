use std::sync::Arc;
use std::time::Duration;

use prosampler::SampleId;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime;

use crate::pending::Pending;
use crate::run::{Answer, Handle};
use crate::state;
use crate::stream::refuse_forks;

/// Reaches into a run: refreshes at will, and vectors from the trainer. All waits are in turns.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct RefreshHandle {
    handle: Arc<dyn Handle>,
    runtime: runtime::Handle,
    process: u32,
}

impl RefreshHandle {
    pub fn new(handle: Arc<dyn Handle>, runtime: runtime::Handle) -> Self {
        Self { handle, runtime, process: std::process::id() }
    }

    fn begin<T: Send + 'static>(&self, py: Python<'_>, answer: Answer<T>) -> PyResult<Pending<T>> {
        refuse_forks(py, self.process)?;
        Ok(Pending::begin(&self.runtime, answer))
    }
}

#[pymethods]
impl RefreshHandle {
    /// Starts a refresh, once the one that may be under way has ended.
    fn refresh(&self, py: Python<'_>) -> PyResult<Refresh> {
        Ok(Refresh(self.begin(py, self.handle.refresh())?))
    }

    /// Vectors [ids × dimension], row-major, for these samples.
    fn push_embeddings(&self, py: Python<'_>, ids: Vec<u32>, vectors: PyBuffer<f32>) -> PyResult<()> {
        let vectors = vectors.to_vec(py)?;
        let ids: Vec<_> = ids.into_iter().map(SampleId).collect();
        self.begin(py, self.handle.push_embeddings(ids, vectors))?.wait(py)
    }

    /// A loss for each of these samples.
    fn push_losses(&self, py: Python<'_>, ids: Vec<u32>, losses: PyBuffer<f32>) -> PyResult<()> {
        let losses = losses.to_vec(py)?;
        let ids: Vec<_> = ids.into_iter().map(SampleId).collect();
        self.begin(py, self.handle.push_losses(ids, losses))?.wait(py)
    }

    /// Keeps what a state stands on, on disk, until two newer ones are kept.
    fn keep(&self, py: Python<'_>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        self.begin(py, self.handle.keep(state::read(state)?))?.wait(py)
    }

    /// Whether there is a folder to keep states in.
    #[getter]
    fn has_checkpoints(&self) -> bool {
        self.handle.has_checkpoints()
    }

    /// The newest graph, the model that made its embeddings, and how refreshes have ended so far.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<(Option<u64>, Option<u64>, Bound<'py, PyDict>)> {
        let status = self.begin(py, self.handle.status())?.wait(py)?;
        let counts = PyDict::new(py);
        counts.set_item("published", status.refreshes.published)?;
        counts.set_item("skipped", status.refreshes.skipped)?;
        counts.set_item("failed", status.refreshes.failed)?;
        counts.set_item("cancelled", status.refreshes.cancelled)?;
        Ok((status.graph_version, status.model_version, counts))
    }

    #[getter]
    fn dimension(&self) -> usize {
        self.handle.dimension()
    }

    /// The neighbors of a sample, most similar first, by the newest graph.
    fn neighbors(&self, py: Python<'_>, sample: u32) -> PyResult<Vec<(u32, f32)>> {
        let found = self.begin(py, self.handle.neighbors(SampleId(sample)))?.wait(py)?;
        Ok(found.into_iter().map(|(id, similarity)| (id.0, similarity)).collect())
    }

    /// How similar the two sides of a sample are, if rows are pairs.
    fn pair_similarity(&self, py: Python<'_>, sample: u32) -> PyResult<Option<f32>> {
        self.begin(py, self.handle.pair_similarity(SampleId(sample)))?.wait(py)
    }
}

/// A refresh under way.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct Refresh(Pending<Refreshed>);

#[pymethods]
impl Refresh {
    /// Waits for so many seconds at most; what the refresh did, once it has ended.
    fn poll(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<Refreshed>> {
        self.0.poll(py, Duration::from_secs_f64(seconds))
    }
}

/// What a refresh did.
#[pyclass(frozen, get_all, module = "prosampler")]
pub struct Refreshed {
    /// Which graph is in use now.
    pub graph_version: u64,
    /// Which model made the embeddings.
    pub model_version: u64,
    /// Whether there was nothing to do: the graph in use is the one before.
    pub skipped: bool,
    /// Where there was a newer model: by how much its vectors have turned, 1 − cosine on average.
    pub drift: Option<f64>,
    /// Samples that have come.
    pub added: usize,
    /// Samples whose vector was pushed.
    pub pushed: usize,
    /// How long it took.
    pub seconds: f64,
}

#[pymethods]
impl Refreshed {
    fn __repr__(&self) -> String {
        let Self { graph_version, model_version, skipped, pushed, seconds, .. } = self;
        match skipped {
            true => format!("Refreshed(skipped, graph version {graph_version}, model version {model_version})"),
            false => format!(
                "Refreshed(graph version {graph_version}, model version {model_version}, {pushed} pushed, \
                 {seconds:.1} s)"
            ),
        }
    }
}
