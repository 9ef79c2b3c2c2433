use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::drift::Drift;
use crate::progress::{Progress, Stage};
use crate::sample::{GraphVersion, ModelVersion};

/// What a refresh did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Refreshed {
    /// Which graph is in use now.
    pub graph_version: GraphVersion,
    /// Which model made the embeddings.
    pub model_version: ModelVersion,
    /// Whether there was nothing to do: the graph in use is the one before.
    pub skipped: bool,
    /// Where there was a newer model: how far it had drifted.
    pub drift: Option<Drift>,
    /// Samples that have come.
    pub added: usize,
    /// Samples whose vector was pushed.
    pub pushed: usize,
    /// How long it took.
    pub seconds: RefreshSeconds,
}

/// How long a refresh took, stage by stage, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RefreshSeconds {
    /// Looking for new files, and reading them.
    pub store: f64,
    /// Opening a newer model and probing its drift.
    pub model: f64,
    /// Embedding, and taking pushed vectors.
    pub encode: f64,
    /// The graph.
    pub graph: f64,
    /// Saving it to the checkpoint folder.
    pub checkpoint: f64,
}

impl RefreshSeconds {
    /// All stages together.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.store + self.model + self.encode + self.graph + self.checkpoint
    }
}

/// Tells how long it is since it was asked last.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    pub fn seconds(&mut self) -> f64 {
        let begun = std::mem::replace(&mut self.0, Instant::now());
        (self.0 - begun).as_secs_f64()
    }
}

/// How refreshes have ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefreshCounts {
    /// With a new snapshot.
    pub published: u64,
    /// Without, since nothing would have changed, or too little.
    pub skipped: u64,
    /// With an error.
    pub failed: u64,
    /// Given up for a newer model.
    pub cancelled: u64,
}

/// What the worker tells its handles.
#[derive(Debug, Default)]
pub(super) struct RefreshStatus {
    pub published: AtomicU64,
    pub skipped: AtomicU64,
    pub failed: AtomicU64,
    pub cancelled: AtomicU64,
    under_way: Mutex<Option<Progress>>,
}

impl RefreshStatus {
    pub fn counts(&self) -> RefreshCounts {
        RefreshCounts {
            published: self.published.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            failed: self.failed.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
        }
    }

    pub fn progress(&self) -> Option<Progress> {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reach(&self, stage: Stage, done: usize, total: usize) {
        let progress = Progress { stage, done, total: Some(total) };
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    pub fn rest(&self) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
