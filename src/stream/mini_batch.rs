use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Error, Result};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::walk::WalkCounts;

/// B samples that are hard to tell apart, with their rows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MiniBatch {
    /// The samples, all distinct: this rank's share of the mini-batch.
    pub ids: Vec<SampleId>,
    /// Their rows, in the same order; with `walk.negatives` = n followed by columns `negative_1` to `negative_n`: of
    /// the column of positives, where rows are pairs, and else of the first one that the encoder reads.
    pub rows: RecordBatch,
    /// Explicit hard negatives [ids × n], n at a time for each sample: near it in the graph, none of the mini-batch, and
    /// none that the guards keep apart from one of its samples. All differ where there are enough samples for that;
    /// `None`, and null in `rows`, where no sample may come. Empty without `walk.negatives`.
    pub negatives: Vec<Option<SampleId>>,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Mini-batches before this one, over all epochs.
    pub step: u64,
    /// The model whose embeddings the graph stands on.
    pub model_version: ModelVersion,
    /// The graph that was walked.
    pub graph_version: GraphVersion,
    /// Steps since the embeddings were made.
    pub staleness: u64,
    /// Mean similarity over all pairs of the mini-batch, those of other ranks too, by those embeddings: how hard it is.
    pub similarity: f32,
    /// What happened on the walk.
    pub counts: WalkCounts,
}

impl MiniBatch {
    /// Everything but the counts as one record batch: `sample_id`, `epoch`, `step`, `model_version`, `graph_version`,
    /// `staleness` and `similarity` (the last six the same in every row), then the columns of the rows.
    ///
    /// # Errors
    /// [`Error::Arrow`]: none that data can cause.
    pub fn to_record_batch(&self) -> Result<RecordBatch> {
        let n = self.ids.len();
        let same = |value: u64| Arc::new(UInt64Array::from(vec![value; n])) as ArrayRef;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(self.ids.iter().map(|id| id.0))),
            same(self.epoch),
            same(self.step),
            same(self.model_version.0),
            same(self.graph_version.0),
            same(self.staleness),
            Arc::new(Float32Array::from(vec![self.similarity; n])),
        ];
        columns.extend_from_slice(self.rows.columns());
        RecordBatch::try_new(Arc::new(Self::schema(&self.rows.schema())), columns)
            .map_err(|cause| Error::Arrow { action: "join a mini-batch with its rows", cause })
    }

    /// The columns of [`to_record_batch`](Self::to_record_batch) for rows of this schema.
    #[must_use]
    pub fn schema(rows: &Schema) -> Schema {
        let own = [
            ("sample_id", DataType::UInt32),
            ("epoch", DataType::UInt64),
            ("step", DataType::UInt64),
            ("model_version", DataType::UInt64),
            ("graph_version", DataType::UInt64),
            ("staleness", DataType::UInt64),
            ("similarity", DataType::Float32),
        ];
        let own = own.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
        Schema::new(own.into_iter().chain(rows.fields().iter().cloned()).collect::<Vec<_>>())
    }
}
