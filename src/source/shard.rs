use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use twox_hash::XxHash3_64;

use super::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
use crate::config::ShardConfig;
use crate::error::{ColumnError, Error, Result};

/// The rows of another source that belong to one of several shards, by the value of a column.
///
/// Value v belongs to shard ⌊h(v) · count / 2⁶⁴⌋, where h is XXH3-64, with the seed, of its text in UTF-8 (decimal for
/// numbers). So shards are the same on every host and in every language.
///
/// ```
/// use std::sync::Arc;
/// use futures::TryStreamExt;
/// use prosampler::arrow::array::{Int64Array, RecordBatch};
/// use prosampler::config::ShardConfig;
/// use prosampler::source::{MemorySource, ShardSource, Source};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ids = Arc::new(Int64Array::from_iter_values(0..1000));
/// let rows = MemorySource::new(vec![RecordBatch::try_from_iter([("id", ids as _)])?])?;
/// let division = ShardConfig { by: Some("id".into()), index: 3, count: 4, seed: 0 };
/// let shard = ShardSource::new(Arc::new(rows), &division)?;
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
    division: Division,
    index: usize,
    /// The size of each shard, once all rows were read.
    known: Arc<OnceLock<Vec<u64>>>,
}

/// How rows are divided.
#[derive(Clone, Debug)]
struct Division {
    by: Arc<str>,
    count: usize,
    seed: u64,
}

impl Division {
    /// The shard of each value.
    fn shards(&self, values: &ArrayRef) -> Result<Vec<usize>> {
        // Texts that are not UTF-8 arrive as bytes.
        let texts = if values.data_type().is_binary() { DataType::LargeBinary } else { DataType::LargeUtf8 };
        let texts = cast(values, &texts).map_err(|cause| Error::Arrow { action: "read shard.by", cause })?;
        if texts.null_count() > 0 {
            let message = format!(
                "names `{}`, which has nulls, and these belong to no shard; name another, or filter them out",
                self.by
            );
            return Err(Error::setting("shard.by", message));
        }
        let shard = |text: &[u8]| {
            let hash = XxHash3_64::oneshot_with_seed(self.seed, text);
            ((u128::from(hash) * self.count as u128) >> 64) as usize
        };
        Ok(match texts.as_string_opt::<i64>() {
            Some(texts) => texts.iter().flatten().map(|text| shard(text.as_bytes())).collect(),
            None => texts.as_binary::<i64>().iter().flatten().map(shard).collect(),
        })
    }
}

/// The shard of each of these values, as `[shard]` divides them by a column with them.
///
/// # Errors
/// [`Error::Config`] if there are nulls, or `count` is 0; [`ColumnError::Type`] for values that have no text.
pub fn shards_of(values: &ArrayRef, by: &str, count: usize, seed: u64) -> Result<Vec<usize>> {
    if count == 0 {
        return Err(Error::setting("shard.count", "is 0; give how many shards there are"));
    }
    check_has_text(by, values.data_type())?;
    Division { by: by.into(), count, seed }.shards(values)
}

impl ShardSource {
    /// The shard of a source that these settings name.
    ///
    /// # Errors
    /// [`ColumnError::Missing`], [`ColumnError::Ambiguous`], and [`ColumnError::Type`] for a column whose values have
    /// no text; [`Error::Config`] for a shard that is none.
    pub fn new(source: Arc<dyn Source>, config: &ShardConfig) -> Result<Self> {
        let ShardConfig { by, index, count, seed } = config;
        let by = by.as_deref().ok_or_else(|| Error::setting("shard.by", "is required; name a column"))?;
        if index >= count {
            return Err(Error::setting("shard.index", format!("is {index}, of {count} shards; they count from 0")));
        }
        let schema = source.schema();
        let place = column_indices(source.uri(), &schema, &[by.to_owned()])?[0];
        check_has_text(by, schema.field(place).data_type())?;
        let division = Division { by: by.into(), count: *count, seed: *seed };
        Ok(Self { source, division, index: *index, known: Arc::default() })
    }

    /// How many rows each shard has. Reads the column of all rows, unless this source was read to its end before.
    ///
    /// # Errors
    /// Those of reading the source.
    pub async fn sizes(&self) -> Result<Vec<u64>> {
        if let Some(known) = self.known.get() {
            return Ok(known.clone());
        }
        let mut sizes = vec![0; self.division.count];
        let mut batches = self.source.read(&[self.division.by.as_ref().to_owned()])?;
        while let Some(batch) = batches.try_next().await? {
            let division = self.division.clone();
            let shards = tokio::task::spawn_blocking(move || division.shards(batch.column(0))).await;
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

/// Refuses a column whose values have no text.
fn check_has_text(by: &str, found: &DataType) -> Result<()> {
    if has_text(found) {
        return Ok(());
    }
    Err(ColumnError::Type {
        column: by.to_owned(),
        found: found.to_string(),
        expected: "shard.by needs texts, whole numbers or truth values; name another column".to_owned(),
    }
    .into())
}

impl std::fmt::Debug for ShardSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { division, index, .. } = self;
        f.debug_struct("ShardSource").field("division", division).field("index", index).finish_non_exhaustive()
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
        let Self { division: Division { by, count, seed }, index, .. } = self;
        let seed = if *seed == 0 { String::new() } else { format!(", seed {seed}") };
        Some(Fingerprint { settings: format!("{}, shard {index} of {count} by `{by}`{seed}", all.settings), ..all })
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
        let by = self.division.by.as_ref();
        let place = needed.iter().position(|column| column == by).unwrap_or(needed.len());
        if place == needed.len() {
            needed.push(by.to_owned());
        }
        let (width, index, division) = (columns.len(), self.index, self.division.clone());
        let sizes: Arc<[AtomicU64]> = (0..division.count).map(|_| AtomicU64::new(0)).collect();
        let (counted, known) = (sizes.clone(), self.known.clone());
        let keep = move |batch: Result<RecordBatch>| {
            let (division, sizes) = (division.clone(), sizes.clone());
            async move {
                let batch = batch?;
                let work = move || {
                    let shards = division.shards(batch.column(place))?;
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
