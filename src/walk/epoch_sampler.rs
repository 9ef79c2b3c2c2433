use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::counts::WalkCounts;
use super::filling::Filling;
use super::guards::{Admission, BatchGuard, GuardScratch, Guards, SparseBitSet};
use super::must_draw::MustDraw;
use super::negatives::{NegativeRequest, NegativeSearch};
use super::remaining::Remaining;
use super::reverse::ReverseEdges;
use super::{knn, random_walk};
use crate::config::{Coverage, SamplerKind, WalkConfig};
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// The ids of one mini-batch, and what happened while they were found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The distinct samples of the mini-batch, in the order in which they were found.
    pub ids: Vec<SampleId>,
    /// The explicit negatives [ids × `walk.negatives`], near their sample and never one of `ids`.
    ///
    /// They are distinct if there are enough samples, and `None` if no sample is allowed.
    pub negatives: Vec<Option<SampleId>>,
    /// What happened while they were found.
    pub counts: WalkCounts,
}

/// Draws the mini-batches of one epoch, with every sample in exactly one of them.
///
/// Guards are never violated, so they change this: a sample that they keep out of a mini-batch waits for a later one,
/// groups of which every mini-batch to come needs a sample come first, and a mini-batch is short if nothing else may
/// join. An epoch has at most as many mini-batches as without guards. It ends early if no two of the remaining samples
/// may share a mini-batch or, with `drop_last`, if no full one is found. Samples that [remain](Self::left) then are
/// left out of this epoch, and take part in the next one like all others.
///
/// The paper's [coverage](Coverage::Paper) lets samples come more than once.
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
    remaining: Remaining,
    /// All samples, which mini-batches are drawn from with the paper's coverage.
    all: Option<Remaining>,
    reverse: Option<ReverseEdges>,
    must_draw: Option<MustDraw>,
    guard_scratch: GuardScratch,
    /// The samples that cannot be an explicit negative of the mini-batch any more.
    used: SparseBitSet,
}

/// The samples that remain in an epoch at some point.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// How many samples the epoch has.
    pub samples: usize,
    /// How many mini-batches were drawn.
    pub drawn: u64,
    /// A bit for each sample, which is set if it remains.
    pub bits: Vec<u64>,
}

impl EpochSampler {
    /// Starts `epoch`, counted from 0, over a data set of `samples`.
    #[must_use]
    pub fn new(samples: usize, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self::over(Remaining::all(samples), samples, config, seed, epoch)
    }

    /// Goes on with the samples that remained when [`forget_order`](Self::forget_order) was called.
    #[must_use]
    pub fn from_left(left: &Left, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        let sampler = Self::over(Remaining::of(left.bits.clone()), left.samples, config, seed, epoch);
        Self { drawn: left.drawn, ..sampler }
    }

    fn over(remaining: Remaining, samples: usize, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self {
            config: config.clone(),
            seed,
            epoch,
            samples,
            drawn: 0,
            ended: false,
            refused: WalkCounts::default(),
            remaining,
            all: (config.coverage == Coverage::Paper).then(|| Remaining::all(samples)),
            reverse: None,
            must_draw: None,
            guard_scratch: GuardScratch::default(),
            used: SparseBitSet::default(),
        }
    }

    /// Returns the samples that remain, and makes this sampler continue as [`from_left`](Self::from_left) would.
    ///
    /// The order in which samples were drawn before no longer matters. Takes O(N).
    pub fn forget_order(&mut self) -> Left {
        self.reverse = None;
        self.all = self.all.take().map(|_| Remaining::all(self.samples));
        Left { samples: self.samples, drawn: self.drawn, bits: self.remaining.forget_order() }
    }

    /// How many mini-batches were drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// How many samples the epoch has.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// How many samples have been in no mini-batch yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.remaining.len()
    }

    /// What guards refused in the last attempt, if they ended the epoch early.
    #[must_use]
    pub fn refused(&self) -> WalkCounts {
        self.refused
    }

    /// Draws the next mini-batch: `batch_size` distinct samples that no earlier one had.
    ///
    /// The last one may be smaller. Returns `None` when all samples have been drawn or, with `drop_last`, when fewer
    /// than `batch_size` remain. The paper's [coverage](Coverage::Paper) also takes samples that came before.
    ///
    /// # Panics
    /// Panics if `graph` has fewer samples than this epoch.
    pub fn next(&mut self, graph: &ProximityGraph) -> Option<Draw> {
        self.draw(graph, None)
    }

    /// Draws the [next](Self::next) mini-batch under guards, which also hold between samples and negatives.
    ///
    /// # Panics
    /// Panics if `graph`, or the embeddings of `guards`, have fewer samples than this epoch.
    pub fn next_guarded(&mut self, graph: &ProximityGraph, guards: &Guards) -> Option<Draw> {
        self.draw(graph, (!guards.is_idle()).then_some(guards))
    }

    fn draw(&mut self, graph: &ProximityGraph, guards: Option<&Guards>) -> Option<Draw> {
        let (size, least) = self.size(guards.is_some())?;
        let mut generator = generator(self.seed, self.epoch, self.drawn);
        self.update_reverse_edges(graph, guards.map_or(0, Guards::skip));
        let must_draw = guards.map_or_else(Vec::new, |guards| self.must_draw(guards, &mut generator));
        for _ in 0..MAX_ATTEMPTS_PER_BATCH {
            let mut guard_scratch = std::mem::take(&mut self.guard_scratch);
            let draw = match guards {
                None => self.fill(graph, 0, size, &[], (), &mut generator),
                Some(guards) => {
                    let guard = BatchGuard::new(guards, graph, &mut guard_scratch);
                    self.fill(graph, guards.skip(), size, &must_draw, guard, &mut generator)
                }
            };
            self.guard_scratch = guard_scratch;
            let found = draw.ids.len() >= least;
            self.settle(&draw.ids, size, found);
            if found {
                self.drawn += 1;
                if let Some(reverse) = &mut self.reverse {
                    reverse.drawn(&draw.ids);
                }
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

    /// Marks the samples of an attempt as drawn if it was `found` to be large enough; otherwise they remain.
    fn settle(&mut self, ids: &[SampleId], size: usize, found: bool) {
        for &id in ids {
            match self.all.as_mut().filter(|_| size == self.config.batch_size) {
                Some(all) => {
                    // With the paper's coverage they are free for the next mini-batch in any case.
                    all.put_back(id);
                    if found {
                        self.remaining.take(id);
                    }
                }
                None if found => {}
                None => self.remaining.put_back(id),
            }
        }
    }

    /// The size of the next mini-batch, and the least size that is accepted; `None` at the end of the epoch.
    fn size(&self, guarded: bool) -> Option<(usize, usize)> {
        let full = self.config.batch_size.min(self.samples);
        let left = self.remaining.len();
        let over = self.drawn >= mini_batches_per_epoch(self.samples, &self.config);
        let size = match self.config.coverage {
            Coverage::Exact if over => 0,
            Coverage::Exact => full.min(left),
            // The N mod B last samples make a smaller mini-batch, if they are at least two.
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

    /// Makes reverse edges in the later part of an epoch, and keeps them up to date, so that walks find what remains.
    fn update_reverse_edges(&mut self, graph: &ProximityGraph, skip: usize) {
        let late = self.remaining.len() < self.samples - self.samples / FORWARD_ONLY_DIVISOR;
        let walks = self.config.sampler == SamplerKind::RandomWalk && self.config.coverage == Coverage::Exact;
        match &mut self.reverse {
            Some(reverse) if reverse.are_of(graph) => reverse.keep_remaining(&self.remaining),
            reverse if late && walks => *reverse = Some(ReverseEdges::new(graph, self.samples, &self.remaining, skip)),
            _ => {}
        }
    }

    /// The samples that must be in the next mini-batch, or the epoch cannot place them all.
    fn must_draw(&mut self, guards: &Guards, generator: &mut ChaCha8Rng) -> Vec<SampleId> {
        if self.config.coverage == Coverage::Paper {
            return Vec::new();
        }
        let must_draw = match self.must_draw.take().filter(|must_draw| must_draw.are_of(guards.groups())) {
            Some(must_draw) => must_draw,
            None => MustDraw::new(guards.groups(), &self.remaining),
        };
        let left = mini_batches_per_epoch(self.samples, &self.config) - self.drawn;
        self.must_draw.insert(must_draw).samples(&self.remaining, left, generator)
    }

    /// Makes one attempt at a mini-batch, which begins with the `must_draw` samples.
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
        let (source, unseen) = match &mut self.all {
            // A last, smaller mini-batch takes nothing but what remains.
            Some(all) if size == self.config.batch_size => (all, Some(&mut self.remaining)),
            _ => (&mut self.remaining, None),
        };
        let mut filling = Filling::new(size, source, unseen, admission);
        for &id in must_draw {
            if !filling.is_full() {
                filling.offer(id);
            }
        }
        match self.config.sampler {
            SamplerKind::RandomWalk => {
                random_walk::draw(graph, self.reverse.as_ref(), skip, &mut filling, alpha, generator);
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
            let request = NegativeRequest { of: &ids, count: self.config.negatives, samples: self.samples };
            let search = NegativeSearch { graph, skip, restart_probability: alpha };
            negatives = request.draw(&search, &mut self.used, &mut admission, &mut counts, generator);
        }
        counts += admission.counts();
        Draw { ids, negatives, counts }
    }
}

/// How many mini-batches an epoch over `samples` has; with the paper's coverage, how many at least.
#[must_use]
pub fn mini_batches_per_epoch(samples: usize, config: &WalkConfig) -> u64 {
    let size = config.batch_size.max(1);
    if config.coverage == Coverage::Paper {
        return (samples / size).max(1) as u64;
    }
    (if config.drop_last { samples / size } else { samples.div_ceil(size) }) as u64
}

/// A generator for one mini-batch alone, so that a run can start at any mini-batch.
fn generator(seed: u64, epoch: u64, mini_batch: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..20].copy_from_slice(b"walk");
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(mini_batch);
    generator
}

/// Walks follow no reverse edges in the first 1 / 64 of an epoch.
const FORWARD_ONLY_DIVISOR: usize = 64;

/// How often a mini-batch is tried if guards let in too few, before the epoch ends.
const MAX_ATTEMPTS_PER_BATCH: usize = 8;
