//! How snapshots get from the refresh worker to their readers.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot::Snapshot;
use super::unembedded::{DrawnFrom, UnembeddedRows};
use crate::error::{Error, Result};
use crate::store::Store;

/// The reading end: the newest snapshot, or with `swap_after_steps` the one that a step uses. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Published {
    timeline: watch::Receiver<Timeline>,
    /// The rows that the run begins with.
    first_store: Store,
    /// The same with their guards, if the run begins without a snapshot.
    unembedded: Option<Arc<UnembeddedRows>>,
    /// The step that first waits for a snapshot, once it is known.
    first_needed_at: Arc<watch::Sender<Option<u64>>>,
}

/// Snapshots by the step from which they are used; without `swap_after_steps` at most one, from step 0.
#[derive(Clone, Debug)]
struct Timeline {
    /// Oldest first; empty until the first snapshot is there.
    snapshots: VecDeque<Scheduled>,
    /// For steps before this one it is decided which snapshot they use; later ones may wait for a refresh.
    decided_before: u64,
}

/// A snapshot that is used from a step on.
#[derive(Clone, Debug)]
pub(super) struct Scheduled {
    from_step: u64,
    snapshot: Arc<Snapshot>,
}

impl Published {
    /// The newest snapshot; `None` while a warm-up has none yet. Never waits for a refresh.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.timeline.borrow().newest()
    }

    /// The rows that the run begins with, if it begins without a snapshot.
    pub(crate) fn unembedded(&self) -> Option<&Arc<UnembeddedRows>> {
        self.unembedded.as_ref()
    }

    /// The rows of the newest snapshot, or those that the run begins with.
    pub(crate) fn store(&self) -> Store {
        self.current().map_or_else(|| self.first_store.clone(), |snapshot| snapshot.store.clone())
    }

    /// The number of those that are in no epoch, since they are of `pairs.corpus`.
    pub(crate) fn in_corpus(&self) -> usize {
        let of_rows = || self.unembedded.as_ref().map_or(0, |rows| rows.facts.in_corpus());
        self.current().map_or_else(of_rows, |snapshot| snapshot.facts.in_corpus())
    }

    /// Tells the worker that a snapshot is needed from `step` on. Only the first call counts.
    pub(crate) fn need_first_at(&self, step: u64) {
        self.first_needed_at.send_if_modified(|needed| needed.is_none() && needed.replace(step).is_none());
    }

    /// The snapshot to use for mini-batch `step`, waiting until there is one and that is decided.
    pub(crate) async fn at(&mut self, step: u64) -> Result<Arc<Snapshot>> {
        self.need_first_at(step);
        let is_decided = |timeline: &Timeline| !timeline.snapshots.is_empty() && step < timeline.decided_before;
        let ended = |_| Error::TaskEnded { task: "refresh" };
        let timeline = self.timeline.wait_for(is_decided).await.map_err(ended)?;
        let used = timeline.snapshots.iter().rev().find(|scheduled| scheduled.from_step <= step);
        let used = used.map(|scheduled| scheduled.snapshot.clone()).or_else(|| timeline.newest());
        used.ok_or(Error::TaskEnded { task: "refresh" })
    }
}

impl Timeline {
    fn newest(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.back().map(|scheduled| scheduled.snapshot.clone())
    }
}

/// The publishing end.
#[derive(Debug)]
pub(super) struct Publisher {
    timeline: watch::Sender<Timeline>,
    /// The step that first waits for a snapshot, once it is known.
    pub first_needed_at: watch::Receiver<Option<u64>>,
}

impl Publisher {
    pub fn new(beginning: DrawnFrom) -> (Self, Published) {
        let first_store = beginning.store().clone();
        let (first, unembedded) = match beginning {
            DrawnFrom::Snapshot(snapshot) => (Some(Scheduled { from_step: 0, snapshot }), None),
            DrawnFrom::Rows(rows) => (None, Some(rows)),
        };
        let timeline = Timeline { snapshots: first.into_iter().collect(), decided_before: u64::MAX };
        let (timeline, readers) = watch::channel(timeline);
        let (first_needed_at, needed) = watch::channel(None);
        let first_needed_at = Arc::new(first_needed_at);
        let published = Published { timeline: readers, first_store, unembedded, first_needed_at };
        (Self { timeline, first_needed_at: needed }, published)
    }

    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.timeline.borrow().newest()
    }

    /// Swaps atomically: readers see the old snapshot or the new one, whole. Gives back those that are no longer used.
    pub fn publish(&self, snapshot: Snapshot) -> VecDeque<Scheduled> {
        let mut snapshots = [Scheduled { from_step: 0, snapshot: Arc::new(snapshot) }].into();
        self.timeline.send_modify(|timeline| std::mem::swap(&mut timeline.snapshots, &mut snapshots));
        snapshots
    }

    /// Publishes a snapshot for step `from_step` and later. Gives back those that no step from `delivered` on uses.
    pub fn publish_from(&self, from_step: u64, snapshot: Snapshot, delivered: u64) -> VecDeque<Scheduled> {
        let mut unused = VecDeque::new();
        self.timeline.send_modify(|timeline| {
            timeline.snapshots.push_back(Scheduled { from_step, snapshot: Arc::new(snapshot) });
            while timeline.snapshots.get(1).is_some_and(|next| next.from_step <= delivered) {
                unused.extend(timeline.snapshots.pop_front());
            }
        });
        unused
    }

    /// Promises that the snapshot of no refresh to come is used before `step`.
    pub fn decide_before(&self, step: u64) {
        self.timeline.send_modify(|timeline| timeline.decided_before = step);
    }
}
