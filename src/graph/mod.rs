//! "Here are vectors, give me neighbors."
//!
//! [`build`] makes the paper's proximity graph (arXiv 2306.03355): each sample draws M candidates uniformly, without
//! itself and without duplicates, and keeps the K most similar. (The paper's reference code draws with duplicates and
//! self.) [`build_per_row`] does so sample by sample and is the oracle of the fast path; [`exact`] keeps the K most
//! similar of all.
//!
//! Everything here is a function of embeddings and seed, and gives the same graph on any number of threads, except for
//! the approximate neighbors of [`GraphBuilder::Hnsw`](crate::config::GraphBuilder::Hnsw) and [`HnswIndex`]. Between
//! machines with different vector instructions, similarities may differ in the last bit.
//!
//! As the data changes, a sampled graph is drawn anew by [`build`], which costs little and keeps its distribution. A
//! kNN graph is carried over to new embeddings by [`refine`]; [`insert`] adds samples and [`remove`] removes some. A
//! graph can be [saved](ProximityGraph::save), [opened](ProximityGraph::open) and
//! [measured](ProximityGraph::statistics).
//!
//! | word | meaning |
//! |---|---|
//! | N, d | the number of samples, and of components of an embedding |
//! | M, K | `graph.candidates` and `graph.neighbors`: M others are scored for a sample, and the K best kept |
//! | kNN graph | the limit M → N: the K nearest of all others, exactly or nearly (`graph.recall`) |
//! | row, column | a sample that is given neighbors, and one that it is scored with |
//! | panel, block | 16 columns as a kernel takes them, and rows that are scored with the same panels |
//! | candidate chunk | the candidates that are packed at a time, which bounds memory |
//! | assignment | which panels each block chooses from, in the sampled graph |
//! | substitute | the (M + 1)-th draw of a block, which replaces a row that drew itself |
//! | rough score | a score in bf16 or i8 (`graph.precision`); the best are scored again in f32 |
//! | reserve | the ids after the K neighbors that a kNN graph keeps, to refine it from |
//! | centroid, cell, membership | a mean, its inverted list, and a sample in that list; a sample is in several |
//! | local join | scoring a group of samples among themselves: a cell, or a sample with its neighbors |
//! | recall probe | a few samples whose nearest neighbors are known, to measure a graph by |
//! | oracle | a slow and plain builder that the fast ones are tested against |
//!
//! ```
//! use prosampler::{SampleId, config::{GraphConfig, Similarity}, graph, embeddings::EmbeddingTable};
//! let vectors = vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
//! let table = EmbeddingTable::new(vectors, 2, Similarity::Cosine, Default::default())?;
//! let config = GraphConfig { candidates: 3.into(), neighbors: Some(1), ..GraphConfig::default() };
//! let graph = graph::build(&table, &config, 7, Default::default())?;
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
mod merged;
mod oracle;
mod params;
mod proximity_graph;
mod sampled;
mod statistics;
mod tails;
mod topk;

pub(crate) use self::backend::Backend;
pub use self::build::{build, build_on, renew};
#[cfg(feature = "cli")]
pub(crate) use self::build::{kernel_name, kernel_names};
pub use self::device::Device;
pub use self::hnsw::HnswIndex;
pub use self::knn::{Nearest, Refined, insert, recall, refine, remove, search_exact};
pub(crate) use self::knn::{inconsistent_pairs, k_means, nearest_others};
pub use self::oracle::{build_per_row, exact};
pub use self::proximity_graph::ProximityGraph;
pub use self::statistics::GraphStatistics;
pub(crate) use self::tails::InDegreeTails;
