//! The proximity graph is the one of brute force, and its candidates are as random as if drawn row by row.

use proptest::prelude::*;
use prosampler::config::{GraphConfig, Similarity};
use prosampler::embeddings::EmbeddingTable;
use prosampler::error::{ArgumentError, EmbeddingError, TooFewError};
use prosampler::graph::{self, ProximityGraph};
use prosampler::{Error, GraphVersion, ModelVersion, SampleId};

use crate::support::{graph_config, table, vectors};

fn ids(table: &EmbeddingTable) -> impl Iterator<Item = SampleId> + use<> {
    (0..table.len()).map(SampleId::new)
}

/// K distinct others, best first, with their true similarities.
fn assert_sound(graph: &ProximityGraph, table: &EmbeddingTable, k: usize) {
    assert_eq!((graph.len(), graph.degree()), (table.len(), k));
    for id in ids(table) {
        let (neighbors, similarities) = (graph.neighbors(id), graph.similarities(id));
        let mut distinct = neighbors.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), k, "{id} has a neighbor twice");
        assert!(!distinct.contains(&id), "{id} neighbors itself");
        for (pair, two) in neighbors.windows(2).zip(similarities.windows(2)) {
            assert!(two[0] > two[1] || (two[0] == two[1] && pair[0] < pair[1]), "{id} is out of order");
        }
        for (&neighbor, &similarity) in neighbors.iter().zip(similarities) {
            assert!((similarity - table.similarity_of(id, neighbor)).abs() < 1e-4);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// If all other samples are candidates, the graph is exact, for all odd sizes of tiles, panels and blocks.
    #[test]
    fn all_candidates_give_the_exact_graph(len in 2usize..500, dimension in 2usize..40, k in 1usize..30, seed: u64) {
        let table = table(len, dimension, 5, seed);
        let k = k.min(len - 1);
        let graph = graph::build(&table, &graph_config(len.max(k), k), seed, GraphVersion(1)).unwrap();
        assert_sound(&graph, &table, k);
        let exact = graph::exact(&table, k, GraphVersion(1)).unwrap();
        for id in ids(&table) {
            // The two sum in a different order, so near ties may swap; the similarities must agree.
            for (a, b) in graph.similarities(id).iter().zip(exact.similarities(id)) {
                prop_assert!((a - b).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn any_size_is_sound(len in 2usize..400, candidates in 1usize..500, k in 1usize..60, seed: u64) {
        let table = table(len, 7, 5, seed);
        let (candidates, k) = (candidates.max(k), k);
        let graph = graph::build(&table, &graph_config(candidates, k), seed, GraphVersion(1)).unwrap();
        assert_sound(&graph, &table, k.min(len - 1));
    }
}

/// With M = K every candidate is kept, so the neighbors are the candidates.
#[test]
fn candidates_are_a_uniform_subset_without_self() {
    let (len, candidates, builds) = (150usize, 40usize, 600u64);
    let table = table(len, 4, 3, 2);
    let config = graph_config(candidates, candidates);
    let mut counts = vec![0u32; len * len];
    for seed in 0..builds {
        let graph = graph::build(&table, &config, seed, GraphVersion(1)).unwrap();
        assert_eq!(graph.degree(), candidates);
        for id in ids(&table) {
            for other in graph.neighbors(id) {
                counts[id.index() * len + other.index()] += 1;
            }
        }
    }
    // Each of the N − 1 others is included with probability M / (N − 1).
    let p = candidates as f64 / (len - 1) as f64;
    let (mean, deviation) = (builds as f64 * p, (builds as f64 * p * (1.0 - p)).sqrt());
    let z = |count: u32| (f64::from(count) - mean) / deviation;
    let others = || (0..len * len).filter(|i| i / len != i % len).map(|i| z(counts[i]));
    assert!((0..len).all(|i| counts[i * len + i] == 0));
    // 22,350 values of a standard normal: the largest is around 4, and their variance around 1.
    let worst = others().fold(0f64, |worst, z| worst.max(z.abs()));
    assert!(worst < 5.5, "the most unlikely pair is {worst} standard deviations off");
    let variance = others().map(|z| z * z).sum::<f64>() / (len * (len - 1)) as f64;
    assert!((0.9..1.1).contains(&variance), "{variance}");
}

/// The variance of the in-degrees, and the number of samples in no neighbor list.
fn in_degrees(graph: &ProximityGraph) -> (f64, f64) {
    let mut degrees = vec![0f64; graph.len()];
    for id in (0..graph.len()).map(SampleId::new) {
        graph.neighbors(id).iter().for_each(|n| degrees[n.index()] += 1.0);
    }
    let mean = graph.degree() as f64;
    let variance = degrees.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / graph.len() as f64;
    (variance, degrees.iter().filter(|&&d| d == 0.0).count() as f64)
}

/// In-degrees do not show that the rows of a block share their candidates.
#[test]
fn in_degrees_are_those_of_candidates_drawn_row_by_row() {
    let table = table(20_000, 16, 200, 9);
    for (candidates, neighbors) in [(1000, 4), (1000, 16), (1000, 100), (100, 10)] {
        let config = graph_config(candidates, neighbors);
        let fast = in_degrees(&graph::build(&table, &config, 1, GraphVersion(1)).unwrap());
        let reference = in_degrees(&graph::build_per_row(&table, &config, 1, GraphVersion(1)).unwrap());
        println!("M = {candidates}, K = {neighbors}: (variance, without in-edges) {fast:?}, row by row {reference:?}");
        assert!((fast.0 / reference.0 - 1.0).abs() < 0.15);
        // Counts of rare events scatter by their square root.
        assert!((fast.1 - reference.1).abs() <= 0.15 * reference.1 + 3.0 * (fast.1 + reference.1).sqrt());
    }
}

/// More candidates give more similar neighbors, as in the paper, with the same mean on both paths.
#[test]
fn similarity_grows_with_candidates_alike_on_both_paths() {
    let table = table(3000, 16, 30, 5);
    let mean = |graph: &ProximityGraph| {
        let all = ids(&table).flat_map(|id| graph.similarities(id).to_vec()).map(f64::from);
        all.sum::<f64>() / (table.len() * graph.degree()) as f64
    };
    let mut last = f64::NEG_INFINITY;
    for candidates in [10, 100, 1000, 2999] {
        let config = graph_config(candidates, 10);
        let fast = mean(&graph::build(&table, &config, 3, GraphVersion(1)).unwrap());
        let reference = mean(&graph::build_per_row(&table, &config, 3, GraphVersion(1)).unwrap());
        assert!((fast - reference).abs() < 0.01, "{candidates} candidates: {fast} against {reference}");
        assert!(fast > last);
        last = fast;
    }
}

#[test]
fn ties_go_to_the_lower_id() {
    let table = EmbeddingTable::new([1.0, 0.0].repeat(100), 2, Similarity::Cosine, ModelVersion(1)).unwrap();
    let graph = graph::build(&table, &graph_config(99, 3), 5, GraphVersion(1)).unwrap();
    assert_eq!(graph.neighbors(SampleId(0)), [SampleId(1), SampleId(2), SampleId(3)]);
    assert_eq!(graph.neighbors(SampleId(50)), [SampleId(0), SampleId(1), SampleId(2)]);
}

#[test]
fn dot_similarity_prefers_length() {
    let vectors = vec![1.0, 0.0, 10.0, 5.0, 2.0, 0.0, -1.0, 0.0];
    let table = EmbeddingTable::new(vectors, 2, Similarity::Dot, ModelVersion(1)).unwrap();
    let config = GraphConfig { similarity: Similarity::Dot, ..graph_config(3, 2) };
    let graph = graph::build(&table, &config, 5, GraphVersion(1)).unwrap();
    assert_eq!(graph.neighbors(SampleId(0)), [SampleId(1), SampleId(2)]);
    assert_eq!(graph.similarities(SampleId(0)), [10.0, 2.0]);
}

#[test]
fn embeddings_without_a_similarity_are_refused_by_name() {
    let new = |change: fn(&mut Vec<f32>), similarity| {
        let mut vectors = vectors(10, 4, 2, 1);
        change(&mut vectors);
        EmbeddingTable::new(vectors, 4, similarity, ModelVersion(1)).unwrap_err()
    };
    let error = new(|v| v[22] = f32::NAN, Similarity::Cosine);
    assert!(
        matches!(error, Error::Embedding(EmbeddingError::NotFinite { sample: SampleId(5), component: 2, .. })),
        "{error}"
    );
    let error = new(|v| v[4..8].fill(0.0), Similarity::Cosine);
    assert!(matches!(error, Error::Embedding(EmbeddingError::BadLength { sample: SampleId(1), .. })), "{error}");
    let error = new(|v| v[36] = 1e30, Similarity::Dot);
    assert!(matches!(error, Error::Embedding(EmbeddingError::BadLength { sample: SampleId(9), .. })), "{error}");
    let error = new(|v| v.truncate(39), Similarity::Dot);
    assert!(matches!(error, Error::Argument(ArgumentError::Shape { found: 39, dimension: 4, .. })), "{error}");
}

#[test]
fn settings_that_do_not_fit_the_data_are_refused() {
    let two = table(2, 4, 1, 1);
    let old = graph::exact(&two, 1, GraphVersion(1)).unwrap();
    for (samples, candidates, neighbors, expected) in [
        (10, 5, 0, "graph.neighbors: must be at least 1"),
        (10, 5, 6, "graph.neighbors: is 6, but only 5 candidates are drawn"),
        (1, 5, 3, "has 1 row, but 2 are needed"),
    ] {
        let table = table(samples, 4, 1, 1);
        let config = graph_config(candidates, neighbors);
        let mut errors = vec![
            graph::build(&table, &config, 1, GraphVersion(1)).unwrap_err(),
            graph::build_per_row(&table, &config, 1, GraphVersion(1)).unwrap_err(),
        ];
        if samples > 1 {
            errors.push(graph::refine(&old, &table, &config, 1, GraphVersion(1)).unwrap_err());
            errors.push(graph::renew(&old, &table, &config, 1, GraphVersion(1)).unwrap_err());
            errors.push(graph::insert(&old, &table, &config, GraphVersion(1)).unwrap_err());
        }
        for error in errors {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
    assert!(matches!(graph::exact(&two, 0, GraphVersion(1)), Err(Error::Config(_))));
    let removed = |ids: &[SampleId]| graph::remove(&old, &two, ids, GraphVersion(2)).unwrap_err();
    assert!(matches!(removed(&[SampleId(0)]), Error::TooFew(TooFewError::Samples { found: 1, needed: 2, .. })));
    assert!(matches!(
        removed(&[SampleId(2)]),
        Error::Argument(ArgumentError::UnknownSample { sample: SampleId(2), len: 2 })
    ));
}

#[test]
fn mean_similarity_is_the_mean_over_pairs() {
    let table = table(50, 9, 4, 3);
    let some: Vec<_> = ids(&table).step_by(3).collect();
    let pairs = some.iter().enumerate().flat_map(|(i, &a)| some[..i].iter().map(move |&b| (a, b)));
    let similarities: Vec<_> = pairs.map(|(a, b)| f64::from(table.similarity_of(a, b))).collect();
    let mean = similarities.iter().sum::<f64>() / similarities.len() as f64;
    assert!((f64::from(table.mean_similarity(&some)) - mean).abs() < 1e-6);
    assert_eq!(table.mean_similarity(&some[..1]), 0.0);
}

#[test]
fn handmade_graphs_are_checked() {
    let edges = |n: &[u32]| n.iter().map(|&i| SampleId(i)).collect::<Vec<_>>();
    assert!(ProximityGraph::new(edges(&[1, 0]), vec![0.1; 2], 1, GraphVersion(1)).is_ok());
    let error = ProximityGraph::new(edges(&[1, 2]), vec![0.1; 2], 1, GraphVersion(1)).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::UnknownSample { sample: SampleId(2), len: 2 })));
    assert!(ProximityGraph::new(edges(&[1, 0, 1]), vec![0.1; 3], 2, GraphVersion(1)).is_err());
}
