use serde::{Deserialize, Serialize};

use super::check::{Check, Checker};

/// `[shard]`: the random part of a data set that this run takes, where one host cannot hold or build all of it.
///
/// Each of `count` runs takes a random shard, embeds it, builds the graph over it alone, and never talks to the others.
/// M uniform candidates among the samples of a random shard are M uniform candidates of all, so the paper's graph and
/// its mini-batches stay what they are as long as M is well below the samples of a shard; the graph of the nearest of
/// all does not. docs/scale.md says what was measured.
///
/// Epochs have equally many samples on all runs: those of the smallest shard. What a larger shard has more sits out,
/// other samples in each epoch, so that every sample comes at least once in two epochs (as long as the shards differ by
/// less than half). They have equally many mini-batches, too: where guards, or samples that could not be embedded,
/// would end an epoch before those of the other runs, it goes on with samples that it has had, which is logged and
/// counted ([`StreamCounts::repeated`](crate::stream::StreamCounts::repeated)). All runs must read the same files;
/// files that are added later do not join.
///
/// Shards that were written apart (Python: `prosampler.ray.shards`) need none of this: each is the source of its own
/// run, with [`walk.epoch_samples`](super::WalkConfig::epoch_samples).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ShardConfig {
    /// The column whose values decide which shard a row belongs to: an id, a url, or any text or number. Rows with one
    /// value stay together. Each run reads this column of all rows at its start. Required if `count` is above 1, else
    /// without effect.
    pub by: Option<String>,
    /// Which shard this run takes, from 0 to `count` − 1. Default 0.
    pub index: usize,
    /// How many shards there are, 1 to 65,536. Default 1: the whole.
    pub count: usize,
    /// Each number divides the rows in another way. Default 0. Runs of one job need the same. Touch it to divide them
    /// anew, as `prosampler.ray` does in each epoch if it is asked to, so that samples meet those of other shards.
    pub seed: u64,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self { by: None, index: 0, count: 1, seed: 0 }
    }
}

impl Check for ShardConfig {
    const SECTION: &'static str = "shard";

    fn check(&self, check: &mut Checker<'_>) {
        check.require((1..=65_536).contains(&self.count), "count", "must lie between 1 and 65,536");
        let message = format!("is {}, but there are {} shards, from 0; choose one of them", self.index, self.count);
        check.require(self.index < self.count, "index", message);
        let message = "is required with shard.count; name a column that tells rows apart, such as an id";
        check.require(self.by.is_some() || self.count == 1, "by", message);
        let given = self.by.as_ref().is_none_or(|by| !by.is_empty());
        check.require(given, "by", "is empty; name a column, or leave the key out");
    }
}
