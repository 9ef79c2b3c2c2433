//! What the stream delivers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, ListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};

use super::rows::MASK_ROLE;
use crate::config::SOURCE_COLUMN;
use crate::error::{Error, Result};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::walk::WalkCounts;

/// B samples that are hard to tell apart, with their rows.
///
/// ```
/// use futures::TryStreamExt;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use prosampler::arrow::{array::{ArrayRef, FixedSizeListArray, RecordBatch}, datatypes::Float32Type};
/// # use prosampler::{Pipeline, config::*, encode::ColumnEncoder, source::MemorySource};
/// # let vector = |i: i32| Some([Some((i as f32).sin()), Some((i as f32).cos())]);
/// # let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..100).map(vector), 2);
/// # let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)])?;
/// # let pipeline = Pipeline::builder()
/// #     .encoder(ColumnEncoder::new(&rows.schema(), "vector")?)
/// #     .source(MemorySource::new(vec![rows])?)
/// #     .graph(GraphConfig { candidates: 20.into(), neighbors: Some(5), ..GraphConfig::default() })
/// #     .walk(WalkConfig { batch_size: 32, ..WalkConfig::default() });
/// let mini_batch = pipeline.start().await?.try_next().await?.ok_or("no mini-batch")?;
/// assert_eq!(mini_batch.ids.len(), mini_batch.rows.num_rows());
/// assert_eq!(mini_batch.to_record_batch()?["sample_id"].len(), 32);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MiniBatch {
    /// The samples, all distinct: this rank's share of the mini-batch.
    pub ids: Vec<SampleId>,
    /// Their rows, in the same order.
    ///
    /// With `walk.negatives` = n, the columns `negative_1` to `negative_n` follow. They hold values of the column of
    /// positives if rows are pairs, or else of the first column that the encoder reads. With
    /// [`[mask]`](crate::config::MaskConfig) a column `mask` comes last.
    pub rows: RecordBatch,
    /// Explicit hard negatives, [ids × n]; empty without `walk.negatives`.
    ///
    /// Each is near its sample in the graph, is not in the mini-batch, and is not kept apart by guards from any sample
    /// of it. All differ if there are enough samples for that. `None`, and null in `rows`, if no sample is eligible.
    pub negatives: Vec<Option<SampleId>>,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The number of mini-batches before this one, over all epochs.
    pub step: u64,
    /// The version of the model that made the embeddings under the graph; `None` in a warm-up without a graph.
    pub model_version: Option<ModelVersion>,
    /// The version of the graph that was walked; `None` in a warm-up without one.
    pub graph_version: Option<GraphVersion>,
    /// Steps since the embeddings were made; `None` in a warm-up without a graph.
    pub staleness: Option<u64>,
    /// How hard the mini-batch is: its mean similarity over all pairs by those embeddings, those of other ranks too.
    /// `None` in a warm-up without a graph.
    pub similarity: Option<f32>,
    /// Whether it belongs to the [warm-up](crate::config::WarmUp), and was drawn uniformly.
    pub is_warm_up: bool,
    /// A hash of the step, the ids over all ranks, and the graph.
    ///
    /// It is the same on all ranks that draw the same mini-batches. If ranks differ, for example in their settings or
    /// in the rounding of their models, so does this, although their ids may be the same for some steps.
    pub digest: u64,
    /// What `walk.target_similarity` had learnt before it was drawn, for the run's state.
    pub(crate) feedback: Option<[u64; 6]>,
    /// What happened on the walk.
    pub counts: WalkCounts,
}

impl MiniBatch {
    /// Which samples are no negatives of which, the column `mask` of the rows: B(1 + n) truth values for each of
    /// `ids`; `None` without [`[mask]`](crate::config::MaskConfig), which says what they stand for.
    #[must_use]
    pub fn mask(&self) -> Option<&ListArray> {
        let (schema, last) = (self.rows.schema_ref(), self.rows.num_columns().checked_sub(1)?);
        let is_mask = schema.field(last).metadata().contains_key(MASK_ROLE);
        self.rows.column(last).as_list_opt().filter(|_| is_mask)
    }

    /// How many of `ids` are of each of the [sources](crate::config::NamedSource), by the column `source` of the rows;
    /// empty if they have none.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        let names = self.rows.column_by_name(SOURCE_COLUMN).and_then(|column| column.as_string_opt::<i32>());
        for name in names.into_iter().flatten().flatten() {
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// Everything except the counts and the negatives' ids as one record batch.
    ///
    /// The columns are `sample_id`, `epoch`, `step`, `model_version`, `graph_version`, `staleness` and `similarity`
    /// (the last six the same in every row, and the last four null if they are `None`), then those of the rows.
    ///
    /// # Errors
    /// [`Error::Arrow`], which no data can cause.
    pub fn to_record_batch(&self) -> Result<RecordBatch> {
        let n = self.ids.len();
        let same = |value: Option<u64>| Arc::new(UInt64Array::from(vec![value; n])) as ArrayRef;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(self.ids.iter().map(|id| id.0))),
            same(Some(self.epoch)),
            same(Some(self.step)),
            same(self.model_version.map(|version| version.0)),
            same(self.graph_version.map(|version| version.0)),
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
            ("sample_id", DataType::UInt32, false),
            ("epoch", DataType::UInt64, false),
            ("step", DataType::UInt64, false),
            ("model_version", DataType::UInt64, true),
            ("graph_version", DataType::UInt64, true),
            ("staleness", DataType::UInt64, true),
            ("similarity", DataType::Float32, true),
        ];
        let own = own.map(|(name, data_type, nullable)| Arc::new(Field::new(name, data_type, nullable)));
        Schema::new(own.into_iter().chain(rows.fields().iter().cloned()).collect::<Vec<_>>())
    }
}
