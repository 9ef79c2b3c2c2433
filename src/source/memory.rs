use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};

use super::columns::{Adapter, unified};
use super::interface::{RecordBatches, Source, column_indices};
use crate::error::{Error, Result, TooFewError};

/// A source of record batches that are already in memory.
#[derive(Clone, Debug)]
pub struct MemorySource {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl MemorySource {
    /// Makes a source of these record batches, in this order. Their schemas may differ as those of the files of a
    /// [`FileSource`](super::FileSource) may.
    ///
    /// # Errors
    /// [`TooFewError::Samples`] if there are no record batches.
    pub fn new(batches: Vec<RecordBatch>) -> Result<Self> {
        if batches.is_empty() {
            let reason = "record batch is needed; give some".to_owned();
            return Err(TooFewError::Samples { uri: NAME.into(), filter: None, found: 0, needed: 1, reason }.into());
        }
        let schemas: Vec<_> = batches.iter().map(RecordBatch::schema).collect();
        Ok(Self { schema: unified(&schemas), batches })
    }
}

impl Source for MemorySource {
    fn uri(&self) -> &str {
        NAME
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<usize> {
        Some(self.batches.iter().map(RecordBatch::num_rows).sum())
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let failed = |cause| Error::Arrow { action: "select columns", cause };
        let declared = self.schema.project(&column_indices(NAME, &self.schema, columns)?).map_err(failed)?;
        let declared = SchemaRef::new(declared);
        let adapter = |(number, batch): (usize, &RecordBatch)| {
            let name = format!("{NAME}, record batch {number}");
            Ok((Adapter::new(&name, declared.clone(), &batch.schema())?, batch.clone()))
        };
        let batches = self.batches.iter().enumerate().map(adapter).collect::<Result<Vec<_>>>()?;
        let adapt = move |(adapter, batch): (Adapter, RecordBatch)| {
            adapter.adapt(&batch.project(&adapter.column_indices).map_err(failed)?)
        };
        Ok(stream::iter(batches).map(adapt).boxed())
    }
}

/// How messages call the source.
const NAME: &str = "memory";
