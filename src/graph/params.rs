//! What all builders share: the numbers of candidates and neighbors, and random generators.

use crate::config::{GraphConfig, GraphSize};
use crate::error::{Error, Result, TooFewError};
use crate::sample::GraphVersion;
use crate::telemetry;

/// M and K, limited to the N − 1 others that a sample has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub candidates: usize,
    pub neighbors: usize,
}

impl Size {
    /// The size of a graph over `samples` samples that have embeddings.
    ///
    /// # Errors
    /// [`Error::Config`] if K = 0 or K > M; [`TooFewError::Samples`] for fewer than two samples.
    pub fn new(samples: usize, config: &GraphConfig) -> Result<Self> {
        let GraphSize { candidates, neighbors, .. } = config.size(samples);
        if neighbors == 0 {
            return Err(refused("must be at least 1".into()));
        }
        if neighbors > candidates {
            return Err(refused(format!(
                "is {neighbors}, but only {candidates} candidates are drawn; lower it or raise graph.candidates"
            )));
        }
        require_two(samples)?;
        if neighbors > samples - 1 {
            telemetry::neighbors_clipped(neighbors, samples);
        }
        Ok(Self { candidates: candidates.min(samples - 1), neighbors: neighbors.min(samples - 1) })
    }
}

/// Refuses a data set whose samples have no others.
pub(super) fn require_two(samples: usize) -> Result<()> {
    if samples >= 2 {
        return Ok(());
    }
    Err(TooFewError::Samples {
        uri: "embeddings".into(),
        filter: None,
        found: samples,
        needed: 2,
        reason: "are needed at least, or no sample has a neighbor; give more samples".into(),
    }
    .into())
}

/// Refuses the number of neighbors, as a pipeline does.
fn refused(message: String) -> Error {
    Error::setting("graph.neighbors", message)
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
