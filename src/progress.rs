//! How far a start or a refresh has come.

use std::sync::{Arc, Mutex, PoisonError};

/// How far a start or a refresh has come: `done` of `total` samples in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The stage that is running.
    pub stage: Stage,
    /// The number of samples that are done.
    pub done: usize,
    /// The number of all samples, if it is known.
    pub total: Option<usize>,
}

/// The stages of a start and of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source into the store.
    Store,
    /// Embedding the samples.
    Encode,
    /// Building the graph.
    Graph,
}

impl Stage {
    /// Returns what progress bars call it: `reading`, `embedding` or `graph`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "reading",
            Self::Encode => "embedding",
            Self::Graph => "graph",
        }
    }
}

/// Passes progress on to one listener, which is called by one thread at a time. Clones share the listener.
#[derive(Clone)]
pub(crate) struct ProgressSink(Arc<Mutex<dyn FnMut(Progress) + Send>>);

impl ProgressSink {
    pub fn new(listener: impl FnMut(Progress) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(listener)))
    }

    /// Has another listener hear it first.
    #[cfg(feature = "metrics")]
    pub fn tee(self, mut first: impl FnMut(Progress) + Send + 'static) -> Self {
        Self::new(move |progress| {
            first(progress);
            self.report(progress.stage, progress.done, progress.total);
        })
    }

    pub fn report(&self, stage: Stage, done: usize, total: Option<usize>) {
        let mut listener = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listener(Progress { stage, done, total });
    }
}
