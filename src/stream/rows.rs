//! The rows that mini-batches carry.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::store::Store;

/// The columns that mini-batches carry.
#[derive(Clone, Debug)]
pub(crate) struct RowColumns {
    pub payload: Vec<String>,
    /// The column that explicit negatives are taken from, if there are any.
    pub negative: Option<String>,
}

/// The name of the column of the `number`-th explicit negative, from 1.
pub(crate) fn negative_column(number: usize) -> String {
    format!("negative_{number}")
}

/// A store's rows with the columns that mini-batches carry.
#[derive(Debug)]
pub(super) struct Rows {
    payload: Store,
    /// The one column that explicit negatives are taken from.
    negative: Option<Store>,
}

impl Rows {
    /// Copies nothing. O(record batches of the store).
    pub fn of(store: &Store, columns: &RowColumns) -> Result<Self> {
        let payload = store.select(&columns.payload)?;
        let negative = columns.negative.as_ref().map(|column| store.select(std::slice::from_ref(column)));
        Ok(Self { payload, negative: negative.transpose()? })
    }

    /// The columns of mini-batches with `negatives` explicit negatives of each sample.
    pub fn schema(&self, negatives: usize) -> SchemaRef {
        let mut fields = self.payload.schema().fields().to_vec();
        if let Some(negative) = &self.negative {
            let schema = negative.schema();
            let named = |number| schema.field(0).clone().with_name(negative_column(number)).with_nullable(true);
            fields.extend((1..=negatives).map(|number| Arc::new(named(number))));
        }
        Schema::new(fields).into()
    }

    /// The rows of the samples `ids`, and a column for each explicit negative, [ids × negatives].
    ///
    /// Blocks while pages come in from disk.
    pub fn gather(&self, ids: &[SampleId], negatives: &[Option<SampleId>]) -> Result<RecordBatch> {
        let rows = self.payload.gather(ids)?;
        let Some(store) = &self.negative else { return Ok(rows) };
        if ids.is_empty() || negatives.is_empty() {
            return Ok(rows);
        }

        let found: Vec<_> = negatives.iter().copied().flatten().collect();
        let values = store.gather(&found)?;
        let mut next_index = 0..;
        let indices: Vec<Option<u32>> = negatives.iter().map(|id| id.and_then(|_| next_index.next())).collect();

        let failed = |cause| Error::Arrow { action: "gather negatives", cause };
        let count = negatives.len() / ids.len();
        let mut columns = rows.columns().to_vec();
        for number in 0..count {
            let indices: UInt32Array = indices.iter().skip(number).step_by(count).copied().collect();
            columns.push(take(values.column(0), &indices, None).map_err(failed)?);
        }
        RecordBatch::try_new(self.schema(count), columns).map_err(failed)
    }
}
