//! Weights and pushed losses choose where walks start, and nothing else.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use prosampler::config::{
    CheckpointConfig, GraphBuilder, GraphConfig, RefreshConfig, Resume, SamplerKind, StreamConfig, WalkConfig, WarmUp,
};
use prosampler::graph::{self, ProximityGraph};
use prosampler::source::MemorySource;
use prosampler::walk::EpochSampler;
use prosampler::{GraphVersion, MiniBatchStream, PipelineBuilder, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{assert_says, graph_config, pipeline, rows, table, walk_config};

const SAMPLES: usize = 600;
const BATCH: usize = 20;

fn small_graph() -> ProximityGraph {
    graph::build(&table(SAMPLES, 8, 10, 3), &graph_config(40, 10), 7, GraphVersion(1)).unwrap()
}

/// A weight for each sample, of which no two are equal, and its rank among them from 0 to 1.
fn weights(seed: u64) -> (Arc<[f32]>, Vec<f64>) {
    let mut ranks: Vec<usize> = (0..SAMPLES).collect();
    ranks.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let weights = ranks.iter().map(|&rank| rank as f32 - 250.0).collect();
    (weights, ranks.into_iter().map(|rank| rank as f64 / SAMPLES as f64).collect())
}

/// The greatest of four uniform numbers is 0.8 on average, with a standard deviation of 0.163.
#[test]
fn a_walk_starts_at_the_heaviest_of_four() {
    let graph = small_graph();
    for sampler in [SamplerKind::RandomWalk, SamplerKind::Knn] {
        let config = WalkConfig { sampler, ..walk_config(BATCH) };
        let [mut heaviest, mut uniform] = [0.0; 2];
        const RUNS: u64 = 400;
        for seed in 0..RUNS {
            let (weights, ranks) = weights(seed);
            let mut epoch = EpochSampler::new(SAMPLES, &config, seed, 0);
            uniform += ranks[epoch.clone().next(&graph).unwrap().ids[0].index()] / RUNS as f64;
            epoch.set_weights(Some(weights));
            heaviest += ranks[epoch.next(&graph).unwrap().ids[0].index()] / RUNS as f64;
        }
        let bound = 5.0 / (RUNS as f64).sqrt();
        assert!((heaviest - 0.8).abs() < 0.163 * bound, "{sampler:?}: {heaviest}");
        assert!((uniform - 0.5).abs() < 0.289 * bound, "{sampler:?}: {uniform}");
    }
}

/// Every sample comes once, and those of great weight come early if each is a start.
#[test]
fn an_epoch_is_whole() {
    let graph = small_graph();
    for (sampler, starts) in [(SamplerKind::RandomWalk, 1), (SamplerKind::RandomWalk, BATCH), (SamplerKind::Knn, 4)] {
        let config = WalkConfig { sampler, starts: (starts as f64).into(), ..walk_config(BATCH) };
        let (weights, ranks) = weights(5);
        let mut epoch = EpochSampler::new(SAMPLES, &config, 5, 0);
        epoch.set_weights(Some(weights));
        let drawn: Vec<_> = std::iter::from_fn(|| epoch.next(&graph)).flat_map(|draw| draw.ids).collect();
        assert_eq!((drawn.len(), drawn.iter().collect::<HashSet<_>>().len()), (SAMPLES, SAMPLES));
        let mean = |ids: &[SampleId]| ids.iter().map(|id| ranks[id.index()]).sum::<f64>() / ids.len() as f64;
        if starts == BATCH {
            let (early, late) = (mean(&drawn[..SAMPLES / 4]), mean(&drawn[SAMPLES * 3 / 4..]));
            assert!(early > 0.7 && late < 0.3, "{early} {late}");
        }
    }
}

fn with_weights(column: &str, weights: ArrayRef) -> PipelineBuilder {
    let rows = rows(SAMPLES);
    let columns = [("n", rows["n"].clone()), ("weight", weights)];
    let source = MemorySource::new(vec![RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    let walk = WalkConfig { weight_column: Some(column.to_owned()), ..walk_config(BATCH) };
    pipeline(SAMPLES, BATCH).source(source).walk(walk)
}

async fn first_ids(stream: &mut MiniBatchStream, n: usize) -> Vec<SampleId> {
    let mut starts = Vec::new();
    while starts.len() < n
        && let Some(mini_batch) = stream.try_next().await.unwrap()
    {
        starts.push(mini_batch.ids[0]);
    }
    starts
}

/// Half of the samples have weight 1. A start is one of the others only if all of four are, one time in sixteen.
#[tokio::test]
async fn a_column_weighs_samples() {
    let weights: ArrayRef = Arc::new(Float64Array::from_iter_values((0..SAMPLES).map(|n| f64::from(n as u32 % 2))));
    let mut stream = with_weights("weight", weights).start().await.unwrap();
    // Few are taken, so that the samples that remain stay alike.
    let starts = first_ids(&mut stream, 10).await;
    assert!(starts.iter().filter(|id| id.0 % 2 == 1).count() >= 8, "{starts:?}");

    let null: ArrayRef = Arc::new(Float64Array::from_iter((0..SAMPLES).map(|n| (n != 5).then_some(1.0))));
    let nan: ArrayRef = Arc::new(Float64Array::from_iter_values((0..SAMPLES).map(|n| 1.0 / (n as f64 - 7.0).abs())));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..SAMPLES).map(|n| n.to_string())));
    for (column, weights, says) in [
        ("weight", null, ["walk.weight_column", "null at sample 5"]),
        ("weight", nan, ["walk.weight_column", "inf at sample 7"]),
        ("weight", text.clone(), ["`weight`", "walk.weight_column needs numbers"]),
        ("wieght", text, ["`wieght`", "`weight`"]),
    ] {
        let error = with_weights(column, weights).start().await.unwrap_err().to_string();
        assert_says(&error, &says);
    }
    let walk = WalkConfig { sampler: SamplerKind::Clusters, weight_column: Some("n".into()), ..walk_config(BATCH) };
    let error = pipeline(SAMPLES, BATCH).walk(walk).start().await.unwrap_err().to_string();
    assert_says(&error, &["walk.weight_column", "random_walk"]);
}

/// Losses that depend on the sample alone: those of odd ones are greater.
fn loss(id: SampleId) -> f32 {
    (id.0 % 2) as f32 + id.0 as f32 / 10_000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_losses_weigh_from_the_next_refresh_on() {
    let stream = StreamConfig { epochs: 9, prefetch: 1, ..StreamConfig::default() };
    let mut stream = pipeline(SAMPLES, BATCH).stream(stream).start().await.unwrap();
    first_ids(&mut stream, 25).await;
    let all: Vec<_> = (0..SAMPLES).map(SampleId::new).collect();
    let handle = stream.handle();
    handle.push_losses(&all, &all.iter().map(|&id| loss(id)).collect::<Vec<_>>()).unwrap();
    // Nothing but the losses is new, and that is enough for a new snapshot.
    let refreshed = handle.refresh_now().await.unwrap();
    assert!(!refreshed.skipped && refreshed.pushed == 0);
    // The rest of the epoch, and what was made before.
    first_ids(&mut stream, 7).await;
    let starts = first_ids(&mut stream, 10).await;
    assert!(starts.iter().filter(|id| id.0 % 2 == 1).count() >= 8, "{starts:?}");

    // A later loss of a sample counts: even ones are greater now. Others keep theirs.
    let (even, losses): (Vec<_>, Vec<_>) = all.iter().filter(|id| id.0 % 2 == 0).map(|&id| (id, 9.0)).unzip();
    handle.push_losses(&even, &losses).unwrap();
    handle.refresh_now().await.unwrap();
    first_ids(&mut stream, 20).await;
    let starts = first_ids(&mut stream, 10).await;
    assert!(starts.iter().filter(|id| id.0 % 2 == 0).count() >= 8, "{starts:?}");

    for (ids, losses, says) in [
        (vec![SampleId(3)], vec![1.0, 2.0], "2"),
        (vec![SampleId(3), SampleId(600)], vec![1.0, 2.0], "600"),
        (vec![SampleId(3)], vec![f32::NAN], "NaN"),
    ] {
        assert_says(&handle.push_losses(&ids, &losses).unwrap_err().to_string(), &[says]);
    }
    let walk = WalkConfig { sampler: SamplerKind::Communities, ..walk_config(BATCH) };
    let stream = pipeline(SAMPLES, BATCH).walk(walk).start().await.unwrap();
    let error = stream.handle().push_losses(&[SampleId(1)], &[1.0]).unwrap_err().to_string();
    assert_says(&error, &["walk.sampler", "knn"]);
}

/// The exact graph over embeddings that stay is the old one again; losses are new all the same.
#[tokio::test(flavor = "multi_thread")]
async fn losses_are_taken_where_the_graph_cannot_change() {
    let graph = GraphConfig { builder: GraphBuilder::Exact, neighbors: Some(10), ..GraphConfig::default() };
    let stream = pipeline(SAMPLES, BATCH).graph(graph).start().await.unwrap();
    let handle = stream.handle();
    assert!(handle.refresh_now().await.unwrap().skipped);
    handle.push_losses(&[SampleId(1)], &[1.0]).unwrap();
    assert!(!handle.refresh_now().await.unwrap().skipped);
    assert!(handle.refresh_now().await.unwrap().skipped);
}

type Seen = (u64, Option<GraphVersion>, Vec<SampleId>);

/// Pushes the losses of each mini-batch, and now and then vectors, as a trainer does.
async fn train(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < n
        && let Some(m) = stream.try_next().await.unwrap()
    {
        let mut generator = ChaCha8Rng::seed_from_u64(m.step);
        let losses: Vec<f32> = m.ids.iter().map(|_| generator.random_range(0.0..5.0)).collect();
        stream.handle().push_losses(&m.ids, &losses).unwrap();
        if m.step % 3 == 0 {
            let vectors: Vec<f32> = (0..8 * m.ids.len()).map(|_| generator.random_range(-1.0..1.0)).collect();
            stream.handle().push_embeddings(&m.ids, &vectors).unwrap();
        }
        seen.push((m.step, m.graph_version, m.ids));
    }
    seen
}

/// With a state that is kept at any step: in a warm-up, before the first losses are in a graph, and later.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_losses_is_resumed() {
    let dir = TempDir::new().unwrap();
    let builder = |name: &str, warm_up: Option<WarmUp>| {
        let refresh = RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
        pipeline(SAMPLES, BATCH)
            .walk(WalkConfig { warm_up, ..walk_config(BATCH) })
            .refresh(refresh)
            .stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(dir.path().join(name)), ..CheckpointConfig::default() })
    };
    for warm_up in [None, Some(WarmUp::Steps(8))] {
        let whole = train(&mut builder(&format!("{warm_up:?}"), warm_up).start().await.unwrap(), usize::MAX).await;
        assert_eq!(whole.len(), 60);
        let without = {
            let mut stream = builder(&format!("{warm_up:?} without"), warm_up).start().await.unwrap();
            let mut ids = Vec::new();
            while let Some(m) = stream.try_next().await.unwrap() {
                ids.push(m.ids);
            }
            ids
        };
        assert!(whole.iter().map(|seen| &seen.2).ne(&without), "losses change nothing");
        for step in (1..60).step_by(6) {
            let name = format!("{warm_up:?} {step}");
            let mut stream = builder(&name, warm_up).start().await.unwrap();
            let mut seen = train(&mut stream, step).await;
            let state = stream.state();
            stream.handle().keep(&state).await.unwrap();
            drop(stream);
            let mut resumed = builder(&name, warm_up).resume(state).start().await.unwrap();
            seen.extend(train(&mut resumed, usize::MAX).await);
            assert!(seen == whole, "{name}");
        }
    }

    // The newest snapshot has its losses, too.
    let mut stream = builder("latest", None).start().await.unwrap();
    train(&mut stream, 40).await;
    let state = stream.state();
    stream.handle().keep(&state).await.unwrap();
    drop(stream);
    let latest = CheckpointConfig {
        dir: Some(dir.path().join("latest")),
        resume: Resume::Latest,
        ..CheckpointConfig::default()
    };
    let mut resumed = builder("latest", None).checkpoint(latest).resume(state).start().await.unwrap();
    assert!(!train(&mut resumed, usize::MAX).await.is_empty());
}
