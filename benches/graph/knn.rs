//! The full kNN graph, K = 16, at equal recall.

use prosampler::GraphVersion;
use prosampler::config::{GraphBuilder, GraphConfig, Precision};
use prosampler::graph;

use super::data::{Data, Truth};
use super::measure::{LONG, Run, Times, head, row, turns};
use super::{Bench, SEED};

const K: usize = 16;

/// What `nn_descent` is asked for.
const RECALLS: [f64; 5] = [0.965, 0.98, 0.99, 0.996, 0.999];

/// A recall that counts as equal.
const EQUAL: f64 = 0.001;

/// Peers' names and arguments, as `benches/peers` take them.
const FAST: [&str; 20] = [
    "faiss-flat",
    "faiss-hnsw 16 64",
    "faiss-hnsw 16 128",
    "faiss-hnsw 16 256",
    "faiss-hnsw 32 64",
    "faiss-hnsw 32 128",
    "faiss-ivf 1024 16",
    "faiss-ivf 1024 32",
    "faiss-ivf 1024 64",
    "faiss-ivf 1024 128",
    "faiss-nndescent 32",
    "faiss-nndescent 64",
    "usearch f32 64",
    "usearch f32 128",
    "usearch i8 64",
    "usearch i8 128",
    "usearch i8 256",
    "pynndescent 17",
    "pynndescent 32",
    "pynndescent 48",
];

/// Minutes each.
const SLOW: [&str; 3] = ["hnsw_rs 16 32", "hnsw_rs 16 64", "instant-distance 64 32"];

const MILLION: [&str; 2] = ["pynndescent 17", "pynndescent 32"];

const MILLION_SLOW: [&str; 2] = ["faiss-nndescent 32", "faiss-hnsw 16 64"];

pub fn sentences(bench: &mut Bench) {
    let data = Data::sentences(&bench.folder, bench.rows);
    compare(bench, &data, "knn", &FAST, &SLOW);
}

pub fn million(bench: &mut Bench) {
    let data = Data::clusters(&bench.folder, bench.rows);
    compare(bench, &data, "knn_million", &MILLION, &MILLION_SLOW);
}

/// One of our ways.
struct Ours {
    name: String,
    config: GraphConfig,
    recall: f64,
    times: Times,
}

impl Ours {
    fn run(&mut self, bench: &Bench, data: &Data) -> Run {
        let run = Run::ours(bench, || {
            graph::build(&data.table, &self.config, SEED, GraphVersion(1)).expect("settings that fit the data")
        });
        self.times.push(&run);
        run
    }
}

fn compare(bench: &mut Bench, data: &Data, figure: &str, fast: &[&str], slow: &[&str]) {
    let truth = bench.pool.install(|| Truth::new(&data.table, K, 1000));
    let recall = |run: &Run| truth.recall(&data.table, |_, row| &run.ids[row * K..][..K]);

    let way = |name: String, builder, precision, recall| Ours {
        name,
        config: GraphConfig {
            builder,
            precision,
            candidates: K.into(),
            neighbors: Some(K),
            recall,
            ..GraphConfig::default()
        },
        recall: 0.0,
        times: Times::default(),
    };
    let nearly =
        |recall| way(format!("prosampler nn_descent {recall}"), GraphBuilder::NnDescent, Precision::Auto, recall);
    let mut ours: Vec<_> = RECALLS.into_iter().map(nearly).collect();
    // All pairs of a million samples take most of an hour.
    if data.table.len() <= 200_000 {
        ours.push(way("prosampler exact, i8".into(), GraphBuilder::Exact, Precision::I8, 1.0));
        ours.push(way("prosampler exact, f32".into(), GraphBuilder::Exact, Precision::F32, 1.0));
    }
    for way in &mut ours {
        way.recall = recall(&way.run(bench, data));
    }

    head("recall@16");
    // Time and ratio of the fastest peer that is good enough.
    let mut fastest = (f64::INFINITY, None);
    let jobs = fast.iter().chain(slow.iter().filter(|_| bench.all)).filter(|job| job.contains(&bench.only));
    for job in jobs.collect::<Vec<_>>() {
        let first = bench.peers.run(job, data, K);
        let theirs = recall(&first);
        // The fastest of ours that is as good.
        let equal = ours.iter_mut().filter(|way| way.recall + EQUAL >= theirs);
        let mut equal = equal.min_by(|a, b| a.times.median().total_cmp(&b.times.median()));
        let mut times = [Times::default(), Times::default()];
        times[0].push(&first);
        for turn in 0..turns(&first) {
            if turn > 0 {
                times[0].push(&bench.peers.run(job, data, K));
            }
            if let Some(way) = equal.as_mut().filter(|way| way.times.median() < LONG) {
                times[1].push(&way.run(bench, data));
            }
        }
        // One of ours that takes too long for turns has run before.
        let ratio = equal.map(|way| times[0].median() / times[1].or(&way.times).median());
        row(job, &times[0], theirs, ratio);
        if theirs >= 0.95 && times[0].median() < fastest.0 {
            fastest = (times[0].median(), ratio);
        }
    }
    for way in &ours {
        row(&way.name, &way.times, way.recall, None);
    }
    match fastest.1 {
        Some(ratio) => bench.figure(&format!("{figure}.vs_fastest_peer"), ratio, "ratio"),
        None => println!("no figure: no peer reaches a recall of 0.95, or none of ours its recall"),
    }
}
