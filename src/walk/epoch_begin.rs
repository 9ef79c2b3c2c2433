//! How an epoch begins, anew or with what remained of it.

use std::sync::Arc;

use super::counts::WalkCounts;
use super::draw::Left;
use super::epoch_sampler::EpochSampler;
use super::epoch_strata::EpochStrata;
use super::guards::{GuardScratch, SparseBitSet};
use super::partition::Partitioning;
use super::remaining::Remaining;
use super::strata::Strata;
use crate::config::{Coverage, WalkConfig};

impl EpochSampler {
    /// Starts `epoch`, counted from 0, over a data set of `samples`.
    #[must_use]
    pub fn new(samples: usize, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self::over(Remaining::all(samples), [samples, samples], config, seed, epoch)
    }

    /// Goes on with the samples that remained when [`forget_order`](Self::forget_order) was called.
    #[must_use]
    pub fn from_left(left: &Left, config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        let sizes = [left.id_end, left.samples];
        let sampler = Self::over(Remaining::of(left.bits.clone()), sizes, config, seed, epoch);
        Self { drawn: left.drawn, unplaced: left.unplaced, ..sampler }
    }

    /// The same epoch, beginning at `step` of the run instead of 0: schedules and the warm-up count from step 0.
    #[must_use]
    pub fn began_at_step(self, step: u64) -> Self {
        Self { began_at_step: step, ..self }
    }

    /// The same epoch, with the samples in it that embeddings skip: it began before there were any.
    ///
    /// They are drawn uniformly, evenly over the mini-batches to come, so that the epoch keeps its length. Guards by
    /// similarity do not know them.
    #[must_use]
    pub fn keeping_skipped(self) -> Self {
        Self { keeps_skipped: true, ..self }
    }

    /// The same epoch, with the partition of an earlier one, so that it is not made anew while the graph is the same.
    #[must_use]
    pub fn with_partition_of(self, earlier: &Self) -> Self {
        Self { partitioning: earlier.partitioning.without_blocks(), ..self }
    }

    /// The same epoch, of which `earlier` has drawn `taken` mini-batches and could draw no more: it goes on with all
    /// its samples once more, and has as many mini-batches as `samples` make.
    #[must_use]
    pub(crate) fn again(self, earlier: &Self, taken: u64, samples: usize) -> Self {
        Self { drawn: taken, samples, unplaced: Some(earlier.unplaced()), ..self.with_partition_of(earlier) }
    }

    /// The same epoch, whose mini-batches take of each stratum what its weight, or `walk.same`, asks for; they have
    /// `least` samples at least, or two.
    ///
    /// It must be told at which step it [began](Self::began_at_step) before.
    ///
    /// # Panics
    /// Panics if there are fewer samples in `strata` than in this epoch.
    #[must_use]
    pub fn divided(mut self, strata: Option<&Arc<Strata>>, least: usize) -> Self {
        let (at, samples) = (self.moment(), self.id_end);
        self.strata =
            strata.map(|strata| EpochStrata::new(strata, &mut self.remaining, &self.config, samples, at, least));
        self
    }

    fn over(remaining: Remaining, [id_end, samples]: [usize; 2], config: &WalkConfig, seed: u64, epoch: u64) -> Self {
        Self {
            config: config.clone(),
            seed,
            epoch,
            began_at_step: 0,
            id_end,
            samples,
            drawn: 0,
            ended: false,
            refused: WalkCounts::default(),
            unplaced: None,
            remaining,
            all: (config.coverage == Coverage::Paper).then(|| Remaining::all(id_end)),
            reverse: None,
            reverse_from: 0,
            partitioning: Partitioning::default(),
            must_draw: None,
            random_share: None,
            weights: None,
            keeps_skipped: false,
            skipped: None,
            strata: None,
            guard_scratch: GuardScratch::default(),
            used: SparseBitSet::default(),
        }
    }

    /// Returns the samples that remain, and makes this sampler continue as [`from_left`](Self::from_left) would.
    ///
    /// The order in which samples were drawn before no longer matters. Takes O(N).
    pub fn forget_order(&mut self) -> Left {
        (self.reverse, self.reverse_from) = (None, 0);
        self.partitioning = self.partitioning.without_blocks();
        if let Some(strata) = &mut self.strata {
            strata.shares.forget_order();
        }
        self.all = self.all.take().map(|_| Remaining::all(self.id_end));
        let Self { id_end, samples, drawn, unplaced, .. } = *self;
        Left { id_end, samples, drawn, bits: self.remaining.forget_order(), unplaced }
    }
}
