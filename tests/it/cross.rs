//! Rows that are pairs, compared crosswise: each one's anchor with the other's positive, against plain loops in f64.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::config::{
    CheckpointConfig, EncodeConfig, GraphBuilder, GraphConfig, GraphOver, GuardsConfig, PairsConfig, Precision,
    Provider, RefreshConfig, Similarity, Storage, StreamConfig,
};
use prosampler::device::OnnxDevice;
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{self, HnswIndex, ProximityGraph, insert, refine, remove};
use prosampler::{GraphVersion, MiniBatch, ModelVersion, PipelineConfig, SampleId};
use tempfile::TempDir;

use crate::support::pairs::{PAIRS, PairOracle, pair_encoder, pair_pipeline, pair_vectors};
use crate::support::{DIMENSION, assert_says, graph_config, vectors};

/// Vectors of anchors and positives side by side. `likeness` is how far a positive follows its anchor.
fn halves(len: usize, d: usize, likeness: f32) -> Vec<f32> {
    let (anchors, others) = (vectors(len, d, 30, 4), vectors(len, d, 30, 5));
    let pairs = anchors.chunks_exact(d).zip(others.chunks_exact(d));
    let pair = |(anchor, other): (&[f32], &[f32])| {
        let positive = anchor.iter().zip(other).map(|(a, o)| likeness * a + (1.0 - likeness) * o);
        // Lengths say nothing.
        anchor.iter().map(|x| x * 3.0).chain(positive.map(|x| x * 0.25)).collect::<Vec<_>>()
    };
    pairs.flat_map(pair).collect()
}

fn table_of(mut vectors: Vec<f32>, d: usize, storage: Storage) -> EmbeddingTable {
    let samples = vectors.len() / (2 * d);
    let mut table = EmbeddingTable::with_capacity(samples, 2 * d, storage, Similarity::Cross, ModelVersion(1)).unwrap();
    table.push(&mut vectors).unwrap();
    table
}

/// How far the rounding of a storage moves a similarity, at most.
fn rounding(storage: Storage) -> f64 {
    match storage {
        Storage::F32 => 1e-5,
        Storage::F16 => 1e-3,
        Storage::I8 => 0.02,
    }
}

#[test]
fn similarities_are_the_mean_of_both_directions() {
    let (len, d) = (90, 7);
    let vectors = halves(len, d, 0.5);
    let oracle = PairOracle::new(&vectors, d);
    for storage in [Storage::F32, Storage::F16, Storage::I8] {
        let table = table_of(vectors.clone(), d, storage);
        let near = |x: f32, y: f64| assert!((f64::from(x) - y).abs() < rounding(storage), "{storage:?}: {x} and {y}");
        let ids: Vec<_> = (0..len).map(SampleId::new).collect();
        for a in 0..len {
            let mut row = Vec::new();
            table.similarities_with(&table.get(ids[a]), &ids, &mut row);
            for b in 0..len {
                near(table.similarity_of(ids[a], ids[b]), oracle.similarity(a, b));
                near(row[b], oracle.similarity(a, b));
            }
        }
        let all = (0..len).flat_map(|a| (0..a).map(move |b| (a, b)));
        let mean = all.clone().map(|(a, b)| oracle.similarity(a, b)).sum::<f64>() / all.count() as f64;
        near(table.mean_similarity(&ids), mean);
        let dir = TempDir::new().unwrap();
        table.save(dir.path().join("t.arrow")).unwrap();
        assert_eq!(EmbeddingTable::map(dir.path().join("t.arrow")).unwrap(), table);
    }
    assert!(EmbeddingTable::new(vec![1.0; 9], 3, Similarity::Cross, ModelVersion(1)).is_err());
    let one_half = vec![1.0, 2.0, 0.0, 0.0];
    assert!(EmbeddingTable::new(one_half, 4, Similarity::Cross, ModelVersion(1)).is_err());
}

#[test]
fn a_replaced_vector_replaces_the_similarity_of_its_pair() {
    let vectors = halves(20, 6, 0.5);
    let mut table = table_of(vectors.clone(), 6, Storage::F32);
    table.push_pair_similarities(&[0.0; 20]);
    table.replace(SampleId(3), &mut vectors[12 * 5..12 * 6].to_vec()).unwrap();
    let oracle = PairOracle::new(&vectors, 6);
    assert!((f64::from(table.pair_similarity(SampleId(3)).unwrap()) - oracle.similarity(5, 5)).abs() < 1e-6);
    assert_eq!(table.pair_similarity(SampleId(4)), Some(0.0));
}

/// Asserts that the lists have the true similarities, and returns the share of the nearest that they have.
fn check(graph: &ProximityGraph, oracle: &PairOracle, tolerance: f64) -> f64 {
    let (mut found, k) = (0, graph.degree());
    for row in 0..graph.len() {
        let id = SampleId::new(row);
        let neighbors: HashSet<_> = graph.neighbors(id).iter().collect();
        assert!(neighbors.len() == k && !neighbors.contains(&id), "{id}");
        let least = oracle.sorted(row)[k - 1] - tolerance;
        for (neighbor, &similarity) in graph.neighbors(id).iter().zip(graph.similarities(id)) {
            let expected = oracle.similarity(row, neighbor.index());
            assert!((f64::from(similarity) - expected).abs() < tolerance, "{id}: {similarity} and {expected}");
            found += usize::from(expected >= least);
        }
    }
    found as f64 / (graph.len() * k) as f64
}

fn config(builder: GraphBuilder, precision: Precision, candidates: usize) -> GraphConfig {
    GraphConfig { builder, precision, ..graph_config(candidates, 10) }
}

/// Halves are no whole number of words in any format.
#[test]
fn every_builder_finds_the_nearest_by_both_directions() {
    for (likeness, d) in [(0.7, 48), (0.0, 37)] {
        let vectors = halves(1500, d, likeness);
        let oracle = PairOracle::new(&vectors, d);
        for storage in [Storage::F32, Storage::F16, Storage::I8] {
            let table = table_of(vectors.clone(), d, storage);
            let share = |config: &GraphConfig| {
                let graph = graph::build(&table, config, 1, GraphVersion(1)).unwrap();
                check(&graph, &oracle, rounding(storage))
            };
            for precision in [Precision::F32, Precision::Bf16, Precision::I8] {
                let found = share(&config(GraphBuilder::Exact, precision, 10));
                assert!(found > 0.999, "exact, {precision:?}, {storage:?}: {found}");
                let found = share(&config(GraphBuilder::Sampled, precision, 2000));
                assert!(found > 0.999, "all candidates, {precision:?}, {storage:?}: {found}");
                // A tenth of the others are candidates; the rounding of i8 makes more of them count as nearest.
                let found = share(&config(GraphBuilder::Sampled, precision, 150));
                assert!((0.08..0.3).contains(&found), "sampled, {precision:?}, {storage:?}: {found}");
            }
        }
        let table = table_of(vectors.clone(), d, Storage::F32);
        for (builder, least) in [(GraphBuilder::NnDescent, 0.96), (GraphBuilder::Hnsw, 0.9)] {
            let graph = graph::build(&table, &config(builder, Precision::Auto, 10), 1, GraphVersion(1)).unwrap();
            let found = check(&graph, &oracle, 1e-5);
            println!("{builder:?}, likeness {likeness}: {found}");
            assert!(found > least, "{builder:?}, likeness {likeness}: {found}");
        }
    }
}

/// More samples than one cell has, so that cells must bring near ones together.
#[test]
fn descent_finds_the_nearest_among_many() {
    for (likeness, least) in [(0.7, 0.96), (0.3, 0.9), (0.0, 0.75)] {
        let table = table_of(halves(9000, 24, likeness), 24, Storage::F32);
        let config = config(GraphBuilder::NnDescent, Precision::F32, 10);
        let graph = graph::build(&table, &config, 1, GraphVersion(1)).unwrap();
        let recall = graph::recall(&graph, &table, 512, 3);
        println!("likeness {likeness}: recall {recall}");
        assert!(recall > least, "likeness {likeness}: recall {recall}");
    }
}

/// Candidates are drawn alike, so the best of them are those of the builder on a device.
#[test]
fn devices_and_updates_know_the_other_side() {
    let d = 20;
    let vectors = halves(900, d, 0.6);
    let oracle = PairOracle::new(&vectors, d);
    let table = table_of(vectors.clone(), d, Storage::F32);
    let device = OnnxDevice::new(Provider::Cpu, &EncodeConfig::default());
    for (config, least) in [
        (config(GraphBuilder::Exact, Precision::F32, 10), 0.999),
        (config(GraphBuilder::Exact, Precision::Bf16, 10), 0.999),
        (config(GraphBuilder::Sampled, Precision::F32, 200), 0.15),
    ] {
        let on_device = graph::build_on(&device, &table, &config, 7, GraphVersion(1)).unwrap();
        assert!(check(&on_device, &oracle, 1e-4) > least);
        let expected = graph::build(&table, &config, 7, GraphVersion(1)).unwrap();
        let same = (0..900).map(SampleId::new).filter(|&id| expected.neighbors(id) == on_device.neighbors(id)).count();
        assert!(same > 880, "{same} lists are the same");
    }

    let exact = config(GraphBuilder::Exact, Precision::F32, 10);
    let some = table_of(vectors[..2 * d * 700].to_vec(), d, Storage::F32);
    let old = graph::build(&some, &exact, 1, GraphVersion(1)).unwrap();
    let grown = insert(&old, &table, &exact, GraphVersion(2)).unwrap();
    assert!(check(&grown, &oracle, 1e-5) > 0.999);
    let last: Vec<_> = (700..900).map(SampleId::new).collect();
    let shrunk = remove(&grown, &table, &last, GraphVersion(3)).unwrap();
    assert!(check(&shrunk, &PairOracle::new(&vectors[..2 * d * 700], d), 1e-5) > 0.9);
    let descent = config(GraphBuilder::NnDescent, Precision::F32, 10);
    let refined = refine(&grown, &table, &descent, 1, GraphVersion(4)).unwrap();
    assert!(!refined.rebuilt && refined.kept > 0.999, "{refined:?}");
    assert!(check(&refined.graph, &oracle, 1e-5) > 0.97);
}

#[test]
fn a_query_has_both_sides() {
    let d = 16;
    let vectors = halves(800, d, 0.8);
    let oracle = PairOracle::new(&vectors, d);
    let index = HnswIndex::build(&Arc::new(table_of(vectors.clone(), d, Storage::F32)), 3);
    for row in (0..800).step_by(40) {
        let found = index.search(&vectors[row * 2 * d..][..2 * d], 5).unwrap();
        for (id, similarity) in &found {
            assert!((f64::from(*similarity) - oracle.similarity(row, id.index())).abs() < 1e-5);
        }
        assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_compare_both_directions() {
    let (_, oracle) = pair_vectors();
    for storage in [Storage::F32, Storage::F16, Storage::I8] {
        for guards in [
            GuardsConfig { max_similarity: Some(0.4), ..GuardsConfig::default() },
            GuardsConfig { max_relative_to_positive: Some(0.95), ..GuardsConfig::default() },
        ] {
            let encode = EncodeConfig { storage, ..EncodeConfig::default() };
            let mut stream = pair_pipeline().encode(encode).guards(guards.clone()).start().await.unwrap();
            let snapshot = stream.snapshot().unwrap();
            assert_eq!(
                (snapshot.embeddings.similarity(), snapshot.embeddings.dimension()),
                (Similarity::Cross, 2 * DIMENSION)
            );
            let mut counts = prosampler::walk::WalkCounts::default();
            while let Some(mini_batch) = stream.try_next().await.unwrap() {
                counts += mini_batch.counts;
                let others = mini_batch.ids.iter().chain(mini_batch.negatives.iter().flatten());
                let pairs = mini_batch.ids.iter().flat_map(|a| others.clone().map(move |b| (a.index(), b.index())));
                for (a, b) in pairs.filter(|(a, b)| a != b) {
                    let similarity = oracle.similarity(a, b) - rounding(storage);
                    let share = |pair: f64| guards.max_relative_to_positive.map(|share| share * pair);
                    let relative = [a, b].map(|row| oracle.similarity(row, row)).into_iter().filter(|pair| *pair > 0.0);
                    let bounds = relative.filter_map(share).chain(guards.max_similarity);
                    bounds.for_each(|bound| assert!(similarity <= bound, "{a}, {b}: {similarity} and {bound}"));
                }
                let ids = &mini_batch.ids;
                let all = (0..ids.len()).flat_map(|a| (0..a).map(move |b| (ids[a].index(), ids[b].index())));
                let mean = all.clone().map(|(a, b)| oracle.similarity(a, b)).sum::<f64>() / all.count() as f64;
                let found = f64::from(mini_batch.similarity.unwrap());
                assert!(ids.len() < 2 || (found - mean).abs() < rounding(storage), "{found} and {mean}");
            }
            assert!(counts.refused_similar + counts.refused_relative > 100, "{counts:?}");
        }
    }
}

/// What a mini-batch is made of.
type Seen = (u64, Option<u64>, Vec<SampleId>, Option<f32>);

async fn take(stream: &mut prosampler::MiniBatchStream, n: usize, pushed: &[f32]) -> Vec<Seen> {
    let handle = stream.handle();
    let mut seen = Vec::new();
    while seen.len() < n
        && let Some(MiniBatch { step, graph_version, ids, similarity, .. }) = stream.try_next().await.unwrap()
    {
        // The trainer's vectors: those of the next row.
        let of = |id: &SampleId| &pushed[(id.index() + 1) % PAIRS * 2 * DIMENSION..][..2 * DIMENSION];
        handle.push_embeddings(&ids, &ids.iter().flat_map(of).copied().collect::<Vec<_>>()).unwrap();
        seen.push((step, graph_version.map(|version| version.0), ids, similarity));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_with_pushed_pairs_is_the_uninterrupted_one() {
    let (vectors, oracle) = pair_vectors();
    let dir = TempDir::new().unwrap();
    let builder = |dir: &Path| {
        let refresh = RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
        let guards = GuardsConfig { max_relative_to_positive: Some(0.95), ..GuardsConfig::default() };
        pair_pipeline()
            .guards(guards)
            .refresh(refresh)
            .stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(dir.into()), ..CheckpointConfig::default() })
    };
    let mut stream = builder(&dir.path().join("whole")).start().await.unwrap();
    let whole = take(&mut stream, usize::MAX, &vectors).await;
    assert!(whole.last().unwrap().1 > Some(3));
    // Pushed vectors say how similar their pairs are.
    let snapshot = stream.snapshot().unwrap();
    let next = |row: usize| oracle.similarity((row + 1) % PAIRS, (row + 1) % PAIRS);
    let pair = |row: usize| f64::from(snapshot.embeddings.pair_similarity(SampleId::new(row)).unwrap());
    let replaced = (0..PAIRS).filter(|&row| (pair(row) - next(row)).abs() < 1e-5).count();
    assert!(replaced > PAIRS / 2, "{replaced}");
    drop(stream);

    let dir = dir.path().join("parts");
    let mut all = take(&mut builder(&dir).start().await.unwrap(), 0, &vectors).await;
    let mut state = None;
    for part in [17, 12, 29, usize::MAX] {
        let builder = builder(&dir);
        let mut stream = match state {
            Some(state) => builder.resume(state).start().await.unwrap(),
            None => builder.start().await.unwrap(),
        };
        all.extend(take(&mut stream, part, &vectors).await);
        let now = stream.state();
        stream.handle().keep(&now).await.unwrap();
        state = Some(now);
    }
    assert!(all == whole, "{} and {} mini-batches", all.len(), whole.len());
    let other = builder(&dir).encoder(pair_encoder(GraphOver::Mean)).pairs(PairsConfig {
        anchor: Some("question".into()),
        positive: Some("answer".into()),
        ..PairsConfig::default()
    });
    let error = other.resume(state.unwrap()).start().await.unwrap_err().to_string();
    assert!(error.contains("graph_over"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_compared_crosswise_is_refused() {
    let error = pair_pipeline().encoder(pair_encoder(GraphOver::Mean)).start().await.unwrap_err();
    assert_says(&error.to_string(), &["pairs.graph_over", "GraphOver::Cross"]);
    let pairs = PairsConfig {
        anchor: Some("question".into()),
        positive: Some("answer".into()),
        graph_over: GraphOver::Mean,
        ..PairsConfig::default()
    };
    let error = pair_pipeline().pairs(pairs).start().await.unwrap_err();
    assert_says(&error.to_string(), &["pairs.graph_over", "one behind the other"]);
    let text = "source.uri = 'a.parquet'\npairs = { anchor = 'a', positive = 'p', graph_over = 'cross' }\n\
                graph.similarity = 'dot'\nguards.duplicate_similarity = 0.99\n";
    let error = PipelineConfig::from_toml(text).unwrap_err().to_string();
    assert_says(
        &error,
        &["graph.similarity", "leave it out", "guards.duplicate_similarity", "max_relative_to_positive"],
    );
    let error = PipelineConfig::from_toml("graph.similarity = 'cross'").unwrap_err().to_string();
    assert_says(&error, &["graph.similarity", "cosine"]);
}
