use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::counts::WalkCounts;
use super::draw::{Draw, mini_batches_per_epoch};
use super::epoch_strata::EpochStrata;
use super::filling::Filling;
use super::guards::{Admission, BatchGuard, Divided, GuardScratch, Guards, SparseBitSet};
use super::must_draw::MustDraw;
use super::negatives::NegativeRequest;
use super::partition::{PartitionRequest, Partitioning};
use super::plan::{Ground, Plan};
use super::remaining::Remaining;
use super::reverse::ReverseEdges;
use super::skipped::SkippedSamples;
use super::strata::{Moment, Share};
use crate::config::{Coverage, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// Draws the mini-batches of one epoch, with every sample in exactly one of them.
///
/// Guards are never violated, so they change this: a sample that they keep out of a mini-batch waits for a later one,
/// groups of which every mini-batch to come needs a sample come first, and a mini-batch is short if nothing else may
/// join. An epoch has at most as many mini-batches as without guards. It ends early if no two of the remaining samples
/// may share a mini-batch or, with `drop_last`, if no full one is found. Samples that [remain](Self::left) then are
/// left out of this epoch, and are in the next one like all others.
///
/// The paper's [coverage](Coverage::Paper) lets samples come more than once.
///
/// During the [warm-up](WalkConfig::warm_up) mini-batches and explicit negatives are uniform. They can be drawn
/// [without a graph](Self::next_uniform); an epoch that began so goes on with one.
///
/// ```
/// use prosampler::config::WalkConfig;
/// use prosampler::graph::ProximityGraph;
/// use prosampler::{GraphVersion, SampleId, walk::EpochSampler};
///
/// // Two pairs of samples, each the other's neighbor.
/// let neighbors = [1, 0, 3, 2].map(SampleId).to_vec();
/// let graph = ProximityGraph::new(neighbors, vec![0.9; 4], 1, GraphVersion(1))?;
/// let config = WalkConfig { batch_size: 2, ..WalkConfig::default() };
/// let mut epoch = EpochSampler::new(graph.len(), &config, 7, 0);
/// let first = epoch.next(&graph).expect("the epoch has begun");
/// assert!(graph.neighbors(first.ids[0]).contains(&first.ids[1]));
/// assert_eq!((epoch.drawn(), epoch.left()), (1, 2));
/// # Ok::<(), prosampler::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EpochSampler {
    pub(super) config: WalkConfig,
    pub(super) seed: u64,
    pub(super) epoch: u64,
    /// The step of the run at which the epoch began.
    pub(super) began_at_step: u64,
    /// One beyond the highest id.
    pub(super) id_end: usize,
    /// How many samples the epoch has.
    pub(super) samples: usize,
    pub(super) drawn: u64,
    pub(super) ended: bool,
    /// What guards refused when the epoch ended.
    pub(super) refused: WalkCounts,
    /// How many samples guards had kept out when the epoch began [again](Self::again).
    pub(super) unplaced: Option<usize>,
    pub(super) remaining: Remaining,
    /// All samples; with the paper's coverage, mini-batches are drawn from these.
    pub(super) all: Option<Remaining>,
    pub(super) reverse: Option<ReverseEdges>,
    /// How many mini-batches must have been drawn before reverse edges are made, since a stratum began anew.
    pub(super) reverse_from: u64,
    pub(super) partitioning: Partitioning,
    pub(super) must_draw: Option<MustDraw>,
    /// The random share that feedback has chosen, instead of that of the settings.
    pub(super) random_share: Option<f64>,
    /// Which samples are preferred as starts.
    pub(super) weights: Option<Arc<[f32]>>,
    /// Whether samples that embeddings have skipped stay in the epoch.
    pub(super) keeps_skipped: bool,
    pub(super) skipped: Option<SkippedSamples>,
    /// `None` if mini-batches take all samples alike.
    pub(super) strata: Option<EpochStrata>,
    pub(super) guard_scratch: GuardScratch,
    /// The samples that cannot be an explicit negative of the mini-batch any more.
    pub(super) used: SparseBitSet,
}

impl EpochSampler {
    /// Draws this share, 0 to 1, of the mini-batches to come uniformly, instead of `walk.random_share`.
    ///
    /// This is how [`Feedback`](super::Feedback) moves it.
    pub fn set_random_share(&mut self, random_share: f64) {
        self.random_share = Some(random_share);
    }

    /// Makes walks of the mini-batches to come start at samples of greater weight: of four random ones that remain at
    /// the heaviest. `weights` has a finite number for each sample; without it, starts are uniform.
    pub fn set_weights(&mut self, weights: Option<Arc<[f32]>>) {
        self.weights = weights;
    }

    /// How many mini-batches were drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// The step of the run that the next mini-batch belongs to.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.began_at_step + self.drawn
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

    /// How many mini-batches the epoch has at most; with the paper's coverage, how many at least.
    #[must_use]
    pub fn mini_batches(&self) -> u64 {
        match &self.strata {
            Some(strata) => strata.mini_batches(self.moment(), &self.remaining),
            _ if self.drawn == 0 => mini_batches_per_epoch(self.left(), &self.config),
            _ => {
                let all = mini_batches_per_epoch(self.samples, &self.config);
                let more = mini_batches_per_epoch(self.left(), &self.config);
                if self.config.coverage == Coverage::Paper { all } else { all.min(self.drawn + more) }
            }
        }
    }

    /// Whether samples are divided into strata.
    pub(crate) fn is_divided(&self) -> bool {
        self.strata.is_some()
    }

    /// Whether mini-batches have samples that the epoch has had.
    pub(crate) fn is_repeated(&self) -> bool {
        self.unplaced.is_some()
    }

    /// How many samples have been in no mini-batch, of an epoch that has ended and would have had them all.
    ///
    /// Those that weights leave out, and with `drop_last` those of a last mini-batch, are not among them.
    pub(crate) fn unplaced(&self) -> usize {
        if let Some(unplaced) = self.unplaced {
            return unplaced;
        }
        let WalkConfig { coverage, drop_last, batch_size, .. } = self.config;
        let is_whole = self.strata.as_ref().is_none_or(|strata| strata.shares.draws_from_all());
        let expected = match (coverage, &self.strata) {
            // One sample may be left in any case, and with `drop_last` fewer than a mini-batch has.
            (Coverage::Paper, _) => return 0,
            (_, Some(strata)) if strata.shares.is_weighted() => return 0,
            _ if drop_last && is_whole => self.left() % batch_size,
            _ => 0,
        };
        self.left().saturating_sub(expected)
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
    /// The sampler `clusters` needs guards with embeddings. Without them it has no clusters: mini-batches are topped up
    /// uniformly.
    ///
    /// # Panics
    /// Panics if `graph` has fewer samples than this epoch.
    pub fn next(&mut self, graph: &ProximityGraph) -> Option<Draw> {
        self.draw(Some(graph), None)
    }

    /// Draws the [next](Self::next) mini-batch under guards, which also hold between samples and negatives.
    ///
    /// # Panics
    /// Panics if `graph`, or the embeddings of `guards`, have fewer samples than this epoch.
    pub fn next_guarded(&mut self, graph: &ProximityGraph, guards: &Guards) -> Option<Draw> {
        self.draw(Some(graph), Some(guards))
    }

    /// Draws the next mini-batch uniformly, without a graph, as during a warm-up before there is one.
    ///
    /// Guards of [groups](Guards::of_groups) hold, between samples and negatives too; negatives are uniform.
    ///
    /// # Panics
    /// Panics if `guards` have embeddings, and these have fewer samples than this epoch.
    pub fn next_uniform(&mut self, guards: &Guards) -> Option<Draw> {
        self.draw(None, Some(guards))
    }

    fn draw(&mut self, graph: Option<&ProximityGraph>, guards: Option<&Guards>) -> Option<Draw> {
        let embeddings = guards.and_then(Guards::embeddings);
        let judge = guards.and_then(Guards::judge);
        let table = embeddings.map(AsRef::as_ref);
        let guards = guards.filter(|guards| !guards.is_idle());
        let mut generator = generator(self.seed, self.epoch, self.drawn);
        let shares = self.shares(table, &mut generator)?;
        let (size, least) = self.size(&shares, guards.is_some())?;
        let plan = self.plan(size, shares, graph, guards, &mut generator);
        if let Some(graph) = graph {
            let config = &self.config;
            let request = PartitionRequest { dials: plan.dials, config, seed: self.seed, graph, embeddings };
            self.partitioning.update(&request, &self.remaining);
        }
        for _ in 0..MAX_ATTEMPTS_PER_BATCH {
            let mut guard_scratch = std::mem::take(&mut self.guard_scratch);
            let len = graph.map_or(self.id_end, ProximityGraph::len);
            let guard = guards.map(|guards| BatchGuard::new(guards, graph, len, &mut guard_scratch));
            let draw = match (guard, self.is_divided()) {
                (None, false) => self.fill(&plan, graph, judge, (), &mut generator),
                (None, true) => self.fill(&plan, graph, judge, Divided(()), &mut generator),
                (Some(guard), false) => self.fill(&plan, graph, judge, guard, &mut generator),
                (Some(guard), true) => self.fill(&plan, graph, judge, Divided(guard), &mut generator),
            };
            self.guard_scratch = guard_scratch;
            let found = draw.ids.len() >= least;
            self.take_or_put_back(&draw.ids, size, found);
            if found {
                self.put_back_first(&plan.shares);
                self.drawn += 1;
                if let Some(reverse) = &mut self.reverse {
                    reverse.count_drawn(&draw.ids);
                }
                if let Some(must_draw) = &mut self.must_draw {
                    must_draw.count_drawn(&draw.ids);
                }
                self.partitioning.count_drawn(&draw.ids);
                return Some(draw);
            }
            self.refused = draw.counts;
        }
        self.ended = true;
        None
    }

    /// Where the epoch stands.
    pub(super) fn moment(&self) -> Moment {
        Moment { epoch: self.epoch, step: self.step(), drawn: self.drawn }
    }

    /// Puts back what was left of a pass: it is in the next pass of its stratum, too.
    fn put_back_first(&mut self, shares: &[Share]) {
        for &id in shares.iter().flat_map(|share| &share.first) {
            self.remaining.put_back(id);
        }
    }

    /// Takes the samples of an attempt if it was `found` to be large enough; otherwise puts them back.
    fn take_or_put_back(&mut self, ids: &[SampleId], size: usize, found: bool) {
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

    /// Makes one attempt at a mini-batch.
    fn fill<A: Admission>(
        &mut self,
        plan: &Plan,
        graph: Option<&ProximityGraph>,
        judge: Option<&EmbeddingTable>,
        admission: A,
        generator: &mut ChaCha8Rng,
    ) -> Draw {
        let (source, unseen) = match &mut self.all {
            // A last, smaller mini-batch takes nothing but what remains.
            Some(all) if plan.size == self.config.batch_size => (all, Some(&mut self.remaining)),
            _ => (&mut self.remaining, None),
        };
        let mut filling = Filling::new(plan.size, source, unseen, self.weights.as_deref(), admission);
        let strata = self.strata.as_ref().map(|of_epoch| of_epoch.strata.as_ref());
        let ground = Ground { graph, reverse: self.reverse.as_ref(), blocks: self.partitioning.blocks(), strata };
        plan.fill(ground, &mut filling, generator);
        let Filling { ids, mut counts, mut admission, .. } = filling;
        counts.short = (plan.size - ids.len()) as u64;
        let mut negatives = Vec::new();
        if self.config.negatives > 0 {
            let (of, config, samples) = (&ids, &self.config, self.id_end);
            let request = NegativeRequest { of, config, samples, strata, judge };
            let search = plan.negative_search(graph);
            negatives = request.find(search.as_ref(), &mut self.used, &mut admission, &mut counts, generator);
        }
        counts += admission.counts();
        Draw { ids, negatives, counts }
    }
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

/// How often a mini-batch is tried if guards let in too few, before the epoch ends.
const MAX_ATTEMPTS_PER_BATCH: usize = 8;
