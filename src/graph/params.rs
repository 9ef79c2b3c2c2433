//! What all builders share: the numbers of candidates and neighbors, and random generators.

use crate::config::GraphConfig;
use crate::sample::GraphVersion;
use crate::telemetry;

/// M and K, limited to the N − 1 others that a sample has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub candidates: usize,
    pub neighbors: usize,
}

impl Size {
    /// # Panics
    /// For fewer than two samples, or K = 0 or K > M.
    pub fn new(samples: usize, config: &GraphConfig) -> Self {
        let (candidates, neighbors) = (config.candidates, config.neighbors);
        assert!(samples >= 2, "a graph needs two samples");
        assert!((1..=candidates).contains(&neighbors), "neighbors must lie between 1 and candidates");
        if neighbors > samples - 1 {
            telemetry::neighbors_clipped(neighbors, samples);
        }
        Self { candidates: candidates.min(samples - 1), neighbors: neighbors.min(samples - 1) }
    }
}

/// A generator for one part of one graph.
///
/// `part` is the row, the node of a clustering, or one of the two largest numbers, for draws and recall probes.
pub(super) fn generator(seed: u64, version: GraphVersion, part: u64) -> rand::rngs::ChaCha8Rng {
    use rand::SeedableRng;
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&version.0.to_le_bytes());
    key[16..21].copy_from_slice(b"graph");
    let mut generator = rand::rngs::ChaCha8Rng::from_seed(key);
    generator.set_stream(part);
    generator
}

/// How many candidates to keep by rough scores, so that the K best by similarity are among them.
pub(super) fn with_margin(k: usize) -> usize {
    k + k / 8 + 4
}
