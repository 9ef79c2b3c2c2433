//! What a stream counts, and what its producer tells it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::walk::WalkCounts;

/// What a stream has counted since it was started or resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// The number of mini-batches taken.
    pub delivered: u64,
    /// How long the trainer has waited for mini-batches: from each poll that found none to the mini-batch.
    pub trainer_wait: Duration,
    /// How long the producer has waited for a free place among the `prefetch` ones. If the trainer is the slower of the
    /// two, this is most of the time, as it should be.
    pub producer_wait: Duration,
    /// The most steps between embedding and use.
    pub staleness: u64,
    /// The number of mini-batches of the [warm-up](crate::config::WarmUp) among them.
    pub warm_up: u64,
    /// What happened on the walks to the mini-batches taken.
    pub walks: WalkCounts,
    /// The number of samples that guards have kept out of the epochs that have ended: see
    /// [`EpochSampler`](crate::walk::EpochSampler).
    pub unplaced: u64,
    /// The number of mini-batches of samples that their epoch had had: guards, or samples without an embedding, would
    /// have ended it before those of other hosts ([`ShardConfig`](crate::config::ShardConfig)).
    pub repeated: u64,
    /// The number of graphs that could not be recorded in the checkpoint folder when they came into use. From the
    /// mini-batches drawn from them, and only from those, no run can be resumed exactly.
    pub unsaved: u64,
}

/// What producer and stream share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Mini-batches in the epoch that is being made.
    pub per_epoch: AtomicU64,
    /// Mini-batches in the run, as far as that is known: an epoch may have more samples than the one before.
    pub total: AtomicU64,
    /// Samples that guards have kept out of epochs.
    pub unplaced: AtomicU64,
    /// Mini-batches of samples that their epoch had had.
    pub repeated: AtomicU64,
    /// Whether epochs may have more mini-batches than `per_epoch`.
    pub is_open: bool,
    waited_micros: AtomicU64,
    unsaved: AtomicU64,
}

impl Shared {
    pub fn new(is_open: bool) -> Self {
        Self { is_open, ..Self::default() }
    }

    /// The producer has waited this long for a free place.
    pub fn add_wait(&self, time: Duration) {
        self.waited_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A graph could not be recorded in the checkpoint folder.
    pub fn add_unsaved(&self) {
        self.unsaved.fetch_add(1, Relaxed);
    }

    /// The stream's own counts, with those of the producer.
    pub fn complete(&self, counts: &StreamCounts) -> StreamCounts {
        StreamCounts {
            producer_wait: Duration::from_micros(self.waited_micros.load(Relaxed)),
            unplaced: self.unplaced.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            unsaved: self.unsaved.load(Relaxed),
            ..*counts
        }
    }
}
