use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, UInt32Array};
use arrow::datatypes::Field;
use prosampler::compute::ComputePool;
use prosampler::config::{Similarity, Storage};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::search_exact;
use prosampler::{ModelVersion, Result};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use crate::errors::{exception, raise};
use crate::record_batch::Column;

/// Vectors that are searched by cosine similarity, and the threads for it.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct Corpus {
    table: EmbeddingTable,
    pool: ComputePool,
    process: u32,
}

#[pymethods]
impl Corpus {
    /// Copies vectors [rows × dimension], scaled to unit length.
    #[new]
    fn new(py: Python<'_>, vectors: PyBuffer<f32>) -> PyResult<Self> {
        let table = table(py, &vectors)?;
        let pool = ComputePool::new(0).map_err(|error| exception(py, &error))?;
        Ok(Self { table, pool, process: std::process::id() })
    }

    /// The `k` nearest of each of these vectors: their rows [queries × k], and their cosines [queries × k].
    fn search(&self, py: Python<'_>, queries: PyBuffer<f32>, k: usize) -> PyResult<(Column, Column)> {
        if std::process::id() != self.process {
            let message = "this corpus was made before a fork, which has none of its threads; make it in this process";
            return Err(raise(py, "ForkError", message));
        }
        let queries = table(py, &queries)?;
        let found = py.detach(|| self.pool.install(|| search_exact(&queries, &self.table, k)));
        let found = found.map_err(|error| exception(py, &error))?;
        let ids = UInt32Array::from_iter_values(found.ids.iter().map(|id| id.0));
        let similarities = Float32Array::from(found.similarities);
        Ok((column("ids", found.k, Arc::new(ids)), column("similarities", found.k, Arc::new(similarities))))
    }

    /// How many threads search.
    #[getter]
    fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Numbers in a vector.
    #[getter]
    fn dimension(&self) -> usize {
        self.table.dimension()
    }

    fn __len__(&self) -> usize {
        self.table.len()
    }
}

/// Lists of `width` numbers.
fn column(name: &str, width: usize, numbers: ArrayRef) -> Column {
    let item = Arc::new(Field::new_list_field(numbers.data_type().clone(), false));
    let array = FixedSizeListArray::new(item, width.max(1) as i32, numbers, None);
    Column { field: Arc::new(Field::new(name, array.data_type().clone(), false)), array: Arc::new(array) }
}

/// The vectors of an array [rows × dimension], row-major.
fn table(py: Python<'_>, vectors: &PyBuffer<f32>) -> PyResult<EmbeddingTable> {
    let (&[rows, dimension], Some(numbers)) = (vectors.shape(), vectors.as_slice_ptr()) else {
        let message = format!("vectors have the shape {:?}; give [rows, dimension], row-major", vectors.shape());
        return Err(raise(py, "ArgumentError", &message));
    };
    let copied = || -> Result<EmbeddingTable> {
        let version = ModelVersion::default();
        let mut table = EmbeddingTable::with_capacity(rows, dimension, Storage::F32, Similarity::Cosine, version)?;
        let mut some = Vec::new();
        for first in (0..rows).step_by(ROWS_AT_ONCE) {
            some.resize(ROWS_AT_ONCE.min(rows - first) * dimension, 0.0);
            // SAFETY: these numbers are within the buffer, which `vectors` keeps. No Python code runs meanwhile.
            unsafe {
                numbers
                    .cast::<f32>()
                    .add(first * dimension)
                    .as_ptr()
                    .copy_to_nonoverlapping(some.as_mut_ptr(), some.len());
            }
            table.push(&mut some)?;
        }
        Ok(table)
    };
    copied().map_err(|error| exception(py, &error))
}

/// How many vectors are copied at a time.
const ROWS_AT_ONCE: usize = 1024;
