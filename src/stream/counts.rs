use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::walk::WalkCounts;

/// What a stream has counted since it was started or resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Mini-batches taken.
    pub delivered: u64,
    /// How long the trainer has waited for them: from each fruitless look at the stream to its mini-batch.
    pub trainer_wait: Duration,
    /// How long the producer has waited for a free place among the `prefetch` ones: much of it is as it should be.
    pub producer_wait: Duration,
    /// The most steps between embedding and use.
    pub staleness: u64,
    /// What happened on the walks to the mini-batches taken.
    pub walks: WalkCounts,
    /// Samples that guards have kept out of the epochs that have ended, in all: see
    /// [`EpochSampler`](crate::walk::EpochSampler).
    pub unplaced: u64,
    /// Graphs that could not be noted in the checkpoint folder when they came into use: from the mini-batches drawn
    /// from them, and only from those, no run can be resumed exactly.
    pub unsaved: u64,
}

/// What producer and stream know of each other.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Mini-batches in the epoch that is being made, and in the run as far as that is known: an epoch may have more
    /// samples than the one before.
    pub per_epoch: AtomicU64,
    pub total: AtomicU64,
    /// Samples that guards have kept out of epochs.
    pub unplaced: AtomicU64,
    /// Epochs may be longer than they say.
    pub is_open: bool,
    /// Explicit negatives of each sample.
    pub negatives: usize,
    waited_micros: AtomicU64,
    unsaved: AtomicU64,
}

impl Shared {
    pub fn new(is_open: bool, negatives: usize) -> Self {
        Self { is_open, negatives, ..Self::default() }
    }

    /// The producer has waited.
    pub fn waited(&self, time: Duration) {
        self.waited_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn unsaved(&self) {
        self.unsaved.fetch_add(1, Relaxed);
    }

    /// The stream's own counts, and the producer's.
    pub fn complete(&self, counts: &StreamCounts) -> StreamCounts {
        let producer_wait = Duration::from_micros(self.waited_micros.load(Relaxed));
        let (unplaced, unsaved) = (self.unplaced.load(Relaxed), self.unsaved.load(Relaxed));
        StreamCounts { producer_wait, unplaced, unsaved, ..*counts }
    }
}
