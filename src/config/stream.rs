use serde::Deserialize;

use super::faults::{Check, Checker};
use super::read::layer;

/// `[stream]`: how mini-batches are handed out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Mini-batches that wait, made, for the consumer; 1 to 65,536, default 4. One more is in the producer's hand.
    /// More smooths over slow rows, but each waiting mini-batch was chosen from an older graph.
    pub prefetch: usize,
    /// Epochs before the stream ends, at least 1; default 1.
    pub epochs: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { prefetch: 4, epochs: 1 }
    }
}

layer!(StreamConfig: prefetch, epochs);

impl Check for StreamConfig {
    const SECTION: &'static str = "stream";

    fn check(&self, check: &mut Checker<'_>) {
        check.require((1..=65_536).contains(&self.prefetch), "prefetch", "must lie between 1 and 65,536");
        check.require(self.epochs >= 1, "epochs", "must be at least 1");
    }
}
