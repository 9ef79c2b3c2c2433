//! "Here are vectors, give me neighbors."
//!
//! [`build`] makes the paper's proximity graph: every sample draws M candidates uniformly, without itself and without
//! duplicates, and keeps the K most similar (arXiv 2306.03355; its reference code draws with duplicates and self).
//! [`build_per_row`] does so sample by sample and is the measure for the fast path, [`exact`] keeps the K most similar
//! of all. Everything here is a plain function of embeddings and seed, and gives the same graph on any number of
//! threads, except for the approximate neighbors of [`GraphBuilder::Hnsw`] and [`HnswIndex`]. Between machines with
//! different vector instructions similarities may differ in the last bit.
//!
//! A graph can be [saved](ProximityGraph::save), [opened](ProximityGraph::open) and
//! [looked at](ProximityGraph::statistics).
//!
//! ```
//! use prosampler::{SampleId, config::{GraphConfig, Similarity}, graph, store::EmbeddingTable};
//! let vectors = vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
//! let table = EmbeddingTable::new(vectors, 2, Similarity::Cosine, Default::default())?;
//! let config = GraphConfig { candidates: 3, neighbors: 1, ..GraphConfig::default() };
//! let graph = graph::build(&table, &config, 7, Default::default());
//! assert_eq!(graph.neighbors(SampleId(0)), &[SampleId(1)]);
//! # Ok::<(), prosampler::Error>(())
//! ```

mod deal;
mod exact;
mod file;
mod hnsw;
mod kernel;
mod per_row;
mod proximity_graph;
mod sampled;
mod statistics;
mod top_k;

pub use self::exact::exact;
pub use self::hnsw::HnswIndex;
pub use self::per_row::build_per_row;
pub use self::proximity_graph::ProximityGraph;
pub use self::statistics::GraphStatistics;
use crate::config::{GraphBuilder, GraphConfig};
use crate::sample::GraphVersion;
use crate::store::EmbeddingTable;

/// The graph that `config` asks for.
///
/// [`GraphBuilder::Sampled`], the default, is the paper's: each sample's K most similar of M uniform others, without
/// itself and without duplicates. M ≥ N − 1 gives the exact kNN graph; K ≥ N gives all others. Costs N M d
/// multiplications and a second copy of the embeddings while it runs; the graph does not depend on the number of
/// threads. [`GraphBuilder::Hnsw`] is its limit M → N, approximately. Both run on the current rayon pool.
///
/// # Panics
/// For fewer than two samples, K = 0 or K > M: [`PipelineConfig`](crate::config::PipelineConfig) and
/// [`Pipeline`](crate::Pipeline) refuse these with an error.
#[must_use]
pub fn build(table: &EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> ProximityGraph {
    match config.builder {
        GraphBuilder::Sampled => sampled::build(table, config, seed, version),
        GraphBuilder::Hnsw => hnsw::build(table, config, seed, version),
    }
}

/// M and K, cut down to what the data set can give: a sample has only N − 1 others.
#[derive(Clone, Copy, Debug)]
struct Size {
    candidates: usize,
    neighbors: usize,
}

impl Size {
    /// # Panics
    /// For fewer than two samples, or K = 0 or K > M.
    fn new(samples: usize, config: &GraphConfig) -> Self {
        let (candidates, neighbors) = (config.candidates, config.neighbors);
        assert!(samples >= 2, "a graph needs two samples");
        assert!((1..=candidates).contains(&neighbors), "neighbors must lie between 1 and candidates");
        if neighbors > samples - 1 {
            crate::telemetry::neighbors_clipped(neighbors, samples);
        }
        Self { candidates: candidates.min(samples - 1), neighbors: neighbors.min(samples - 1) }
    }
}

/// A generator for one part of one graph: `part` is a row or a block.
fn generator(seed: u64, version: GraphVersion, part: u64) -> rand::rngs::ChaCha8Rng {
    use rand::SeedableRng;
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&version.0.to_le_bytes());
    key[16..21].copy_from_slice(b"graph");
    let mut generator = rand::rngs::ChaCha8Rng::from_seed(key);
    generator.set_stream(part);
    generator
}
