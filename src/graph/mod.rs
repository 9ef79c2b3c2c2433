//! "Here are vectors, give me neighbors."
//!
//! [`build`] makes the paper's proximity graph: every sample draws M candidates uniformly, without itself and without
//! duplicates, and keeps the K most similar (arXiv 2306.03355; its reference code draws with duplicates and self).
//! [`build_per_row`] does so sample by sample and is the measure for the fast path, [`exact`] keeps the K most similar
//! of all. Everything here is a plain function of embeddings and seed, and gives the same graph on any number of
//! threads, except for the approximate neighbors of [`GraphBuilder::Hnsw`] and [`HnswIndex`]. Between machines with
//! different vector instructions similarities may differ in the last bit.
//!
//! As the data changes, a sampled graph is drawn anew by [`build`], which costs little and keeps its distribution: the
//! k-th neighbor stays at the rank that M random candidates give. A kNN graph is carried over to new embeddings by
//! [`refine`], takes new samples in by [`insert`] and lets some go by [`remove`].
//!
//! A graph can be [saved](ProximityGraph::save), [opened](ProximityGraph::open) and
//! [looked at](ProximityGraph::statistics).
//!
//! ```
//! use prosampler::{SampleId, config::{GraphConfig, Similarity}, graph, embeddings::EmbeddingTable};
//! let vectors = vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
//! let table = EmbeddingTable::new(vectors, 2, Similarity::Cosine, Default::default())?;
//! let config = GraphConfig { candidates: 3, neighbors: 1, ..GraphConfig::default() };
//! let graph = graph::build(&table, &config, 7, Default::default());
//! assert_eq!(graph.neighbors(SampleId(0)), &[SampleId(1)]);
//! # Ok::<(), prosampler::Error>(())
//! ```

mod backend;
mod build;
pub mod device;
mod file;
mod hnsw;
mod kernel;
mod knn;
mod oracle;
mod params;
mod proximity_graph;
mod sampled;
mod statistics;
mod topk;

pub(crate) use self::backend::Backend;
pub use self::build::{build, build_on, renew};
pub use self::device::Device;
pub use self::hnsw::HnswIndex;
pub use self::knn::{Refined, insert, recall, refine, remove};
pub use self::oracle::{build_per_row, exact};
pub use self::proximity_graph::ProximityGraph;
pub use self::statistics::GraphStatistics;
