//! "Here are rows, give me vectors."
//!
//! An [`Encoder`] turns record batches into embeddings; [`encode_all`] runs one over a whole [`Store`] and checks what
//! comes back. `OnnxEncoder` runs text columns through ONNX Runtime, [`ColumnEncoder`] reads vectors that are in the
//! data already, [`PairEncoder`] joins two of them for rows that are pairs, and anything else that makes vectors is an `Encoder` of your own (see
//! `examples/custom_encoder.rs`).

#[cfg(feature = "onnx")]
mod batching;
mod column;
#[cfg(feature = "onnx")]
mod features;
#[cfg(feature = "onnx")]
mod onnx;
mod pairs;
#[cfg(feature = "onnx")]
pub mod runtime;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;

pub use self::column::ColumnEncoder;
#[cfg(feature = "onnx")]
pub use self::onnx::OnnxEncoder;
pub use self::pairs::PairEncoder;
use crate::config::{Similarity, Storage};
use crate::error::{Error, Result};
use crate::sample::{ModelVersion, SampleId};
use crate::source::positions;
use crate::store::{EmbeddingTable, Store};
use crate::telemetry;

/// Something that makes one vector of every row.
pub trait Encoder: Send + Sync + 'static {
    /// What to call it in messages.
    fn name(&self) -> &str;

    /// The columns it reads. [`encode_all`] refuses nulls in them, naming the sample.
    fn columns(&self) -> &[String];

    /// d: numbers in a vector; 1 to 65,536, and always the same.
    fn dimension(&self) -> usize;

    /// Refuses rows that it cannot read, before any are read: missing columns, wrong types. By default only the former.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] or [`Error::ColumnType`], as a rule.
    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        positions(uri, schema, self.columns()).map(drop)
    }

    /// The file that a newer model would be in, for the run to watch; `None`, the default, where there is none.
    fn model_file(&self) -> Option<&Path> {
        None
    }

    /// An encoder of the model that has come since this one was opened, tried and ready; `None`, the default, where
    /// none has. Called by each refresh, in the compute pool; it may block.
    ///
    /// # Errors
    /// Where one has come and cannot be used: the refresh then fails, and this encoder stays.
    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        Ok(None)
    }

    /// Writes the vectors of `rows` to `vectors` [rows × dimension], row-major, all zeros before. `rows` holds
    /// [`columns`](Self::columns) in that order, at most 8,192 rows. Runs inside the compute pool, one call at a time:
    /// parallel iterators of rayon use the pool, and blocking is fine. Vectors need not have unit length; they must be
    /// finite.
    ///
    /// # Errors
    /// Its own, best as [`Error::Encode`].
    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()>;

    /// [`encode`](Self::encode), and for rows that are an anchor and its positive how similar the two are, a number a
    /// row; `None`, the default, where rows are no pairs.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_pairs(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Option<Vec<f32>>> {
        self.encode(rows, vectors).map(|()| None)
    }
}

/// Embeds all samples of `store`. `progress` hears how many are done. Blocks, for minutes where the model is large:
/// run it in a [`ComputePool`](crate::ComputePool). Takes the memory of the table, and little beyond.
///
/// # Errors
/// [`Error::MissingColumn`]; [`Error::NullValue`], [`Error::NotFinite`] and [`Error::BadLength`] with the sample; the
/// encoder's own.
pub fn encode_all(
    encoder: &dyn Encoder,
    store: &Store,
    storage: Storage,
    similarity: Similarity,
    model_version: ModelVersion,
    progress: &mut dyn FnMut(usize),
) -> Result<EmbeddingTable> {
    let _span = telemetry::encode(encoder.name(), store.len(), model_version).entered();
    let dimension = encoder.dimension();
    let mut table = EmbeddingTable::with_capacity(store.len(), dimension, storage, similarity, model_version)?;
    encode_rest(encoder, store, &mut table, progress)?;
    Ok(table)
}

/// Embeds those samples of `store` that `table` does not have yet: the last ones.
///
/// # Errors
/// As [`encode_all`].
pub(crate) fn encode_rest(
    encoder: &dyn Encoder,
    store: &Store,
    table: &mut EmbeddingTable,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    let store = store.select(encoder.columns())?;
    let mut vectors = Vec::new();
    for (first, rows) in store.record_batches() {
        let known = table.len().saturating_sub(first.index());
        if known >= rows.num_rows() {
            continue;
        }
        let (first, rows) = (SampleId::new(first.index() + known), &rows.slice(known, rows.num_rows() - known));
        refuse_nulls(first, rows)?;
        vectors.clear();
        vectors.resize(rows.num_rows() * encoder.dimension(), 0f32);
        let pairs = encoder.encode_pairs(rows, &mut vectors)?;
        table.push(&mut vectors)?;
        table.push_pair_similarities(&pairs.unwrap_or_default());
        progress(first.index() + rows.num_rows());
    }
    Ok(())
}

fn refuse_nulls(first: SampleId, rows: &RecordBatch) -> Result<()> {
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let Some(row) = (0..column.len()).find(|&row| column.is_null(row)) else { continue };
        return Err(Error::NullValue {
            column: field.name().clone(),
            sample: SampleId::new(first.index() + row),
            count: column.null_count(),
            rows: rows.num_rows(),
        });
    }
    Ok(())
}

impl<E: Encoder + ?Sized> Encoder for Arc<E> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn columns(&self) -> &[String] {
        (**self).columns()
    }

    fn dimension(&self) -> usize {
        (**self).dimension()
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        (**self).accepts(uri, schema)
    }

    fn model_file(&self) -> Option<&Path> {
        (**self).model_file()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        (**self).newer()
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        (**self).encode(rows, vectors)
    }

    fn encode_pairs(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Option<Vec<f32>>> {
        (**self).encode_pairs(rows, vectors)
    }
}
