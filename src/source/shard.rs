use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
use crate::arrow_file::checksum;
use crate::error::{ColumnError, Error, Result};

/// The rows of another source that belong to one of several shards, by the value of a column.
///
/// Value v belongs to shard ⌊h(v) · count / 2⁶⁴⌋, where h is XXH3-64 of its text in UTF-8: decimal for numbers. So
/// shards are the same on every host and in every language.
///
/// ```
/// use std::sync::Arc;
/// use futures::TryStreamExt;
/// use prosampler::arrow::array::{Int64Array, RecordBatch};
/// use prosampler::source::{MemorySource, ShardSource, Source};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ids = Arc::new(Int64Array::from_iter_values(0..1000));
/// let rows = MemorySource::new(vec![RecordBatch::try_from_iter([("id", ids as _)])?])?;
/// let shard = ShardSource::new(Arc::new(rows), "id", 3, 4)?;
/// let found: Vec<_> = shard.read(&["id".into()])?.try_collect().await?;
/// let found: usize = found.iter().map(RecordBatch::num_rows).sum();
/// let sizes = shard.sizes().await?;
/// assert_eq!((sizes.iter().sum::<u64>(), sizes[3] as usize), (1000, found));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ShardSource {
    source: Arc<dyn Source>,
    by: String,
    index: usize,
    count: usize,
    /// The size of each shard, once all rows were read.
    known: Arc<OnceLock<Vec<u64>>>,
}

impl ShardSource {
    /// Part `index` of `count` of a source, by the values of column `by`.
    ///
    /// # Errors
    /// [`ColumnError::Missing`], [`ColumnError::Ambiguous`], and [`ColumnError::Type`] for a column whose values have
    /// no text; [`Error::Config`] for a shard that is none.
    pub fn new(source: Arc<dyn Source>, by: &str, index: usize, count: usize) -> Result<Self> {
        if index >= count {
            return Err(Error::setting("shard.index", format!("is {index}, of {count} shards; they count from 0")));
        }
        let schema = source.schema();
        let place = column_indices(source.uri(), &schema, &[by.to_owned()])?[0];
        let found = schema.field(place).data_type();
        if !has_text(found) {
            return Err(ColumnError::Type {
                column: by.to_owned(),
                found: found.to_string(),
                expected: "shard.by needs texts, whole numbers or truth values; name another column".to_owned(),
            }
            .into());
        }
        Ok(Self { source, by: by.to_owned(), index, count, known: Arc::default() })
    }

    /// How many rows each shard has. Reads the column of all rows, unless this source was read to its end before.
    ///
    /// # Errors
    /// Those of reading the source.
    pub async fn sizes(&self) -> Result<Vec<u64>> {
        if let Some(known) = self.known.get() {
            return Ok(known.clone());
        }
        let mut sizes = vec![0; self.count];
        let mut batches = self.source.read(std::slice::from_ref(&self.by))?;
        while let Some(batch) = batches.try_next().await? {
            let count = self.count;
            let by = self.by.clone();
            let shards = tokio::task::spawn_blocking(move || shards(&by, batch.column(0), count)).await;
            shards.map_err(|e| Error::of_task("shard", e))??.into_iter().for_each(|shard| sizes[shard] += 1);
        }
        Ok(sizes)
    }
}

/// Whether values of a type have one text each.
fn has_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => has_text(values),
        DataType::RunEndEncoded(_, values) => has_text(values.data_type()),
        other => other.is_string() || other.is_integer() || *other == DataType::Boolean,
    }
}

/// The shard of each value.
fn shards(by: &str, values: &ArrayRef, count: usize) -> Result<Vec<usize>> {
    // Texts that are not UTF-8 arrive as bytes.
    let texts = if values.data_type().is_binary() { DataType::LargeBinary } else { DataType::LargeUtf8 };
    let texts = cast(values, &texts).map_err(|cause| Error::Arrow { action: "read shard.by", cause })?;
    if texts.null_count() > 0 {
        let message =
            format!("names `{by}`, which has nulls, and these belong to no shard; name another, or filter them out");
        return Err(Error::setting("shard.by", message));
    }
    let shard = |text: &[u8]| ((u128::from(checksum(text)) * count as u128) >> 64) as usize;
    Ok(match texts.as_string_opt::<i64>() {
        Some(texts) => texts.iter().flatten().map(|text| shard(text.as_bytes())).collect(),
        None => texts.as_binary::<i64>().iter().flatten().map(shard).collect(),
    })
}

impl std::fmt::Debug for ShardSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { by, index, count, .. } = self;
        f.debug_struct("ShardSource")
            .field("by", by)
            .field("index", index)
            .field("count", count)
            .finish_non_exhaustive()
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Source for ShardSource {
    fn uri(&self) -> &str {
        self.source.uri()
    }

    fn schema(&self) -> SchemaRef {
        self.source.schema()
    }

    /// Returns `None`: which rows belong to the shard is not known before they are read.
    fn rows(&self) -> Option<usize> {
        None
    }

    fn filter(&self) -> Option<&str> {
        self.source.filter()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let all = self.source.fingerprint()?;
        let Self { by, index, count, .. } = self;
        Some(Fingerprint { settings: format!("{}, shard {index} of {count} by `{by}`", all.settings), ..all })
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    /// Returns `None`: the runs of other shards would find files that are added at another time.
    fn added(&self, _: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        column_indices(self.uri(), &self.schema(), columns)?;
        let mut needed = columns.to_vec();
        let place = needed.iter().position(|column| *column == self.by).unwrap_or(needed.len());
        if place == needed.len() {
            needed.push(self.by.clone());
        }
        let (width, index, count) = (columns.len(), self.index, self.count);
        let by: Arc<str> = self.by.as_str().into();
        let sizes: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let (counted, known) = (sizes.clone(), self.known.clone());
        let keep = move |batch: Result<RecordBatch>| {
            let (by, sizes) = (by.clone(), sizes.clone());
            async move {
                let batch = batch?;
                let work = move || {
                    let shards = shards(&by, batch.column(place), count)?;
                    for &shard in &shards {
                        sizes[shard].fetch_add(1, Relaxed);
                    }
                    let kept: BooleanArray = shards.into_iter().map(|shard| Some(shard == index)).collect();
                    let wanted = batch.project(&(0..width).collect::<Vec<_>>());
                    wanted
                        .and_then(|batch| filter_record_batch(&batch, &kept))
                        .map_err(|cause| Error::Arrow { action: "take a shard of the rows", cause })
                };
                tokio::task::spawn_blocking(work).await.map_err(|e| Error::of_task("shard", e))?
            }
        };
        let end = stream::once(async move {
            // Another pass has counted the same.
            let _ = known.set(counted.iter().map(|size| size.load(Relaxed)).collect());
        });
        let kept = self.source.read(&needed)?.map(keep).buffered(MAX_BATCHES);
        // Rows can be read once only of some sources, so the pass that keeps some counts all.
        Ok(kept.map(Some).chain(end.map(|()| None)).filter_map(std::future::ready).boxed())
    }
}

/// The most record batches that are looked at at the same time.
const MAX_BATCHES: usize = 2;
