use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch as Rows};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Schema};
use prosampler::{EmbeddingTable, SampleId};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::errors::exception;
use crate::interchange::reader;
use crate::pending::Pending;
use crate::record_batch::RecordBatch;
use crate::source::PythonSource;
use crate::stream::{read_settings, refuse_forks, runtime};

/// Embeds tables with the settings of a run, without a run.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct RawEmbedder {
    embedder: Arc<prosampler::Embedder>,
    /// Taken when it is dropped.
    runtime: Mutex<Option<Runtime>>,
    process: u32,
}

#[pymethods]
impl RawEmbedder {
    #[new]
    #[pyo3(signature = (path, settings, runtime))]
    fn new(py: Python<'_>, path: Option<PathBuf>, settings: Vec<String>, runtime: Option<PathBuf>) -> PyResult<Self> {
        let mut config = read_settings(path, settings, true).map_err(|e| exception(py, &e))?;
        config.encode.runtime = config.encode.runtime.or(runtime);
        let embedder = Arc::new(prosampler::Embedder::new(config).map_err(|e| exception(py, &e))?);
        let runtime = Mutex::new(Some(self::runtime(py)?));
        Ok(Self { embedder, runtime, process: std::process::id() })
    }

    /// The vectors of a table's rows, `embedding` [rows × d], null where a row was skipped; for pairs also
    /// `pair_similarity`.
    fn embed(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
        refuse_forks(py, self.process)?;
        let rows = PythonSource::from(reader(data)?);
        let embedder = self.embedder.clone();
        let work = async move { embedder.embed(rows).await };
        let pending = {
            let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
            let runtime = runtime.as_ref().ok_or_else(|| PyValueError::new_err("this embedder has ended"))?;
            Pending::begin(runtime.handle(), work)
        };
        let table = pending.wait(py)?;
        columns(&table).map(RecordBatch).map_err(|e| PyValueError::new_err(e.to_string()))
    }

    /// How many rows' vectors were read from the cache so far.
    #[getter]
    fn reused(&self) -> u64 {
        self.embedder.reused()
    }
}

impl Drop for RawEmbedder {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // Threads that still embed have nobody to wait for them.
        runtime.into_iter().for_each(Runtime::shutdown_background);
    }
}

/// The vectors, and how similar the halves of pairs are.
fn columns(table: &EmbeddingTable) -> Result<Rows, arrow::error::ArrowError> {
    let ids = || (0..table.len()).map(SampleId::new);
    let present: NullBuffer = ids().map(|id| !table.is_skipped(id)).collect();
    let mut numbers = Vec::with_capacity(table.len() * table.dimension());
    ids().for_each(|id| numbers.extend_from_slice(&table.get(id)));
    let width = table.dimension() as i32;
    let item = Arc::new(Field::new_list_field(arrow::datatypes::DataType::Float32, false));
    let vectors = FixedSizeListArray::try_new(item, width, Arc::new(Float32Array::from(numbers)), Some(present))?;
    let mut columns = vec![("embedding", Arc::new(vectors) as ArrayRef)];
    let pairs: Float32Array = ids().map(|id| table.pair_similarity(id).filter(|_| !table.is_skipped(id))).collect();
    if ids().any(|id| table.pair_similarity(id).is_some()) {
        columns.push(("pair_similarity", Arc::new(pairs)));
    }
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Rows::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect())
}

/// The shard of each value of a column, as `[shard]` divides them.
#[pyfunction]
pub fn shards_of(py: Python<'_>, data: &Bound<'_, PyAny>, by: &str, count: usize, seed: u64) -> PyResult<Vec<usize>> {
    let mut shards = Vec::new();
    for batch in reader(data)? {
        let batch = batch.map_err(|e| PyValueError::new_err(e.to_string()))?;
        let found = prosampler::source::shards_of(batch.column(0), by, count, seed);
        shards.extend(found.map_err(|e| exception(py, &e))?);
    }
    Ok(shards)
}
