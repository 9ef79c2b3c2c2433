use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};

use super::{RecordBatches, Source, positions};
use crate::error::{Error, Result};

/// Record batches that are in memory already.
#[derive(Clone, Debug)]
pub struct MemorySource {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl MemorySource {
    /// A source of these record batches, in this order.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] for none at all, [`Error::SchemaDrift`] where they do not all have the same columns.
    pub fn new(batches: Vec<RecordBatch>) -> Result<Self> {
        let Some(first) = batches.first() else {
            let reason = "record batch is needed; give some".to_owned();
            return Err(Error::TooFewSamples { uri: NAME.into(), filter: None, found: 0, needed: 1, reason });
        };
        let schema = first.schema();
        for batch in &batches {
            same_columns(NAME, &schema, &batch.schema())?;
        }
        Ok(Self { schema, batches })
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
        let positions = positions(NAME, &self.schema, columns)?;
        let project = move |batch: RecordBatch| {
            batch.project(&positions).map_err(|cause| Error::Arrow { action: "select columns", cause })
        };
        Ok(stream::iter(self.batches.clone()).map(project).boxed())
    }
}

/// Refuses a schema whose names or types differ from those before.
pub(super) fn same_columns(uri: &str, expected: &SchemaRef, found: &SchemaRef) -> Result<()> {
    let same = expected.fields().len() == found.fields().len()
        && expected
            .fields()
            .iter()
            .zip(found.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    let list = |schema: &SchemaRef| {
        let fields: Vec<_> = schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
        format!("({})", fields.join(", "))
    };
    if same {
        Ok(())
    } else {
        Err(Error::SchemaDrift { uri: uri.to_owned(), found: list(found), expected: list(expected) })
    }
}

const NAME: &str = "memory";
