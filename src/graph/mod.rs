//! "Here are vectors, give me neighbors."
//!
//! [`build`] makes the paper's proximity graph: every sample draws M candidates uniformly, without itself and without
//! duplicates, and keeps the K most similar (arXiv 2306.03355; its reference code draws with duplicates and self).
//! [`build_per_row`] does so sample by sample and is the measure for the fast path, [`exact`] keeps the K most similar
//! of all. Everything here is a plain function of embeddings and seed, and gives the same graph on any number of
//! threads. Between machines with different vector instructions similarities may differ in the last bit.
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

mod all_pairs;
mod deal;
mod descent;
mod exact;
mod kernel;
mod lists;
mod per_row;
mod product;
mod recall;
mod sampled;
mod top_k;
mod tree;

pub use self::exact::exact;
pub use self::per_row::build_per_row;
pub use self::recall::recall;
use crate::config::GraphConfig;
use crate::error::{Error, Result};
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;
use crate::telemetry;

/// The paper's graph: each sample's K most similar of M uniform others, without itself and without duplicates.
///
/// M ≥ N − 1 gives the exact kNN graph; K ≥ N gives all others. Costs N M d multiplications, half of that for the exact
/// graph, and at most a tenth of the memory of embeddings and graph beside these (or 32 MB, where that is more). Runs
/// on the current rayon pool; the graph does not depend on the number of threads.
///
/// # Panics
/// For fewer than two samples, K = 0 or K > M: [`PipelineConfig`](crate::config::PipelineConfig) and
/// [`Pipeline`](crate::Pipeline) refuse these with an error.
#[must_use]
pub fn build(table: &EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> ProximityGraph {
    let size = Size::new(table.len(), config);
    let _span = telemetry::graph(table.len(), size.candidates, size.neighbors, version).entered();
    if size.candidates == table.len() - 1 {
        all_pairs::build(table, config.precision, size, version)
    } else {
        sampled::build(table, config, size, seed, version)
    }
}

/// K out-neighbors for each sample, most similar first; equally similar ones by id.
///
/// Two flat arrays, 8 K bytes a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct ProximityGraph {
    neighbors: Vec<SampleId>,
    similarities: Vec<f32>,
    degree: usize,
    version: GraphVersion,
}

impl ProximityGraph {
    pub(crate) fn from_parts(
        neighbors: Vec<SampleId>,
        similarities: Vec<f32>,
        degree: usize,
        version: GraphVersion,
    ) -> Self {
        Self { neighbors, similarities, degree, version }
    }

    /// A graph from flat lists, `degree` neighbors a sample and one similarity each: a graph made elsewhere, or by hand.
    ///
    /// # Errors
    /// [`Error::Shape`] where the lists are no whole number of neighborhoods, or not equally long;
    /// [`Error::UnknownSample`] for a neighbor that is no sample of the graph.
    pub fn new(neighbors: Vec<SampleId>, similarities: Vec<f32>, degree: usize, version: GraphVersion) -> Result<Self> {
        if degree == 0 || !neighbors.len().is_multiple_of(degree) || neighbors.len() != similarities.len() {
            return Err(Error::Shape { found: similarities.len(), dimension: degree });
        }
        let len = neighbors.len() / degree;
        match neighbors.iter().find(|id| id.index() >= len) {
            Some(&sample) => Err(Error::UnknownSample { sample, len }),
            None => Ok(Self { neighbors, similarities, degree, version }),
        }
    }

    /// Samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.neighbors.len() / self.degree
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.neighbors.is_empty()
    }

    /// K: out-neighbors of each sample; fewer than asked for only where there are not that many others.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Which graph this is.
    #[must_use]
    pub fn version(&self) -> GraphVersion {
        self.version
    }

    /// The neighbors of a sample, most similar first.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[inline]
    #[must_use]
    pub fn neighbors(&self, id: SampleId) -> &[SampleId] {
        &self.neighbors[id.index() * self.degree..][..self.degree]
    }

    /// The similarities of those neighbors, in the same order.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[must_use]
    pub fn similarities(&self, id: SampleId) -> &[f32] {
        &self.similarities[id.index() * self.degree..][..self.degree]
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
    fn new(samples: usize, config: &crate::config::GraphConfig) -> Self {
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
#[doc(hidden)]
pub fn descent_scratch(table: &EmbeddingTable, k: usize) -> ProximityGraph {
    let config = GraphConfig { neighbors: k, candidates: table.len(), ..GraphConfig::default() };
    descent::build(table, Size::new(table.len(), &config), 1, GraphVersion(1))
}
