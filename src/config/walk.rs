use serde::Deserialize;

use super::faults::{Check, Checker};
use super::read::layer;

/// `[walk]`: how mini-batches are drawn from the graph.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct WalkConfig {
    /// B in the paper: samples in a mini-batch, 2 to the data set's size; default 256.
    pub batch_size: usize,
    /// How they are chosen. Default `random_walk`.
    pub sampler: SamplerKind,
    /// α in the paper: the probability of going back to the start instead of on to a neighbor; 0 up to but not
    /// including 1, default 0.1. Larger values keep a mini-batch nearer to its start, at 1 / (1 − α) times the steps.
    pub restart_probability: f64,
    /// Leaves out an epoch's last mini-batch where it would be short. Default false: every sample exactly once.
    pub drop_last: bool,
}

/// How mini-batches are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Random walk with restart on the proximity graph.
    #[default]
    RandomWalk,
    /// Nearest first: a sample, its neighbors from the most similar on, then theirs; to compare with.
    Knn,
    /// A plain shuffle, to compare with.
    Uniform,
}

impl Default for WalkConfig {
    fn default() -> Self {
        Self { batch_size: 256, sampler: SamplerKind::RandomWalk, restart_probability: 0.1, drop_last: false }
    }
}

layer!(WalkConfig: batch_size, sampler, restart_probability, drop_last);

impl Check for WalkConfig {
    const SECTION: &'static str = "walk";

    fn check(&self, check: &mut Checker<'_>) {
        let size = self.batch_size;
        let message = format!("is {size}, but a mini-batch needs at least 2 samples, or there is no negative");
        check.require(size >= 2, "batch_size", message);
        let alpha = self.restart_probability;
        let message =
            format!("is {alpha}; it must be at least 0 and below 1, or the walk never leaves its start (0.1 is usual)");
        check.require((0.0..1.0).contains(&alpha), "restart_probability", message);
    }
}
