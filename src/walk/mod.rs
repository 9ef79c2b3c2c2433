//! "Here is a graph, give me a mini-batch of ids."
//!
//! An [`EpochSampler`] draws mini-batches until every sample has been in exactly one: by random walk with restart, or
//! uniformly or nearest first to compare with. [`Guards`] keep samples apart that are likely to be false negatives of each
//! other. It depends on nothing but seed, epoch and the graphs and guards it is given. A mini-batch takes well below a
//! microsecond for each of its samples, without guards; an epoch keeps 4 N bytes, and up to 36 N more for walks in its
//! later part.
//!
//! ```
//! # use prosampler::{config::*, graph, embeddings::EmbeddingTable};
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

mod filling;
pub(crate) mod guards;
mod knn;
mod must_draw;
mod negatives;
mod path;
mod random_walk;
mod remaining;
mod reverse;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use self::filling::Filling;
use self::guards::{Admission, BatchGuard, GuardScratch, SparseBitSet};
pub use self::guards::{Groups, Guards};
use self::must_draw::MustDraw;
use self::negatives::{Near, Wanted};
use self::remaining::Remaining;
use self::reverse::ReverseEdges;
use crate::config::{Coverage, SamplerKind, WalkConfig};
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// The ids of one mini-batch, and how they were found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// Distinct samples, in the order in which they were found.
    pub ids: Vec<SampleId>,
    /// Explicit negatives [ids × `walk.negatives`]: near the sample that they are of, and none of `ids`. All differ
    /// where there are enough samples; `None` where no sample may come.
    pub negatives: Vec<Option<SampleId>>,
    /// What happened on the way.
    pub counts: WalkCounts,
}

/// What happened on the way to a mini-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalkCounts {
    /// Moves made along an edge.
    pub moves: u64,
    /// Moves that went out from the start again instead of going on.
    pub restarts: u64,
    /// Starts after the first, at a member or elsewhere, since the walk found nothing fresh for long, or the nearest
    /// first ran out.
    pub new_starts: u64,
    /// Samples drawn uniformly, since the walk was out of moves.
    pub uniform_top_ups: u64,
    /// Samples refused since they have the content of a member, or are as similar as near copies are; these and the
    /// next ones each once a mini-batch.
    pub refused_duplicates: u64,
    /// Samples refused since they share a value with a member: of `guards.distinct`, or of a pair's two columns.
    pub refused_distinct: u64,
    /// Samples refused since they are a member's nearest neighbors, or it is theirs.
    pub refused_nearest: u64,
    /// Samples refused since they are too similar to a member.
    pub refused_similar: u64,
    /// Samples refused since they are too similar to a member by the measure of its own pair, or of theirs.
    pub refused_relative: u64,
    /// Samples that the mini-batch is short of, since guards let no more in.
    pub short: u64,
    /// Explicit negatives drawn uniformly, since the walks from their samples found none.
    pub negatives_topped_up: u64,
    /// Explicit negatives that another sample of the mini-batch has, too, since there were too few.
    pub negatives_repeated: u64,
}

impl WalkCounts {
    /// Samples that guards refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_duplicates
            + self.refused_distinct
            + self.refused_nearest
            + self.refused_similar
            + self.refused_relative
    }
}

impl std::ops::AddAssign for WalkCounts {
    fn add_assign(&mut self, other: Self) {
        // A new counter that is left out here does not compile.
        let Self {
            moves,
            restarts,
            new_starts,
            uniform_top_ups,
            refused_duplicates,
            refused_distinct,
            refused_nearest,
            refused_similar,
            refused_relative,
            short,
            negatives_topped_up,
            negatives_repeated,
        } = other;
        self.moves += moves;
        self.restarts += restarts;
        self.new_starts += new_starts;
        self.uniform_top_ups += uniform_top_ups;
        self.refused_duplicates += refused_duplicates;
        self.refused_distinct += refused_distinct;
        self.refused_nearest += refused_nearest;
        self.refused_similar += refused_similar;
        self.refused_relative += refused_relative;
        self.short += short;
        self.negatives_topped_up += negatives_topped_up;
        self.negatives_repeated += negatives_repeated;
    }
}

/// The mini-batches of one epoch: every sample in exactly one of them, unless guards or the paper's
/// [coverage](Coverage) have it otherwise.
///
/// Guards are never violated. Samples that they keep out of a mini-batch stay for a later one, and groups of which every
/// mini-batch to come must have a sample come first; where nothing else may join, a mini-batch is short. An epoch has as
/// many mini-batches as without guards, or fewer: it ends where no two of the samples left may come together (with
/// `drop_last`, where no full mini-batch is found). Whoever is [left](Self::left) then is left out of this epoch, and in
/// the next one like all others.
#[derive(Clone, Debug)]
pub struct EpochSampler {
    config: WalkConfig,
    seed: u64,
    epoch: u64,
    samples: usize,
    drawn: u64,
    ended: bool,
    /// What guards refused when the epoch ended.
    refused: WalkCounts,
    fresh: Remaining,
    /// With the paper's coverage, what mini-batches are drawn from: all samples.
    all: Option<Remaining>,
    back: Option<ReverseEdges>,
    must_draw: Option<MustDraw>,
    scratch: GuardScratch,
    used: SparseBitSet,
}

/// What is left of an epoch at some point.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
        Self::over(Remaining::all(samples), (samples, 0), config, seed, epoch)
    }

    /// Goes on with what was left of an epoch.
    #[must_use]
    pub fn from_left(left: &Left, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self::over(Remaining::of(left.bits.clone()), (left.samples, left.drawn), config, seed, epoch)
    }

    fn over(fresh: Remaining, (samples, drawn): (usize, u64), config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self {
            config: config.clone(),
            seed,
            epoch,
            samples,
            drawn,
            ended: false,
            refused: WalkCounts::default(),
            fresh,
            all: (config.coverage == Coverage::Paper).then(|| Remaining::all(samples)),
            back: None,
            must_draw: None,
            scratch: GuardScratch::default(),
            used: SparseBitSet::default(),
        }
    }

    /// What is left at this point. Drawing on gives the same as drawing on from [`from_left`](Self::from_left): the order
    /// in which samples happened to be drawn before no longer matters. O(samples).
    pub fn pause(&mut self) -> Left {
        self.back = None;
        self.all = self.all.take().map(|_| Remaining::all(self.samples));
        Left { samples: self.samples, drawn: self.drawn, bits: self.fresh.pause() }
    }

    /// Mini-batches drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Samples of the epoch.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Samples that no mini-batch has had yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.fresh.len()
    }

    /// What the last attempt met, where guards have ended the epoch early.
    #[must_use]
    pub fn refused(&self) -> WalkCounts {
        self.refused
    }

    /// The next mini-batch, of `batch_size` distinct samples that no earlier one had; the last one may be smaller.
    /// `None` when all samples have been drawn, or with `drop_last` when fewer than `batch_size` are left. The paper's
    /// [coverage](Coverage::Paper) allows for samples that came before.
    ///
    /// # Panics
    /// Where `graph` has fewer samples than this epoch.
    pub fn next(&mut self, graph: &ProximityGraph) -> Option<Draw> {
        self.draw(graph, None)
    }

    /// [`next`](Self::next) under guards: no two samples of the mini-batch, and no sample and negative, that these keep
    /// apart.
    ///
    /// # Panics
    /// Where `graph`, or the embeddings of `guards`, have fewer samples than this epoch.
    pub fn next_guarded(&mut self, graph: &ProximityGraph, guards: &Guards) -> Option<Draw> {
        self.draw(graph, (!guards.is_idle()).then_some(guards))
    }

    fn draw(&mut self, graph: &ProximityGraph, guards: Option<&Guards>) -> Option<Draw> {
        let (size, least) = self.size(guards.is_some())?;
        let mut generator = generator(self.seed, self.epoch, self.drawn);
        self.update_reverse_edges(graph, guards.map_or(0, Guards::skip));
        let must_draw = guards.map_or_else(Vec::new, |guards| self.must_draw(guards, &mut generator));
        for _ in 0..ATTEMPTS {
            let mut scratch = std::mem::take(&mut self.scratch);
            let draw = match guards {
                None => self.fill(graph, 0, size, &[], (), &mut generator),
                Some(guards) => {
                    let watch = BatchGuard::new(guards, graph, &mut scratch);
                    self.fill(graph, guards.skip(), size, &must_draw, watch, &mut generator)
                }
            };
            self.scratch = scratch;
            let found = draw.ids.len() >= least;
            for &id in &draw.ids {
                match self.all.as_mut().filter(|_| size == self.config.batch_size) {
                    Some(all) => {
                        // They are free for the next one in any case.
                        all.put_back(id);
                        if found {
                            self.fresh.take(id);
                        }
                    }
                    None if found => {}
                    None => self.fresh.put_back(id),
                }
            }
            if found {
                self.drawn += 1;
                if let Some(must_draw) = &mut self.must_draw {
                    must_draw.drawn(&draw.ids);
                }
                return Some(draw);
            }
            self.refused = draw.counts;
        }
        self.ended = true;
        None
    }

    /// How large the next mini-batch is to be, and how large at least.
    fn size(&self, guarded: bool) -> Option<(usize, usize)> {
        let (full, left) = (self.config.batch_size.min(self.samples), self.fresh.len());
        let over = self.drawn >= mini_batches_per_epoch(self.samples, &self.config);
        let size = match self.config.coverage {
            Coverage::Exact if over => 0,
            Coverage::Exact => full.min(left),
            // The rest of a division is left for a small one, of more than one.
            Coverage::Paper if left > self.samples % self.config.batch_size => full,
            Coverage::Paper if left < 2 => 0,
            Coverage::Paper => left,
        };
        if self.ended || size == 0 || (self.config.drop_last && size < self.config.batch_size) {
            return None;
        }
        let least = if !guarded || self.config.drop_last { size } else { size.min(2) };
        Some((size, least))
    }

    /// In the later part of an epoch walks go back along edges, too, so that they find what is left.
    fn update_reverse_edges(&mut self, graph: &ProximityGraph, skip: usize) {
        let late = self.fresh.len() < self.samples - self.samples / EARLY;
        let walks = self.config.sampler == SamplerKind::RandomWalk && self.config.coverage == Coverage::Exact;
        match &mut self.back {
            Some(back) if back.are_of(graph) => back.keep_fresh(&self.fresh),
            back if late && walks => *back = Some(ReverseEdges::new(graph, &self.fresh, skip)),
            _ => {}
        }
    }

    /// Samples that must come now, or the epoch cannot have them all.
    fn must_draw(&mut self, guards: &Guards, generator: &mut ChaCha8Rng) -> Vec<SampleId> {
        if self.config.coverage == Coverage::Paper {
            return Vec::new();
        }
        let must_draw = match self.must_draw.take().filter(|must_draw| must_draw.are_of(guards.groups())) {
            Some(must_draw) => must_draw,
            None => MustDraw::new(guards.groups(), &self.fresh),
        };
        let left = mini_batches_per_epoch(self.samples, &self.config) - self.drawn;
        self.must_draw.insert(must_draw).samples(&self.fresh, left, generator)
    }

    /// One attempt at a mini-batch, which begins with samples that are due.
    fn fill<A: Admission>(
        &mut self,
        graph: &ProximityGraph,
        skip: usize,
        size: usize,
        must_draw: &[SampleId],
        admission: A,
        generator: &mut ChaCha8Rng,
    ) -> Draw {
        let alpha = self.config.restart_probability.at(self.epoch);
        let (fresh, unseen) = match &mut self.all {
            // The last one has nothing but what is left.
            Some(all) if size == self.config.batch_size => (all, Some(&mut self.fresh)),
            _ => (&mut self.fresh, None),
        };
        let mut filling = Filling::new(size, fresh, unseen, admission);
        for &id in must_draw {
            if !filling.is_full() {
                filling.offer(id);
            }
        }
        match self.config.sampler {
            SamplerKind::RandomWalk => {
                random_walk::draw(graph, self.back.as_ref(), skip, &mut filling, alpha, generator);
            }
            SamplerKind::Knn => knn::draw(graph, skip, &mut filling, generator),
            SamplerKind::Uniform => {
                filling.top_up(generator);
            }
        }
        let Filling { ids, mut counts, mut admission, .. } = filling;
        counts.short = (size - ids.len()) as u64;
        let mut negatives = Vec::new();
        if self.config.negatives > 0 {
            let wanted = Wanted { of: &ids, count: self.config.negatives, samples: self.samples };
            let near = Near { graph, skip, restart_probability: alpha };
            negatives = wanted.draw(&near, &mut self.used, &mut admission, &mut counts, generator);
        }
        counts += admission.counts();
        Draw { ids, negatives, counts }
    }
}

/// Mini-batches in an epoch over `samples`; with the paper's coverage as many at least.
#[must_use]
pub fn mini_batches_per_epoch(samples: usize, config: &WalkConfig) -> u64 {
    let size = config.batch_size.max(1);
    if config.coverage == Coverage::Paper {
        return (samples / size).max(1) as u64;
    }
    (if config.drop_last { samples / size } else { samples.div_ceil(size) }) as u64
}

/// Of an epoch, as a divisor: what walks find by themselves before they go back along edges.
const EARLY: usize = 64;

/// Mini-batches begun anew where guards let in too few, before the epoch ends.
const ATTEMPTS: usize = 8;

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
