//! "Here is a graph, give me a mini-batch of ids."
//!
//! An [`EpochSampler`] draws mini-batches until every sample has been in exactly one. It walks at random with restart
//! (arXiv 2306.03355), or draws uniformly, nearest first, or by blocks of a partition, for comparison. [`Guards`] keep
//! samples apart that are likely false negatives of each other. The result depends on nothing but settings, seed,
//! epoch, step, and the graphs, guards and random shares that it is given. An epoch keeps 4 N bytes, and up to 36 N
//! more once walks follow reverse edges.
//!
//! | word | meaning |
//! |---|---|
//! | B, α, K, N | `walk.batch_size`, `walk.restart_probability`, `graph.neighbors`, number of samples |
//! | member | a sample that is in the mini-batch already |
//! | step | the number of a mini-batch in the run, counted from 0 |
//! | draw | find the samples of a mini-batch, which are drawn then; a [`Draw`] is what was found |
//! | remaining | not yet drawn in this epoch |
//! | part | what one of `walk.starts` walks fills of a mini-batch: its must-draw samples, and those that it finds |
//! | random share | the share of a mini-batch that is drawn uniformly, `walk.random_share` |
//! | feedback | what moves the random share to hold `walk.target_similarity` |
//! | warm-up | the first steps or epochs of a run, which draw uniformly, `walk.warm_up` |
//! | stratum | the samples of one source, or with one value of the column `walk.same` |
//! | share | what a mini-batch takes of a stratum |
//! | pass | all samples of a stratum, once; with weights, an epoch may have several |
//! | skipped | a sample that could not be embedded |
//! | partition, block | the samples divided into sets of near ones, and one of these: a community or a cluster |
//! | community, cluster | a block that edges of the graph connect (B3), a block around a centroid of k-means (TAS) |
//! | start | the sample that a walk restarts from |
//! | move | one edge of the walk, from the current sample or, with probability α, from the start |
//! | rank, `skip` | position among a sample's neighbors, and how many nearest ones guards forbid |
//! | reverse edge | an edge taken from its end to its beginning, which must be a remaining sample |
//! | guard | a rule on which samples may not share a mini-batch |
//! | batch guard, guard scratch | the guards applied to one mini-batch, and the memory that they reuse |
//! | must-draw | a sample of a group of equal values of which every mini-batch to come needs one |
//! | top up | draw the missing samples uniformly |
//! | negatives | explicit negatives beside the mini-batch, `walk.negatives` for each sample |
//!
//! ```
//! # use prosampler::{config::*, graph, embeddings::EmbeddingTable};
//! use prosampler::walk::EpochSampler;
//! # let vectors = (0..200).map(|i| (i as f32).sin()).collect();
//! # let table = EmbeddingTable::new(vectors, 2, Similarity::Cosine, Default::default())?;
//! # let graph_config = GraphConfig { candidates: 20.into(), neighbors: Some(5), ..Default::default() };
//! # let graph = graph::build(&table, &graph_config, 7, Default::default())?;
//! let config = WalkConfig { batch_size: 32, ..WalkConfig::default() };
//! let mut epoch = EpochSampler::new(graph.len(), &config, 7, 0);
//! let sizes: Vec<_> = std::iter::from_fn(|| epoch.next(&graph)).map(|draw| draw.ids.len()).collect();
//! assert_eq!(sizes, [32, 32, 32, 4]);
//! # Ok::<(), prosampler::Error>(())
//! ```

mod balance;
mod counts;
mod dials;
mod draw;
mod epoch_begin;
mod epoch_plan;
mod epoch_sampler;
mod epoch_strata;
mod feedback;
mod filling;
pub(crate) mod guards;
mod knn;
mod lengths;
mod lists;
mod must_draw;
mod negatives;
mod partition;
mod parts;
mod path;
mod plan;
mod random_walk;
mod remaining;
mod reverse;
mod skipped;
mod strata;
mod weights;

pub use self::counts::WalkCounts;
pub use self::draw::{Draw, Left, mini_batches_per_epoch};
pub use self::epoch_sampler::EpochSampler;
pub use self::feedback::Feedback;
pub(crate) use self::guards::Mask;
pub use self::guards::{Groups, Guards};
pub(crate) use self::lengths::Lengths;
pub use self::strata::{Strata, Weighting, Weights};
