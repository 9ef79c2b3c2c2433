//! `walk.length_column` gives ranks slices of nearly equal length, and changes nothing else about mini-batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, Float32Array, Int16Array, Int64Array, RecordBatch, UInt64Array};
use prosampler::arrow::datatypes::Int16Type;
use prosampler::config::{MaskConfig, StreamConfig, WalkConfig};
use prosampler::source::MemorySource;
use prosampler::{MiniBatch, PipelineBuilder, SampleId};

use crate::support::{assert_says, pipeline, rows, walk_config};

const ROWS: usize = 310;
const BATCH: usize = 24;

/// Most are short, a few are long.
fn length(row: usize) -> i16 {
    let bits = row.wrapping_mul(0x9e37_79b9) >> 7;
    if bits.is_multiple_of(9) { 400 + (bits % 113) as i16 } else { (bits % 60) as i16 }
}

fn rows_with(lengths: ArrayRef) -> MemorySource {
    let rows = rows(ROWS);
    let columns = rows.columns().iter().cloned().chain([lengths]);
    let batch = RecordBatch::try_from_iter(["n", "text", "tokens"].into_iter().zip(columns)).unwrap();
    MemorySource::new(vec![batch]).unwrap()
}

fn builder(walk: WalkConfig, rank: usize, world_size: usize) -> PipelineBuilder {
    let lengths = Arc::new(Int16Array::from_iter_values((0..ROWS).map(length)));
    pipeline(ROWS, BATCH)
        .source(rows_with(lengths))
        .walk(walk)
        .mask(MaskConfig { max_similarity: Some(0.9), ..MaskConfig::default() })
        .stream(StreamConfig { rank, world_size, ..StreamConfig::default() })
}

fn walk(length_column: Option<&str>, order_by_length: bool) -> WalkConfig {
    let length_column = length_column.map(str::to_owned);
    WalkConfig { negatives: 1, length_column, order_by_length, ..walk_config(BATCH) }
}

async fn all(walk: &WalkConfig, world_size: usize) -> Vec<Vec<MiniBatch>> {
    let mut ranks = Vec::new();
    for rank in 0..world_size {
        let stream = builder(walk.clone(), rank, world_size).start().await.unwrap();
        ranks.push(stream.try_collect::<Vec<_>>().await.unwrap());
    }
    ranks
}

/// Whether each of a mini-batch's samples and negatives is marked.
type Marks = BTreeMap<Option<SampleId>, bool>;

/// The negative of each sample of a mini-batch, and which samples and negatives are marked for it.
fn by_sample(shares: &[&MiniBatch]) -> BTreeMap<SampleId, (Option<SampleId>, Marks)> {
    let ids: Vec<_> = shares.iter().flat_map(|share| share.ids.clone()).collect();
    let negatives: Vec<_> = shares.iter().flat_map(|share| share.negatives.clone()).collect();
    let columns: Vec<_> = ids.iter().copied().map(Some).chain(negatives.clone()).collect();
    let mut found = BTreeMap::new();
    for share in shares {
        let mask = share.mask().unwrap();
        for (row, &id) in share.ids.iter().enumerate() {
            let marks = mask.value(row);
            let marks = columns.iter().copied().zip(marks.as_boolean().values().iter()).collect();
            found.insert(id, (share.negatives[row], marks));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_have_equal_lengths_and_mini_batches_the_same_samples() {
    for world_size in [1, 2, 4] {
        let plain = all(&walk(None, false), world_size).await;
        for by_length in [false, true] {
            let dealt = all(&walk(Some("tokens"), by_length), world_size).await;
            let (mut spread, mut spread_before) = (0, 0);
            for step in 0..plain[0].len() {
                let shares = |ranks: &[Vec<MiniBatch>]| ranks.iter().map(|rank| rank[step].clone()).collect::<Vec<_>>();
                let (before, after) = (shares(&plain), shares(&dealt));
                assert!(after.iter().all(|share| share.ids.len() == before[0].ids.len()));
                assert!(after.iter().all(|share| share.digest == after[0].digest));
                assert!(after.iter().zip(&before).all(|(a, b)| a.similarity == b.similarity && a.counts == b.counts));
                let of = |shares: &[MiniBatch]| by_sample(&shares.iter().collect::<Vec<_>>());
                assert!(of(&before) == of(&after), "step {step} of {world_size} ranks");
                for share in &after {
                    let tokens = share.rows["tokens"].as_primitive::<Int16Type>();
                    assert!(share.ids.iter().zip(tokens.values()).all(|(id, tokens)| length(id.index()) == *tokens));
                    assert!(!by_length || tokens.values().is_sorted_by(|a, b| a >= b));
                }
                let spread_of = |shares: &[MiniBatch]| {
                    let sum = |share: &MiniBatch| share.ids.iter().map(|id| i64::from(length(id.index()))).sum::<i64>();
                    let sums: Vec<_> = shares.iter().map(sum).collect();
                    sums.iter().max().unwrap() - sums.iter().min().unwrap()
                };
                spread += spread_of(&after);
                spread_before += spread_of(&before);
            }
            println!("{world_size} ranks: {spread} instead of {spread_before}");
            assert!(world_size == 1 || spread * 3 < spread_before, "{spread} and {spread_before}");
        }
    }
}

#[tokio::test]
async fn columns_without_lengths_are_refused() {
    let refused = async |lengths: ArrayRef, column: &str| {
        let walk = walk(Some(column), false);
        pipeline(ROWS, BATCH).source(rows_with(lengths)).walk(walk).start().await.unwrap_err().to_string()
    };
    let numbers = |at: usize, number: Option<i64>| -> ArrayRef {
        Arc::new((0..ROWS).map(|row| if row == at { number } else { Some(row as i64) }).collect::<Int64Array>())
    };
    assert_says(&refused(numbers(0, Some(0)), "token").await, &["column `token` not found", "`tokens`"]);
    let floats = Arc::new(Float32Array::from_iter_values((0..ROWS).map(|row| row as f32)));
    assert_says(&refused(floats, "tokens").await, &["column `tokens` holds Float32", "walk.length_column"]);
    let message = refused(numbers(17, None), "tokens").await;
    assert_says(&message, &["walk.length_column", "`tokens`, which is null at sample 17"]);
    assert_says(&refused(numbers(30, Some(-4)), "tokens").await, &["which is -4 at sample 30"]);
    assert_says(&refused(numbers(31, Some(1 << 32)), "tokens").await, &["which is 4294967296 at sample 31"]);
    let huge = Arc::new(UInt64Array::from_iter_values((0..ROWS).map(|row| if row == 5 { u64::MAX } else { 1 })));
    assert_says(&refused(huge, "tokens").await, &["which is above 4,294,967,295 at sample 5"]);
    let walk = WalkConfig { order_by_length: true, ..walk_config(BATCH) };
    let message = pipeline(ROWS, BATCH).walk(walk).start().await.unwrap_err().to_string();
    assert_says(&message, &["walk.order_by_length", "walk.length_column"]);
}
