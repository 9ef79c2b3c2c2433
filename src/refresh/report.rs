//! What refreshes report: each its result, and all together their counts and progress.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::drift::Drift;
use crate::progress::{Progress, Stage};
use crate::sample::{GraphVersion, ModelVersion};

/// What a refresh did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Refreshed {
    /// The version of the graph that is in use now.
    pub graph_version: GraphVersion,
    /// The version of the model that made its embeddings.
    pub model_version: ModelVersion,
    /// Whether there was nothing to do: the graph in use is the one before.
    pub skipped: bool,
    /// How far a newer model had drifted; `None` if there was none.
    pub drift: Option<Drift>,
    /// The number of samples that the source has gained.
    pub added: usize,
    /// The number of samples whose vector was pushed.
    pub pushed: usize,
    /// How long the refresh took.
    pub seconds: RefreshSeconds,
}

/// How long a refresh took, stage by stage, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RefreshSeconds {
    /// Looking for new files, and reading them.
    pub store: f64,
    /// Opening a newer model and measuring its drift.
    pub model: f64,
    /// Embedding, and putting pushed vectors in.
    pub encode: f64,
    /// Building the graph.
    pub graph: f64,
    /// Saving the snapshot to the checkpoint folder.
    pub checkpoint: f64,
}

impl RefreshSeconds {
    /// All stages together.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.store + self.model + self.encode + self.graph + self.checkpoint
    }
}

impl std::ops::AddAssign for RefreshSeconds {
    fn add_assign(&mut self, other: Self) {
        // A new stage that is left out here does not compile.
        let Self { store, model, encode, graph, checkpoint } = other;
        self.store += store;
        self.model += model;
        self.encode += encode;
        self.graph += graph;
        self.checkpoint += checkpoint;
    }
}

/// Measures how long one stage after another takes.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the last lap, or since the beginning.
    pub fn lap(&mut self) -> f64 {
        let begun = std::mem::replace(&mut self.0, Instant::now());
        (self.0 - begun).as_secs_f64()
    }
}

/// How refreshes have ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RefreshCounts {
    /// Refreshes that published a new snapshot.
    pub published: u64,
    /// Refreshes that did not, since nothing would have changed, or too little.
    pub skipped: u64,
    /// Refreshes that ended with an error.
    pub failed: u64,
    /// Refreshes that were cancelled for a newer model.
    pub cancelled: u64,
}

/// What the worker shares with its handles.
#[derive(Debug, Default)]
pub(super) struct RefreshStatus {
    pub published: AtomicU64,
    pub skipped: AtomicU64,
    pub failed: AtomicU64,
    pub cancelled: AtomicU64,
    seconds: Mutex<RefreshSeconds>,
    progress: Mutex<Option<Progress>>,
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

    /// What all snapshots that the worker published have taken so far.
    pub fn seconds(&self) -> RefreshSeconds {
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot that was published has taken so long.
    pub fn took(&self, seconds: RefreshSeconds) {
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner) += seconds;
    }

    /// How far the refresh that is running has come; `None` if none is.
    pub fn progress(&self) -> Option<Progress> {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn report(&self, stage: Stage, done: usize, total: usize) {
        self.set(Some(Progress { stage, done, total: Some(total) }));
    }

    /// No refresh is running any longer.
    pub fn clear(&self) {
        self.set(None);
    }

    fn set(&self, progress: Option<Progress>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}
