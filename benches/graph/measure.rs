//! Runs, turns and tables.

use std::time::Instant;

use prosampler::SampleId;
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::ProximityGraph;

use super::Bench;

/// Seconds from which on a system runs once.
pub const LONG: f64 = 30.0;

/// Seconds below which a run's first touch of memory shows.
const SHORT: f64 = 10.0;

/// One graph, built once.
pub struct Run {
    /// The time it took, in seconds.
    pub spent: f64,
    /// The time it would take for all rows.
    pub seconds: f64,
    /// K a row; those that were not found are −1.
    pub ids: Vec<i32>,
    /// Where it is ours.
    pub graph: Option<ProximityGraph>,
}

impl Run {
    /// Ours, in the compute pool.
    pub fn ours(bench: &Bench, build: impl Fn() -> ProximityGraph + Sync) -> Self {
        let run = || {
            let begun = Instant::now();
            let graph = bench.pool.install(&build);
            (begun.elapsed().as_secs_f64(), graph)
        };
        let (mut seconds, mut graph) = run();
        // A virtual machine's host takes back what has been free for two seconds, as it is after a peer's turn: the
        // first touch then takes longer than the work. So a second run counts, as it does with the peers.
        if seconds < SHORT {
            drop(graph);
            (seconds, graph) = run();
        }
        let ids = (0..graph.len()).flat_map(|row| graph.neighbors(SampleId::new(row))).map(|id| id.0 as i32).collect();
        Self { spent: seconds, seconds, ids, graph: Some(graph) }
    }

    /// Of all neighbors with their samples.
    pub fn mean_similarity(&self, table: &EmbeddingTable, k: usize) -> f64 {
        let similarity = |(place, &id): (usize, &i32)| {
            f64::from(table.similarity_of(SampleId::new(place / k), SampleId(u32::try_from(id).expect("neighbor"))))
        };
        self.ids.iter().enumerate().map(similarity).sum::<f64>() / self.ids.len() as f64
    }
}

/// Seconds of one system's runs.
#[derive(Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn push(&mut self, run: &Run) {
        self.0.push(run.seconds);
    }

    /// These, or where there are none, others.
    pub fn or<'a>(&'a self, others: &'a Self) -> &'a Self {
        if self.0.is_empty() { others } else { self }
    }

    pub fn median(&self) -> f64 {
        let mut times = self.0.clone();
        times.sort_unstable_by(f64::total_cmp);
        let n = times.len();
        f64::midpoint(times[(n - 1) / 2], times[n / 2])
    }
}

/// Turns that a system takes whose first run was this one.
pub fn turns(first: &Run) -> usize {
    match first.spent {
        ..3.0 => 5,
        ..LONG => 3,
        _ => 1,
    }
}

/// A table's head; `quality` is what its third column tells.
pub fn head(quality: &str) {
    println!("{:<34} {:>9} {:>5} {quality:>10} {:>8}", "", "seconds", "runs", "ratio");
}

/// A table's row; the ratio is to ours in the same turns.
pub fn row(name: &str, times: &Times, quality: f64, ratio: Option<f64>) {
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    println!("{name:<34} {:>9.3} {:>5} {quality:>10.4} {ratio:>8}", times.median(), times.0.len());
}
