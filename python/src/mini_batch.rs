use std::collections::BTreeMap;
use std::sync::Arc;

use prosampler::MiniBatch as Made;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use crate::interchange::Capsules;
use crate::record_batch::{Column, RecordBatch, shape};

/// Samples that are hard to tell apart, with their rows.
///
/// It is a record batch of the rows for whatever reads Arrow (``pyarrow.record_batch(mini_batch)``), and
/// ``mini_batch.to_torch()`` gives the columns by name.
#[pyclass(frozen, module = "prosampler")]
pub struct MiniBatch(Made);

impl MiniBatch {
    pub fn new(made: Made) -> Self {
        Self(made)
    }

    fn batch(&self) -> RecordBatch {
        RecordBatch(self.0.rows.clone())
    }
}

#[pymethods]
impl MiniBatch {
    /// The samples, all distinct: positions in the source, from 0. With ranks, this rank's share.
    #[getter]
    fn ids(&self) -> Vec<u32> {
        self.0.ids.iter().map(|id| id.0).collect()
    }

    /// Their rows, in the same order. With ``walk.negatives`` = n, columns ``negative_1`` to ``negative_n`` follow: the
    /// positives of these samples where rows are pairs, and else their values of the encoder's column.
    #[getter]
    fn rows(&self) -> RecordBatch {
        self.batch()
    }

    /// Explicit hard negatives, a list of ``walk.negatives`` samples for each of ``ids``; ``None``, and null in their
    /// columns, where no sample may come. Empty without ``walk.negatives``.
    #[getter]
    fn negatives(&self) -> Vec<Vec<Option<u32>>> {
        let count = self.0.negatives.len() / self.0.ids.len().max(1);
        let of_one = |ids: &[Option<prosampler::SampleId>]| ids.iter().map(|id| id.map(|id| id.0)).collect();
        self.0.negatives.chunks_exact(count.max(1)).map(of_one).collect()
    }

    /// Which samples are no negatives: with ``[mask]``, a column of B(1 + n) truth values for each sample; else
    /// ``None``. ``torch.from_dlpack(mini_batch.mask)`` and ``numpy.from_dlpack`` make ``[samples, B(1 + n)]`` of it,
    /// and ``to_torch()`` has it as ``"mask"``.
    ///
    /// A column stands for a sample of the mini-batch, those of other ranks too, and after these for ``negative_1`` of
    /// each of them, and so on. True says that it is no negative: the own positive is false, a null is true.
    #[getter]
    fn mask(&self) -> Option<Column> {
        let last = self.0.rows.num_columns().checked_sub(1)?;
        let marks = Arc::new(self.0.mask()?.clone());
        Some(Column { field: self.0.rows.schema().fields()[last].clone(), array: marks })
    }

    /// How many samples are of each of the ``sources``, by name; empty if the rows have no column ``source``.
    #[getter]
    fn sources(&self) -> BTreeMap<&str, usize> {
        self.0.sources()
    }

    /// The epoch, from 0.
    #[getter]
    fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Mini-batches before this one, over all epochs.
    #[getter]
    fn step(&self) -> u64 {
        self.0.step
    }

    /// The model whose embeddings the graph stands on, from 1; ``None`` in a warm-up without a graph.
    #[getter]
    fn model_version(&self) -> Option<u64> {
        self.0.model_version.map(|version| version.0)
    }

    /// The graph that was walked, from 1; ``None`` in a warm-up without one.
    #[getter]
    fn graph_version(&self) -> Option<u64> {
        self.0.graph_version.map(|version| version.0)
    }

    /// Steps since the embeddings were made; ``None`` in a warm-up without a graph.
    #[getter]
    fn staleness(&self) -> Option<u64> {
        self.0.staleness
    }

    /// Mean similarity over all pairs of the mini-batch, those of other ranks too: how hard it is. ``None`` in a
    /// warm-up without a graph.
    #[getter]
    fn similarity(&self) -> Option<f32> {
        self.0.similarity
    }

    /// Whether it belongs to the warm-up, and was drawn uniformly.
    #[getter]
    fn is_warm_up(&self) -> bool {
        self.0.is_warm_up
    }

    /// A hash of the step, the ids over all ranks, and the graph: the same on all ranks that draw the same.
    #[getter]
    fn digest(&self) -> u64 {
        self.0.digest
    }

    /// What happened while it was filled: samples that guards ``refused`` (each guard counts one at most once), and
    /// places that were left empty for that, ``short``. Those of other ranks too.
    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        counts.set_item("refused", self.0.counts.refused())?;
        counts.set_item("short", self.0.counts.short)?;
        Ok(counts)
    }

    /// The columns' names, in order.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.0.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The columns by name, all or those that are asked for.
    ///
    /// Columns of numbers become tensors that share their memory, ``[rows]``, or ``[rows, width]`` for lists of equally
    /// many; texts and bytes become lists. Raises ``TypeError`` for what is neither.
    #[pyo3(signature = (columns=None))]
    fn to_torch<'py>(&self, py: Python<'py>, columns: Option<Vec<String>>) -> PyResult<Bound<'py, PyDict>> {
        self.batch().to_torch(py, columns)
    }

    fn __len__(&self) -> usize {
        self.0.ids.len()
    }

    fn __getitem__(&self, name: &str) -> PyResult<Column> {
        self.batch().__getitem__(name)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Capsules<'py>> {
        self.batch().__arrow_c_array__(py, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        self.batch().__arrow_c_schema__(py)
    }

    fn __repr__(&self) -> String {
        let Made { step, epoch, similarity, staleness, graph_version, .. } = &self.0;
        let rows = shape(&self.0.rows);
        match (similarity, graph_version, staleness) {
            (Some(similarity), Some(graph_version), Some(staleness)) => format!(
                "MiniBatch(step {step}, epoch {epoch}, similarity {similarity:.3}, graph version {graph_version}, \
                 staleness {staleness}, {rows})"
            ),
            _ => format!("MiniBatch(step {step}, epoch {epoch}, warm-up without a graph, {rows})"),
        }
    }
}
