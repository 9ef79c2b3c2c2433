//! Whatever part of an epoch has come, samples of high and of low in-degree have come as often as all others.

use prosampler::config::WalkConfig;
use prosampler::graph::ProximityGraph;
use prosampler::walk::EpochSampler;
use prosampler::{GraphVersion, SampleId};

use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::support::walk_config;

const SAMPLES: usize = 8000;
const DEGREE: usize = 16;

/// A graph of clusters of uneven sizes, in which low ids are hubs, more so with a larger `zipf`.
///
/// Of a sample's edges, a share `away` leads out of its cluster. With `zipf` = 1 neighbors are uniform; in-degrees fall
/// with the id to the power 1 / `zipf` − 1.
fn clustered(clusters: usize, zipf: f64, away: f64, seed: u64) -> ProximityGraph {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut members = vec![Vec::new(); clusters];
    let all: Vec<_> = (0..SAMPLES).collect();
    let homes: Vec<_> = all.iter().map(|_| (generator.random::<f64>().powi(2) * clusters as f64) as usize).collect();
    homes.iter().zip(&all).for_each(|(&home, &id)| members[home].push(id));
    let mut neighbors = Vec::new();
    for (id, &home) in homes.iter().enumerate() {
        for _ in 0..DEGREE {
            let among = if members[home].len() < 2 || generator.random_bool(away) { &all } else { &members[home] };
            let mut any = || among[(generator.random::<f64>().powf(zipf) * among.len() as f64) as usize];
            let neighbor = std::iter::repeat_with(&mut any).find(|&other| other != id);
            neighbors.push(SampleId::new(neighbor.unwrap()));
        }
    }
    let similarities = vec![0.5; neighbors.len()];
    ProximityGraph::new(neighbors, similarities, DEGREE, GraphVersion(1)).unwrap()
}

/// The tenths of samples with the lowest and with the highest in-degree, ties broken at random.
fn tenths(graph: &ProximityGraph, seed: u64) -> [Vec<SampleId>; 2] {
    let mut degrees = vec![0; graph.len()];
    let mut ids: Vec<_> = (0..graph.len()).map(SampleId::new).collect();
    ids.iter().flat_map(|&id| graph.neighbors(id)).for_each(|to| degrees[to.index()] += 1);
    ids.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    ids.sort_by_key(|id| degrees[id.index()]);
    [ids[..SAMPLES / 10].to_vec(), ids[SAMPLES - SAMPLES / 10..].to_vec()]
}

/// The percentages of both tenths that have come after a share of an epoch.
fn come(graph: &ProximityGraph, config: &WalkConfig, seed: u64, share: f64) -> [f64; 2] {
    let mut epoch = EpochSampler::new(SAMPLES, config, seed, 0);
    let mut has_come = vec![false; SAMPLES];
    for _ in 0..(share * (SAMPLES / config.batch_size) as f64) as usize {
        epoch.next(graph).unwrap().ids.iter().for_each(|id| has_come[id.index()] = true);
    }
    tenths(graph, seed).map(|tenth| {
        let came = tenth.iter().filter(|id| has_come[id.index()]).count();
        100.0 * came as f64 / tenth.len() as f64
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Of 800 samples that come independently of each other, the percentage has a standard deviation of 1.8. Walks may
    /// be 1 off on top of that, and bring whole clusters together. On 300 such graphs the largest deviation was 5.9.
    #[test]
    fn each_tenth_comes_as_fast_as_the_epoch(
        clusters in 1usize..60,
        zipf in 1.0..3.0,
        away in 0.02..0.3,
        alpha in prop_oneof![Just(0.05), Just(0.2), Just(0.5)],
        seed in any::<u64>(),
    ) {
        let graph = clustered(clusters, zipf, away, seed);
        let config = WalkConfig { restart_probability: Some(alpha.into()), ..walk_config(64) };
        for share in [0.25, 0.5, 0.75] {
            let [low, high] = come(&graph, &config, seed, share);
            let even = |percent: f64| (percent - 100.0 * share).abs() <= 7.0;
            prop_assert!(even(low) && even(high), "after {share}: {low} % of the lowest, {high} % of the highest");
        }
    }
}
