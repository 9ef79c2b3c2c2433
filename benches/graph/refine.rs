//! What drift leaves of a graph, and what it costs to build it anew.

use prosampler::GraphVersion;
use prosampler::config::GraphConfig;
use prosampler::graph;

use super::data::{Data, Truth};
use super::drift::Drift;
use super::measure::{Run, Times, head, row};
use super::{Bench, SEED};

const K: usize = 16;

/// Shares of the true K nearest that change.
const CHANGES: [f64; 3] = [0.05, 0.15, 0.30];

pub fn run(bench: &mut Bench) {
    let before = Data::sentences(&bench.folder, bench.rows).table;
    let config = GraphConfig { candidates: before.len(), neighbors: K, ..GraphConfig::default() };
    let old = Run::ours(bench, || graph::build(&before, &config, SEED, GraphVersion(1)));
    let drift = bench.pool.install(|| Drift::new(&before, K));
    head("recall@16");
    for change in CHANGES {
        let (after, measured) = bench.pool.install(|| drift.to(change));
        let truth = bench.pool.install(|| Truth::new(&after, K, 1000));
        let recall = |run: &Run| truth.recall(&after, |_, row| &run.ids[row * K..][..K]);
        println!("{:.1} % changed; the old graph, kept: recall {:.4}", 100.0 * measured, recall(&old));
        let mut times = Times::default();
        let new = Run::ours(bench, || graph::build(&after, &config, SEED, GraphVersion(2)));
        times.push(&new);
        row("  built anew", &times, recall(&new), None);
    }
}
