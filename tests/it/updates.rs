//! A graph that is updated with a changing data set stays as good as one that is built anew.

use proptest::prelude::*;
use prosampler::config::{GraphBuilder, GraphConfig, Precision, Similarity};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{self, ProximityGraph};
use prosampler::{GraphVersion, ModelVersion, SampleId};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use crate::support::{table, vectors};

fn config(neighbors: usize) -> GraphConfig {
    let builder = GraphBuilder::Exact;
    GraphConfig {
        builder,
        neighbors: Some(neighbors),
        candidates: neighbors.into(),
        precision: Precision::F32,
        ..GraphConfig::default()
    }
}

fn exact(table: &EmbeddingTable, neighbors: usize, version: u64) -> ProximityGraph {
    graph::build(table, &config(neighbors), 1, GraphVersion(version)).unwrap()
}

/// The rows of a table at these indices.
fn some(table: &EmbeddingTable, ids: impl Iterator<Item = SampleId>) -> EmbeddingTable {
    let vectors = ids.flat_map(|id| table.get(id).into_owned()).collect();
    EmbeddingTable::new(vectors, table.dimension(), Similarity::Dot, ModelVersion(1)).unwrap()
}

fn dot(len: usize, seed: u64) -> EmbeddingTable {
    EmbeddingTable::new(vectors(len, 16, 7, seed), 16, Similarity::Dot, ModelVersion(1)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn inserting_gives_what_building_gives(old in 2usize..1500, new in 0usize..1300, k in 1usize..40, seed: u64) {
        let all = dot(old + new, seed % 1000);
        let before = some(&all, (0..old).map(SampleId::new));
        let inserted = graph::insert(&exact(&before, k, 1), &all, &config(k), GraphVersion(2)).unwrap();
        prop_assert_eq!(inserted, exact(&all, k, 2));
    }

    #[test]
    fn removing_leaves_a_graph_of_the_rest(len in 3usize..600, share in 0.0f64..1.0, k in 1usize..20, seed: u64) {
        let all = dot(len, seed % 1000);
        let mut ids: Vec<_> = (0..len).map(SampleId::new).collect();
        ids.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let (removed, rest) = ids.split_at(((len - 2) as f64 * share) as usize);
        let graph = graph::remove(&exact(&all, k, 1), &all, removed, GraphVersion(2)).unwrap();
        let mut rest = rest.to_vec();
        rest.sort_unstable();
        let rest = some(&all, rest.into_iter());
        let truth = graph::exact(&rest, k, GraphVersion(2)).unwrap();
        prop_assert_eq!((graph.len(), graph.degree()), (rest.len(), truth.degree()));
        for id in (0..rest.len()).map(SampleId::new) {
            let neighbors = graph.neighbors(id);
            let mut once = neighbors.to_vec();
            once.sort_unstable();
            once.dedup();
            prop_assert!(once.len() == neighbors.len() && !once.contains(&id));
            prop_assert!(graph.similarities(id).is_sorted_by(|a, b| a >= b));
            for (&neighbor, similarity) in neighbors.iter().zip(graph.similarities(id)) {
                prop_assert!((rest.similarity_of(id, neighbor) - similarity).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn removing_keeps_the_nearest() {
    let all = table(3000, 96, 30, 4);
    for every in [100, 10, 3] {
        let removed: Vec<_> = (0..3000).step_by(every).map(SampleId::new).collect();
        let graph = graph::remove(&exact(&all, 10, 1), &all, &removed, GraphVersion(2)).unwrap();
        let rest = (0..3000).filter(|i| i % every != 0).map(SampleId::new);
        let recall = graph::recall(&graph, &some(&all, rest), 500, 1);
        println!("1 of {every} removed: recall {recall}");
        assert!(recall > 0.98, "1 of {every} removed: recall {recall}");
    }
}

/// With moderate M the neighbors have the ranks that M random candidates give, after any number of updates: among N
/// others the k-th neighbor has rank k (N + 1) / (M + 1) on average. A warm start would lower it with each update.
#[test]
fn updates_of_a_sampled_graph_keep_the_ranks_of_m_candidates() {
    let (len, candidates, k) = (1501, 150, 10);
    let mut table = table(len, 24, 12, 9);
    let config = GraphConfig { candidates: candidates.into(), neighbors: Some(k), ..GraphConfig::default() };
    for version in 1..=6 {
        let graph = graph::build(&table, &config, 3, GraphVersion(version)).unwrap();
        let mut ranks = vec![0usize; k];
        for id in (0..len).map(SampleId::new) {
            let others = (0..len).map(SampleId::new).filter(|other| *other != id);
            let mut all: Vec<_> = others.map(|other| (table.similarity_of(id, other), other)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut rank = vec![0; len];
            all.iter().zip(1..).for_each(|((_, other), place)| rank[other.index()] = place);
            graph.neighbors(id).iter().zip(&mut ranks).for_each(|(n, sum)| *sum += rank[n.index()]);
        }
        for (k, sum) in (1..).zip(ranks) {
            let (mean, expected) = (sum as f64 / len as f64, (k * len) as f64 / (candidates + 1) as f64);
            // The k-th rank of one sample scatters by √k N / M; those of samples that share candidates do so together.
            let scatter = f64::from(k as u32).sqrt() * len as f64 / candidates as f64;
            let off = (mean - expected).abs() / (scatter / (len as f64 / 7.0).sqrt());
            assert!(off < 4.5, "version {version}, neighbor {k}: mean rank {mean}, expected {expected}");
        }
        let noise = vectors(len, 24, 1, version);
        let moved = (0..len).flat_map(|i| table.get(SampleId::new(i)).into_owned()).zip(noise);
        let moved = moved.map(|(x, noise)| x + 0.05 * noise).collect();
        table = EmbeddingTable::new(moved, 24, Similarity::Cosine, ModelVersion(version + 1)).unwrap();
    }
}
