//! Runs over random shards of the rows: every row in one, epochs of one length, and the whole's graph and mini-batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
    UInt32Array,
};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{
    CheckpointConfig, Coverage, FirstRefresh, GraphBuilder, GraphConfig, PipelineConfig, RefreshConfig, ShardConfig,
    StreamConfig, WalkConfig, WarmUp,
};
use prosampler::source::{MemorySource, ShardSource, Source, contract, shards_of};
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineBuilder, SampleId};
use tempfile::TempDir;

use crate::support::{DIMENSION, TestEncoder, assert_says, graph_config, rows, trained_vectors, walk_config};

const SAMPLES: usize = 4000;
const PARTS: usize = 4;
const BATCH: usize = 32;
/// Of a part, too, there are many of these.
const SMALL_BATCH: usize = 8;

async fn read(source: &dyn Source, column: &str) -> Vec<u32> {
    let batches: Vec<RecordBatch> = source.read(&[column.to_owned()]).unwrap().try_collect().await.unwrap();
    batches.iter().flat_map(|batch| batch[column].as_primitive::<UInt32Type>().values().to_vec()).collect()
}

fn memory(columns: Vec<(&str, ArrayRef)>) -> Arc<MemorySource> {
    Arc::new(MemorySource::new(vec![RecordBatch::try_from_iter(columns).unwrap()]).unwrap())
}

fn part_of(by: &str, index: usize, count: usize) -> ShardConfig {
    ShardConfig { by: Some(by.to_owned()), index, count, seed: 0 }
}

/// By Python's xxhash: `xxh3_64_intdigest(str(v).encode()) * 7 >> 64`.
#[tokio::test]
async fn a_row_s_part_is_the_hash_of_its_text() {
    let expected = [0, 2, 6, 3, 6, 6, 4, 0, 2, 1, 5, 0, 3, 3, 0, 5, 6, 4, 3, 3];
    let n: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..20));
    let big: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..20).map(|n| n.to_string())));
    let large: ArrayRef = Arc::new(LargeStringArray::from_iter_values((0..20).map(|n| n.to_string())));
    let source = memory(vec![("n", n), ("big", big), ("text", text), ("large", large)]);
    for by in ["n", "big", "text", "large"] {
        let mut sizes = [0; 7];
        for (index, size) in sizes.iter_mut().enumerate() {
            let part = ShardSource::new(source.clone(), &part_of(by, index, 7)).unwrap();
            let of_part: Vec<u32> = (0..20).filter(|&n| expected[n as usize] == index).collect();
            assert_eq!(read(&part, "n").await, of_part, "{by} {index}");
            *size = of_part.len() as u64;
        }
        assert_eq!(ShardSource::new(source.clone(), &part_of(by, 0, 7)).unwrap().sizes().await.unwrap(), sizes);
    }
    // With another seed: `xxh3_64_intdigest(str(v), seed=9) * 7 >> 64`.
    let expected = [2, 0, 3, 5, 3, 6, 5, 4, 0, 4, 6, 4, 3, 1, 2, 4, 3, 3, 0, 0];
    for index in 0..7 {
        let part = ShardSource::new(source.clone(), &ShardConfig { seed: 9, ..part_of("n", index, 7) }).unwrap();
        let of_part: Vec<u32> = (0..20).filter(|&n| expected[n as usize] == index).collect();
        assert_eq!(read(&part, "n").await, of_part, "{index}");
    }
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20));
    assert_eq!(shards_of(&values, "n", 7, 9).unwrap(), expected);
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["", "a", "ä", "https://example.org/1"]));
    let n: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..4));
    let source = memory(vec![("n", n), ("url", texts)]);
    for (row, index) in [1, 6, 2, 1].into_iter().enumerate() {
        let part = ShardSource::new(source.clone(), &part_of("url", index, 7)).unwrap();
        assert!(read(&part, "n").await.contains(&(row as u32)));
    }
    // The pass that keeps some rows counts all, since some sources can be read once only.
    let part = ShardSource::new(source, &part_of("url", 0, 7)).unwrap();
    read(&part, "n").await;
    assert_eq!(part.sizes().await.unwrap(), [0, 2, 1, 0, 0, 0, 1]);
    let part =
        ShardSource::new(Arc::new(MemorySource::new(vec![rows(1000)]).unwrap()), &part_of("text", 1, 3)).unwrap();
    assert_eq!(contract::check(&part).await, Ok(()));
}

fn builder(index: usize) -> PipelineBuilder {
    builder_of(part_of("n", index, PARTS))
}

fn whole() -> PipelineBuilder {
    builder_of(ShardConfig::default())
}

fn builder_of(shard: ShardConfig) -> PipelineBuilder {
    Pipeline::from_config(PipelineConfig { shard, seed: 5, ..PipelineConfig::default() })
        .source(MemorySource::new(vec![rows(SAMPLES)]).unwrap())
        .encoder(TestEncoder::new(SAMPLES))
        .graph(graph_config(100, 16))
        .walk(walk_config(BATCH))
}

async fn all(builder: PipelineBuilder) -> Vec<MiniBatch> {
    builder.start().await.unwrap().try_collect().await.unwrap()
}

fn numbers(mini_batch: &MiniBatch) -> Vec<u32> {
    mini_batch.rows["n"].as_primitive::<UInt32Type>().values().to_vec()
}

#[tokio::test]
async fn epochs_have_one_length_and_two_of_them_every_row() {
    let warm_up = WalkConfig { warm_up: Some(WarmUp::Epochs(1)), ..walk_config(BATCH) };
    for walk in [walk_config(BATCH), warm_up] {
        let mut covered = [HashSet::<u32>::new(), HashSet::new()];
        let (mut lengths, mut sizes) = (HashSet::new(), Vec::new());
        for index in 0..PARTS {
            let refresh = RefreshConfig { first: FirstRefresh::AfterWarmUp, ..RefreshConfig::default() };
            let stream = StreamConfig { epochs: 4, ..StreamConfig::default() };
            let stream = builder(index).walk(walk.clone()).refresh(refresh).stream(stream).start().await.unwrap();
            sizes.push(stream.samples());
            let mut epochs = vec![HashSet::new(); 4];
            let mini_batches: Vec<MiniBatch> = stream.try_collect().await.unwrap();
            for mini_batch in &mini_batches {
                let epoch = &mut epochs[mini_batch.epoch as usize];
                assert!(numbers(mini_batch).into_iter().all(|n| epoch.insert(n)), "a row comes twice");
            }
            lengths.extend(epochs.iter().map(HashSet::len));
            for (two, epochs) in covered.iter_mut().zip(epochs.windows(2).skip(1)) {
                epochs.iter().for_each(|epoch| two.extend(epoch));
            }
        }
        assert_eq!(sizes.iter().sum::<usize>(), SAMPLES);
        assert!(sizes.iter().max() > sizes.iter().min());
        assert_eq!(lengths, HashSet::from([*sizes.iter().min().unwrap()]));
        assert!(covered.iter().all(|two| two.len() == SAMPLES));
    }
}

/// A third of the samples an epoch: three epochs in a row have them all, and none of them one twice.
#[tokio::test]
async fn an_epoch_may_have_some_of_the_samples() {
    for (most, epochs) in [(1334, 3), (2000, 2), (3999, 2), (4000, 1), (9999, 1), (64, 63)] {
        let walk = WalkConfig { epoch_samples: Some(most), ..walk_config(BATCH) };
        let stream = StreamConfig { epochs: epochs + 2, ..StreamConfig::default() };
        let whole = whole().walk(walk).stream(stream).start().await.unwrap();
        assert_eq!(whole.mini_batches_per_epoch(), most.min(SAMPLES).div_ceil(BATCH) as u64);
        let mut drawn = vec![HashSet::new(); epochs as usize + 2];
        for mini_batch in whole.try_collect::<Vec<MiniBatch>>().await.unwrap() {
            let epoch = &mut drawn[mini_batch.epoch as usize];
            assert!(numbers(&mini_batch).into_iter().all(|n| epoch.insert(n)), "a row comes twice");
        }
        assert!(drawn.iter().all(|epoch| epoch.len() == most.min(SAMPLES)));
        for some in drawn.windows(epochs as usize) {
            assert_eq!(some.iter().flatten().collect::<HashSet<_>>().len(), SAMPLES, "{most} an epoch");
        }
    }
}

/// Of each sample, at which place among all others its neighbors are.
fn neighbor_places(vectors: &[f32], ids: &[u32], neighbors: impl Fn(usize) -> Vec<u32>) -> Vec<f64> {
    let unit: Vec<Vec<f32>> = vectors
        .chunks_exact(DIMENSION)
        .map(|vector| {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter().map(|x| x / length).collect()
        })
        .collect();
    let dot = |a: usize, b: usize| unit[a].iter().zip(&unit[b]).map(|(x, y)| x * y).sum::<f32>();
    let mut places = Vec::new();
    for (row, &id) in ids.iter().enumerate().step_by(5) {
        let mut similarities: Vec<f32> = (0..unit.len()).map(|other| dot(id as usize, other)).collect();
        let of_neighbors: Vec<f32> = neighbors(row).iter().map(|&other| similarities[other as usize]).collect();
        similarities.sort_by(f32::total_cmp);
        let nearer = |similarity: f32| similarities.len() - similarities.partition_point(|&other| other <= similarity);
        places.extend(of_neighbors.into_iter().map(|similarity| nearer(similarity) as f64));
    }
    places
}

/// The largest distance of two empirical distributions.
fn kolmogorov_smirnov(a: &mut [f64], b: &mut [f64]) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let share = |of: &[f64], x: f64| of.partition_point(|&y| y <= x) as f64 / of.len() as f64;
    a.iter().chain(&*b).map(|&x| (share(a, x) - share(b, x)).abs()).fold(0.0, f64::max)
}

struct Drawn {
    places: Vec<f64>,
    similarities: Vec<f64>,
}

/// The places of neighbors, and the similarities of the first quarter of mini-batches, of one run.
async fn drawn(builder: PipelineBuilder, vectors: &[f32]) -> Drawn {
    let stream = builder.walk(walk_config(SMALL_BATCH)).start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let mini_batches: Vec<MiniBatch> = stream.try_collect().await.unwrap();
    let mut number_of = HashMap::new();
    for mini_batch in &mini_batches {
        number_of.extend(mini_batch.ids.iter().map(|id| id.index()).zip(numbers(mini_batch)));
    }
    // Those that sit out in this epoch are not known by number.
    let mut known: Vec<_> = number_of.keys().copied().collect();
    known.sort_unstable();
    let ids: Vec<u32> = known.iter().map(|id| number_of[id]).collect();
    let neighbors = |row: usize| {
        let of = snapshot.graph.neighbors(SampleId::new(known[row]));
        of.iter().filter_map(|id| number_of.get(&id.index()).copied()).collect()
    };
    let first = &mini_batches[..mini_batches.len() / 4];
    let similarities = first.iter().map(|m| f64::from(m.similarity.unwrap())).collect();
    Drawn { places: neighbor_places(vectors, &ids, neighbors), similarities }
}

/// What a run over all rows draws, and what runs over all parts do.
async fn whole_and_parts(graph: &GraphConfig, vectors: &[f32]) -> [Drawn; 2] {
    let whole = drawn(whole().graph(graph.clone()), vectors).await;
    let mut parts = Drawn { places: Vec::new(), similarities: Vec::new() };
    for index in 0..PARTS {
        let part = drawn(builder(index).graph(graph.clone()), vectors).await;
        parts.places.extend(part.places);
        parts.similarities.extend(part.similarities);
    }
    [whole, parts]
}

/// M random candidates of a random part are M random candidates of all.
///
/// Mini-batches are compared in the first quarter of an epoch: its end is less hard, the more so the fewer there are.
#[tokio::test]
async fn parts_have_the_graph_and_the_mini_batches_of_the_whole() {
    let vectors = trained_vectors(0, SAMPLES);
    for candidates in [40, 100, 200] {
        let [mut whole, mut parts] = whole_and_parts(&graph_config(candidates, 16), &vectors).await;
        let places = whole.places.len().min(parts.places.len());
        let distance = kolmogorov_smirnov(&mut whole.places, &mut parts.places);
        // The neighbors of one sample hang together: as if there were a sixteenth as many.
        let bound = 1.95 * (2.0 / (places as f64 / 16.0)).sqrt();
        let [of_whole, of_parts] = [&whole, &parts].map(|of| mean(&of.similarities));
        let error = (variance_of_mean(&whole.similarities) + variance_of_mean(&parts.similarities)).sqrt();
        println!("M = {candidates}: distance {distance:.4}, similarity {of_whole:.4}, {of_parts:.4} ± {error:.4}");
        assert!(distance < bound, "M = {candidates}: {distance}, not below {bound}");
        assert!((of_whole - of_parts).abs() < 5.0 * error, "M = {candidates}: {of_whole} and {of_parts}");
    }
}

/// Of all samples, there are four times as many before the nearest of a part.
#[tokio::test]
async fn the_nearest_of_a_part_are_not_the_nearest_of_all() {
    let graph = GraphConfig { builder: GraphBuilder::Exact, neighbors: Some(16), ..GraphConfig::default() };
    let [whole, parts] = whole_and_parts(&graph, &trained_vectors(0, SAMPLES)).await.map(|of| mean(&of.places));
    println!("{whole:.2} of the whole, {parts:.2} of parts");
    assert!((3.0..5.0).contains(&(parts / whole)), "{whole} {parts}");
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn variance_of_mean(numbers: &[f64]) -> f64 {
    let mean = mean(numbers);
    numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (numbers.len() as f64).powi(2)
}

type Seen = (u64, Vec<SampleId>);

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let seen = |m: MiniBatch| (m.step, m.ids);
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_resumed() {
    let dir = TempDir::new().unwrap();
    let builder = |name: &str, index: usize| {
        let refresh = RefreshConfig { every_steps: Some(9), swap_after_steps: Some(2), ..RefreshConfig::default() };
        builder(index)
            .refresh(refresh)
            .stream(StreamConfig { epochs: 3, ..StreamConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(dir.path().join(name)), ..CheckpointConfig::default() })
    };
    for index in [0, 2] {
        let whole = take(&mut builder(&format!("{index}"), index).start().await.unwrap(), usize::MAX).await;
        for step in [5, 31, 40, 64] {
            let name = format!("{index} {step}");
            let mut stream = builder(&name, index).start().await.unwrap();
            let mut seen = take(&mut stream, step).await;
            let state = stream.state();
            drop(stream);
            seen.extend(take(&mut builder(&name, index).resume(state).start().await.unwrap(), usize::MAX).await);
            assert!(seen == whole, "{name}");
        }
    }
    let mut stream = builder("other", 0).start().await.unwrap();
    take(&mut stream, 3).await;
    let state = stream.state();
    drop(stream);
    let error = builder("other", 1).resume(state).start().await.unwrap_err().to_string();
    assert_says(&error, &["shard.index"]);
}

#[tokio::test]
async fn what_has_no_parts_is_an_error() {
    let fails = |text: &str| PipelineConfig::from_toml(&format!("source.uri = 'a'\n{text}")).unwrap_err().to_string();
    assert_says(&fails("shard.count = 3"), &["shard.by", "is required"]);
    assert_says(&fails("shard = { by = 'id', count = 3, index = 3 }"), &["shard.index", "3 shards"]);
    assert_says(&fails("shard = { by = 'id', count = 2 }\nwalk.same = 'task'"), &["shard.count", "walk.same"]);
    assert_says(&fails("shard = { by = 'id', count = 2 }\nwalk.coverage = 'paper'"), &["shard.count", "walk.coverage"]);
    let of_part = "walk.epoch_samples = 1000\n";
    assert_says(&fails(&format!("{of_part}walk.coverage = 'paper'")), &["walk.epoch_samples", "walk.coverage"]);
    assert_says(&fails(&format!("{of_part}walk.same = 'task'")), &["walk.epoch_samples", "walk.same"]);
    assert_says(&fails("walk = { epoch_samples = 31, batch_size = 32 }"), &["walk.epoch_samples", "31", "(32)"]);

    let start = async |by: &str, values: ArrayRef, count: usize| {
        let shard = part_of(by, 0, count);
        let n: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..values.len() as u32));
        let source = MemorySource::new(vec![RecordBatch::try_from_iter([("n", n), ("id", values)]).unwrap()]).unwrap();
        let builder = Pipeline::from_config(PipelineConfig { shard, ..PipelineConfig::default() }).source(source);
        builder.encoder(TestEncoder::new(SAMPLES)).walk(walk_config(BATCH)).start().await.unwrap_err().to_string()
    };
    let texts = |of: fn(usize) -> Option<String>| -> ArrayRef { Arc::new((0..400).map(of).collect::<StringArray>()) };
    let floats: ArrayRef = Arc::new(Float32Array::from_iter_values((0..400).map(|n| n as f32)));
    assert_says(&start("id", floats, 2).await, &["`id`", "shard.by needs texts"]);
    assert_says(&start("url", texts(|n| Some(n.to_string())), 2).await, &["`url`", "`id`"]);
    assert_says(&start("id", texts(|n| (n != 9).then(|| n.to_string())), 2).await, &["shard.by", "nulls"]);
    let few: ArrayRef = Arc::new(BooleanArray::from_iter((0..400).map(|n| Some(n % 2 == 0))));
    assert_says(&start("id", few, 4).await, &["0", "smallest of the shards", "shard.count"]);
    assert!(!all(builder(1)).await.is_empty());
    let paper = WalkConfig { coverage: Coverage::Paper, ..walk_config(BATCH) };
    assert!(builder(0).walk(paper).start().await.is_err());
}
