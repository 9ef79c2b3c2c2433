//! "Here is a graph, give me a mini-batch of ids."
//!
//! An [`EpochSampler`] draws mini-batches until every sample has been in exactly one: by random walk with restart, or
//! uniformly or nearest first to compare with. It depends on nothing but seed, epoch and the graphs it is given. A
//! mini-batch takes well below a microsecond for each of its samples; an epoch keeps 4 N bytes.
//!
//! ```
//! # use prosampler::{config::*, graph, store::EmbeddingTable};
//! use prosampler::walk::EpochSampler;
//! # let vectors = (0..200).map(|i| (i as f32).sin()).collect();
//! # let table = EmbeddingTable::new(vectors, 2, Similarity::Cosine, Default::default())?;
//! # let graph = graph::build(&table, &GraphConfig { candidates: 20, neighbors: 5, ..Default::default() }, 7, Default::default());
//! let config = WalkConfig { batch_size: 32, ..WalkConfig::default() };
//! let mut epoch = EpochSampler::new(graph.len(), &config, 7, 0);
//! let sizes: Vec<_> = std::iter::from_fn(|| epoch.next(&graph)).map(|draw| draw.ids.len()).collect();
//! assert_eq!(sizes, [32, 32, 32, 4]);
//! # Ok::<(), prosampler::Error>(())
//! ```

mod epoch;
mod knn;
mod path;
mod random_walk;
mod uniform;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use self::epoch::Fresh;
use crate::config::{SamplerKind, WalkConfig};
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// The ids of one mini-batch, and how they were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// Distinct samples, in the order in which they were found.
    pub ids: Vec<SampleId>,
    /// What happened on the way.
    pub counts: WalkCounts,
}

/// What happened on the way to a mini-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkCounts {
    /// Moves made along an edge.
    pub moves: u32,
    /// Moves that went out from the start again instead of going on.
    pub restarts: u32,
    /// Starts after the first, since the walk found nothing fresh for long, or the nearest first ran out.
    pub new_starts: u32,
    /// Samples drawn uniformly, since the walk was out of moves.
    pub uniform_top_ups: u32,
}

impl std::ops::AddAssign for WalkCounts {
    fn add_assign(&mut self, other: Self) {
        self.moves += other.moves;
        self.restarts += other.restarts;
        self.new_starts += other.new_starts;
        self.uniform_top_ups += other.uniform_top_ups;
    }
}

/// The mini-batches of one epoch: every sample in exactly one of them.
#[derive(Clone, Debug)]
pub struct EpochSampler {
    config: WalkConfig,
    seed: u64,
    epoch: u64,
    samples: usize,
    drawn: u64,
    fresh: Fresh,
}

/// What is left of an epoch at some point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Samples of the epoch.
    pub samples: usize,
    /// Mini-batches drawn.
    pub drawn: u64,
    /// A bit for each sample, set while it is left.
    pub bits: Vec<u64>,
}

impl EpochSampler {
    /// The mini-batches of `epoch`, from 0, over a data set of `samples`.
    #[must_use]
    pub fn new(samples: usize, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self { config: config.clone(), seed, epoch, samples, drawn: 0, fresh: Fresh::all(samples) }
    }

    /// What is left at this point. Drawing on gives the same as drawing on from [`from_left`](Self::from_left): the order
    /// in which samples happened to be drawn before no longer matters. O(samples).
    pub fn pause(&mut self) -> Left {
        Left { samples: self.samples, drawn: self.drawn, bits: self.fresh.pause() }
    }

    /// Goes on with what was left of an epoch.
    #[must_use]
    pub fn from_left(left: &Left, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        let fresh = Fresh::of(left.bits.clone());
        Self { config: config.clone(), seed, epoch, samples: left.samples, drawn: left.drawn, fresh }
    }

    /// Mini-batches drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// The next mini-batch, of `batch_size` distinct samples that no earlier one had; the last one may be smaller.
    /// `None` when all samples have been drawn, or with `drop_last` when fewer than `batch_size` are left.
    ///
    /// # Panics
    /// Where `graph` has fewer samples than this epoch.
    pub fn next(&mut self, graph: &ProximityGraph) -> Option<Draw> {
        let size = self.config.batch_size.min(self.fresh.len());
        if size == 0 || (self.config.drop_last && size < self.config.batch_size) {
            return None;
        }
        let mut generator = generator(self.seed, self.epoch, self.drawn);
        self.drawn += 1;
        Some(match self.config.sampler {
            SamplerKind::Knn => knn::draw(graph, &mut self.fresh, size, &mut generator),
            SamplerKind::Uniform => uniform::draw(&mut self.fresh, size, &mut generator),
            SamplerKind::RandomWalk => {
                random_walk::draw(graph, &mut self.fresh, size, self.config.restart_probability, &mut generator)
            }
        })
    }
}

/// Mini-batches in an epoch over `samples`.
#[must_use]
pub fn mini_batches_per_epoch(samples: usize, config: &WalkConfig) -> u64 {
    let size = config.batch_size.max(1);
    (if config.drop_last { samples / size } else { samples.div_ceil(size) }) as u64
}

/// A generator for one mini-batch alone, so that a run can begin at any.
fn generator(seed: u64, epoch: u64, mini_batch: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..20].copy_from_slice(b"walk");
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(mini_batch);
    generator
}
