//! How snapshots get from the refresh worker to their readers.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::error::{Error, Result};

/// The reading end: the newest snapshot, or with `swap_after_steps` the one that a step uses. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Published(watch::Receiver<Timeline>);

/// Snapshots by the step from which they are used; without `swap_after_steps` always one, from step 0.
#[derive(Clone, Debug)]
struct Timeline {
    /// Oldest first, and never empty.
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
    /// The newest snapshot. Never waits for a refresh.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.borrow().newest()
    }

    /// The snapshot to use for mini-batch `step`, waiting until that is decided.
    pub(crate) async fn at(&mut self, step: u64) -> Result<Arc<Snapshot>> {
        let timeline = self.0.wait_for(|timeline| step < timeline.decided_before).await;
        let ended = |_| Error::TaskEnded { task: "refresh" };
        let timeline = timeline.map_err(ended)?;
        let used = timeline.snapshots.iter().rev().find(|scheduled| scheduled.from_step <= step);
        Ok(used.map_or_else(|| timeline.newest(), |scheduled| scheduled.snapshot.clone()))
    }
}

impl Timeline {
    fn newest(&self) -> Arc<Snapshot> {
        self.snapshots[self.snapshots.len() - 1].snapshot.clone()
    }
}

/// The publishing end.
#[derive(Debug)]
pub(super) struct Publisher(watch::Sender<Timeline>);

impl Publisher {
    pub fn new(first: Snapshot) -> (Self, Published) {
        let first = Scheduled { from_step: 0, snapshot: Arc::new(first) };
        let (tx, rx) = watch::channel(Timeline { snapshots: [first].into(), decided_before: u64::MAX });
        (Self(tx), Published(rx))
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.0.borrow().newest()
    }

    /// Swaps atomically: readers see the old snapshot or the new one, whole. Gives back those that are no longer used.
    pub fn publish(&self, snapshot: Snapshot) -> VecDeque<Scheduled> {
        let mut snapshots = [Scheduled { from_step: 0, snapshot: Arc::new(snapshot) }].into();
        self.0.send_modify(|timeline| std::mem::swap(&mut timeline.snapshots, &mut snapshots));
        snapshots
    }

    /// Publishes a snapshot for step `from_step` and later. Gives back those that no step from `delivered` on uses.
    pub fn publish_from(&self, from_step: u64, snapshot: Snapshot, delivered: u64) -> VecDeque<Scheduled> {
        let mut unused = VecDeque::new();
        self.0.send_modify(|timeline| {
            timeline.snapshots.push_back(Scheduled { from_step, snapshot: Arc::new(snapshot) });
            while timeline.snapshots.get(1).is_some_and(|next| next.from_step <= delivered) {
                unused.extend(timeline.snapshots.pop_front());
            }
        });
        unused
    }

    /// Promises that the snapshot of no refresh to come is used before `step`.
    pub fn decide_before(&self, step: u64) {
        self.0.send_modify(|timeline| timeline.decided_before = step);
    }
}
