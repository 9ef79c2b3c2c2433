//! What drift leaves of a graph, and what it costs to refine it. The ratio is to scoring all pairs.

use prosampler::GraphVersion;
use prosampler::config::{GraphBuilder, GraphConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph;

use super::data::{Data, Truth};
use super::drift::Drift;
use super::measure::{Run, Times, head, row, turns};
use super::{Bench, SEED};

const K: usize = 16;

/// Shares of the true K nearest that change, the recall that is asked for then, and what the figures' names say of it.
const CHANGES: [(f64, f64, &str); 3] = [(0.05, 0.99, "5_percent."), (0.15, 0.98, ""), (0.30, 0.97, "30_percent.")];

pub fn sentences(bench: &mut Bench) {
    let before = Data::sentences(&bench.folder, bench.rows).table;
    compare(bench, &before, "refine");
}

pub fn million(bench: &mut Bench) {
    let before = Data::clusters(&bench.folder, bench.rows).table;
    compare(bench, &before, "refine_million");
}

fn compare(bench: &mut Bench, before: &EmbeddingTable, figure: &str) {
    let config = GraphConfig {
        builder: GraphBuilder::Exact,
        candidates: K.into(),
        neighbors: Some(K),
        ..GraphConfig::default()
    };
    // Takes as long for any embeddings.
    let build = || graph::build(before, &config, SEED, GraphVersion(1)).expect("settings that fit the data");
    let mut built = Times::default();
    let mut old = Run::ours(bench, build);
    built.push(&old);
    for _ in 1..turns(&old) {
        old = Run::ours(bench, build);
        built.push(&old);
    }
    let old_graph = old.graph.clone().expect("ours");
    let drift = bench.pool.install(|| Drift::new(before, K));
    head("recall@16");
    row("all pairs", &built, 1.0, None);
    for (change, wanted, name) in CHANGES {
        let config = GraphConfig { recall: wanted, ..config.clone() };
        let (after, measured) = bench.pool.install(|| drift.to(change));
        let truth = bench.pool.install(|| Truth::new(&after, K, 1000));
        let recall = |run: &Run| truth.recall(&after, |_, row| &run.ids[row * K..][..K]);
        println!("{:.1} % changed; the old graph, kept: recall {:.4}", 100.0 * measured, recall(&old));
        let mut refined = Times::default();
        let refine = || {
            Run::ours(bench, || {
                graph::refine(&old_graph, &after, &config, SEED, GraphVersion(2))
                    .expect("settings that fit the data")
                    .graph
            })
        };
        let run = refine();
        refined.push(&run);
        (1..turns(&run)).for_each(|_| refined.push(&refine()));
        row("  refined", &refined, recall(&run), Some(refined.median() / built.median()));
        bench.figure(&format!("{figure}.{name}cost_share"), refined.median() / built.median(), "share");
        bench.figure(&format!("{figure}.{name}recall"), recall(&run), "share");
    }
}
