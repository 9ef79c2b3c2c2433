//! Random walk with restart on one thread: whole epochs in which every sample comes once, and as a measure the loop of
//! the paper's reference code, one walker and a `HashSet` for each mini-batch, which covers nothing. N = 1,000,000,
//! K = 32, α = 0.1, B = 1,024; on a random graph, and on one whose neighborhoods overlap as those of embeddings do.
//!
//! Both take turns; every figure is a median. The figures at the end are those of the random graph, where nearly every
//! move misses the caches.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use prosampler::config::{Coverage, WalkConfig};
use prosampler::graph::ProximityGraph;
use prosampler::walk::{EpochSampler, WalkCounts};
use prosampler::{GraphVersion, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

const SAMPLES: usize = 1_000_000;
const NEIGHBORS: usize = 32;
const BATCH_SIZE: usize = 1024;
const ALPHA: f64 = 0.1;
const ROUNDS: usize = 7;
/// In the clustered graph, a sample's neighbors are at most this far from it, either way, on a ring.
const REACH: i64 = 256;

fn main() {
    let clustered = measure("clustered", &clustered());
    let random = measure("random", &random());
    for (graph, [rate, ratio, uncovered_rate, uncovered_ratio]) in [("clustered.", clustered), ("", random)] {
        println!("figure walk.{graph}samples_per_second {rate:.0} samples/s");
        println!("figure walk.{graph}vs_hash_set {ratio:.2} ratio");
        println!("figure walk.{graph}no_coverage.samples_per_second {uncovered_rate:.0} samples/s");
        println!("figure walk.{graph}no_coverage.vs_hash_set {uncovered_ratio:.2} ratio");
    }
}

/// Collected samples a second over an epoch, and how that compares with the hash set.
fn measure(name: &str, graph: &ProximityGraph) -> [f64; 4] {
    let mut times = [const { Vec::new() }; 4];
    let mut counts = WalkCounts::default();
    for round in 0..ROUNDS as u64 {
        let (half, whole, epoch) = ours(graph, round);
        times[0].push(half);
        times[1].push(whole);
        times[2].push(uncovered(graph, round));
        times[3].push(hash_set(graph, round));
        counts = epoch;
    }
    let [half, whole, uncovered, peer] = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64()
    });
    let millions = |n: f64, seconds: f64| n / seconds / 1e6;
    println!("{name} graph, million a second:");
    println!("  samples, whole epoch    {:6.2}", millions(SAMPLES as f64, whole));
    println!("  samples, first half     {:6.2}", millions(SAMPLES as f64 / 2.0, half));
    println!("  moves, whole epoch      {:6.2}", millions(counts.moves as f64, whole));
    println!("  samples, no coverage    {:6.2}", millions(SAMPLES as f64, uncovered));
    println!("  samples, hash set       {:6.2}", millions(SAMPLES as f64, peer));
    println!("  of an epoch: {counts:?}");
    let n = SAMPLES as f64;
    [n / whole, peer / whole, n / uncovered, peer / uncovered]
}

/// The time of half an epoch and of a whole one, with all that belongs to it.
fn ours(graph: &ProximityGraph, seed: u64) -> (Duration, Duration, WalkCounts) {
    let config =
        WalkConfig { batch_size: BATCH_SIZE, restart_probability: Some(ALPHA.into()), ..WalkConfig::default() };
    let begun = Instant::now();
    let mut epoch = EpochSampler::new(graph.len(), &config, seed, 0);
    let (mut half, mut collected, mut counts) = (None, 0, WalkCounts::default());
    while let Some(draw) = epoch.next(graph) {
        collected += draw.ids.len();
        counts += draw.counts;
        if collected >= SAMPLES / 2 {
            half.get_or_insert_with(|| begun.elapsed());
        }
    }
    assert_eq!(collected, SAMPLES);
    (half.expect("half an epoch"), begun.elapsed(), counts)
}

/// As many mini-batches that do not cover the samples, as the reference's loop: the same work.
fn uncovered(graph: &ProximityGraph, seed: u64) -> Duration {
    let config = WalkConfig {
        batch_size: BATCH_SIZE,
        restart_probability: Some(ALPHA.into()),
        coverage: Coverage::Paper,
        ..WalkConfig::default()
    };
    let begun = Instant::now();
    let mut epoch = EpochSampler::new(graph.len(), &config, seed, 0);
    for _ in 0..SAMPLES / BATCH_SIZE {
        std::hint::black_box(epoch.next(graph).expect("more to come"));
    }
    begun.elapsed()
}

/// As many mini-batches by the reference's loop.
fn hash_set(graph: &ProximityGraph, seed: u64) -> Duration {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let begun = Instant::now();
    for _ in 0..SAMPLES / BATCH_SIZE {
        let start = SampleId::new(generator.random_range(0..graph.len()));
        let (mut place, mut found) = (start, HashSet::from([start]));
        while found.len() < BATCH_SIZE {
            if generator.random_bool(ALPHA) {
                place = start;
            } else {
                place = graph.neighbors(place)[generator.random_range(0..NEIGHBORS)];
                found.insert(place);
            }
        }
        std::hint::black_box(found);
    }
    begun.elapsed()
}

/// Every neighbor is any sample.
fn random() -> ProximityGraph {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let neighbors = (0..SAMPLES * NEIGHBORS).map(|_| SampleId::new(generator.random_range(0..SAMPLES)));
    made(neighbors.collect())
}

/// Neighbors are near on a ring, and ids say nothing of where on it a sample is.
fn clustered() -> ProximityGraph {
    let mut generator = ChaCha8Rng::seed_from_u64(2);
    let mut ring: Vec<_> = (0..SAMPLES).map(SampleId::new).collect();
    ring.shuffle(&mut generator);
    let mut neighbors = vec![SampleId(0); SAMPLES * NEIGHBORS];
    for (at, id) in ring.iter().enumerate() {
        for neighbor in &mut neighbors[id.index() * NEIGHBORS..][..NEIGHBORS] {
            let near = at as i64 + generator.random_range(-REACH..=REACH);
            *neighbor = ring[near.rem_euclid(SAMPLES as i64) as usize];
        }
    }
    made(neighbors)
}

fn made(neighbors: Vec<SampleId>) -> ProximityGraph {
    let similarities = vec![0.5; neighbors.len()];
    ProximityGraph::new(neighbors, similarities, NEIGHBORS, GraphVersion(1)).expect("a graph")
}
