//! How near the kernels come to the processor's peak, on large blocks: all pairs of half the sentences, the choice of
//! the nearest included.

use prosampler::GraphVersion;
use prosampler::config::{GraphBuilder, GraphConfig, Precision};
use prosampler::graph;

use super::data::Data;
use super::measure::{Run, Times};
use super::{Bench, SEED, THREADS, peak};

const ROWS: usize = 50_000;
const K: usize = 16;
const TURNS: usize = 3;

pub fn run(bench: &mut Bench) {
    let data = Data::sentences(&bench.folder, Some(bench.rows.unwrap_or(ROWS).min(ROWS)));
    let precisions = [Precision::F32, Precision::Bf16, Precision::I8];
    let mut times = [const { Times::new() }; 3];
    for _ in 0..TURNS {
        for (times, precision) in times.iter_mut().zip(precisions) {
            let config = GraphConfig {
                builder: GraphBuilder::Exact,
                precision,
                candidates: K.into(),
                neighbors: Some(K),
                ..GraphConfig::default()
            };
            times.push(&Run::ours(bench, || {
                graph::build(&data.table, &config, SEED, GraphVersion(1)).expect("settings that fit the data")
            }));
        }
    }
    let n = data.table.len() as f64;
    let operations = n * (n - 1.0) * data.table.dimension() as f64;
    for (times, precision) in times.iter().zip(precisions) {
        println!("{precision:?}: {:.3} s, {:.0} G operations/s", times.median(), operations / times.median() / 1e9);
    }
    let [f32, _, i8] = times.each_ref().map(Times::median);
    bench.figure("kernel_f32.share_of_peak", operations / f32 / 1e9 / peak::gflops(THREADS), "share");
    bench.figure("kernel_i8.vs_f32", f32 / i8, "ratio");
}
