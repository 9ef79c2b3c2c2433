use serde::Deserialize;

use super::check::{Check, Checker};

/// `[stream]`: how mini-batches are handed out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Mini-batches that are made ahead and wait for the consumer; 1 to 65,536, default 4. The producer holds one more.
    /// A larger number smooths over slow rows, but each waiting mini-batch was chosen from an older graph.
    pub prefetch: usize,
    /// Epochs before the stream ends, at least 1; default 1.
    pub epochs: u64,
    /// Which share of every mini-batch this process takes, 0 to `world_size` − 1; default 0. Processes with the same
    /// seed, data and settings draw the same mini-batches, whatever their rank.
    pub rank: usize,
    /// Processes that share every mini-batch, at least 1; default 1. Must divide `walk.batch_size`. All get equally
    /// many samples: the remainder of a smaller last mini-batch is left out. With a folder that all of them reach, in
    /// `store.cache_dir`, they embed each sample once between them, and share one copy of embeddings and graph.
    pub world_size: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { prefetch: 4, epochs: 1, rank: 0, world_size: 1 }
    }
}

impl Check for StreamConfig {
    const SECTION: &'static str = "stream";

    fn check(&self, check: &mut Checker<'_>) {
        check.require((1..=65_536).contains(&self.prefetch), "prefetch", "must lie between 1 and 65,536");
        check.require(self.epochs >= 1, "epochs", "must be at least 1");
        check.require(self.world_size >= 1, "world_size", "must be at least 1");
        check.require(self.rank < self.world_size.max(1), "rank", "must be less than stream.world_size");
    }
}
