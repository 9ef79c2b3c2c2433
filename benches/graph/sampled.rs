//! The paper's graph, M = 1000 and K = 100, as the paper's code builds it and as others might.

use prosampler::GraphVersion;
use prosampler::config::{GraphConfig, GraphSize, Precision};
use prosampler::graph;

use super::data::Data;
use super::measure::{Run, Times, head, row, turns};
use super::{Bench, SEED};

/// Rows are independent of each other in the paper's code, so a share of them tells the time of all.
const SHARE: f64 = 0.02;

type Build<'a> = &'a dyn Fn(&mut Bench) -> Run;

pub fn run(bench: &mut Bench) {
    let data = Data::sentences(&bench.folder, bench.rows);
    let config = GraphConfig { candidates: 1000.into(), neighbors: Some(100), ..GraphConfig::default() };
    let in_f32 = GraphConfig { precision: Precision::F32, ..config.clone() };
    let GraphSize { candidates: m, neighbors: k, .. } = config.size(data.table.len());
    let ours = |bench: &mut Bench| {
        Run::ours(bench, || {
            graph::build(&data.table, &config, SEED, GraphVersion(1)).expect("settings that fit the data")
        })
    };
    let per_row = |bench: &mut Bench| {
        Run::ours(bench, || {
            graph::build_per_row(&data.table, &config, SEED, GraphVersion(1)).expect("settings that fit the data")
        })
    };
    let f32 = |bench: &mut Bench| {
        Run::ours(bench, || {
            graph::build(&data.table, &in_f32, SEED, GraphVersion(1)).expect("settings that fit the data")
        })
    };
    let gather = |bench: &mut Bench| bench.peers.run(&format!("torch-gather {m} {SHARE}"), &data, k);
    let shared = |bench: &mut Bench| bench.peers.run(&format!("torch-shared {m} 1024"), &data, k);
    let peers: [(_, _, Build<'_>); 4] = [
        ("PyTorch, a gather a row, 2 %", "vs_torch", &gather),
        ("PyTorch, 1024 rows share", "vs_torch_shared", &shared),
        ("prosampler, build_per_row", "vs_per_row", &per_row),
        ("prosampler, in f32 throughout", "vs_f32", &f32),
    ];

    let similarity = ours(bench).mean_similarity(&data.table, k);
    let mut all = Times::default();
    head("similarity");
    for (name, figure, peer) in peers {
        let first = peer(bench);
        let theirs = first.mean_similarity(&data.table, k);
        assert!((theirs - similarity).abs() < 0.01, "{name}: similarity {theirs}, ours {similarity}");
        let mut times = [Times::default(), Times::default()];
        times[0].push(&first);
        for turn in 0..turns(&first) {
            if turn > 0 {
                times[0].push(&peer(bench));
            }
            let run = ours(bench);
            times[1].push(&run);
            all.push(&run);
        }
        let ratio = times[0].median() / times[1].median();
        row(name, &times[0], theirs, Some(ratio));
        bench.figure(&format!("sampled.{figure}"), ratio, "ratio");
    }
    row("prosampler", &all, similarity, None);
}
