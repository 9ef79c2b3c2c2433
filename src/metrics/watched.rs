//! What is watched: first a start, then the run.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::progress::Progress;
use crate::refresh::RefreshHandle;
use crate::stream::Course;

/// A run that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(super) begun: Instant,
    start: Mutex<Option<Progress>>,
    run: OnceLock<Run>,
}

/// A run that streams.
#[derive(Debug)]
pub(crate) struct Run {
    pub course: Arc<Course>,
    pub handle: RefreshHandle,
}

impl Watched {
    pub fn new() -> Self {
        Self { begun: Instant::now(), start: Mutex::default(), run: OnceLock::new() }
    }

    /// The start has come so far.
    pub fn starts(&self, progress: Progress) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// The start is over.
    pub fn streams(&self, course: Arc<Course>, handle: RefreshHandle) {
        // A run begins to stream once.
        let _ = self.run.set(Run { course, handle });
    }

    /// `None` while it starts.
    pub(super) fn run(&self) -> Option<&Run> {
        self.run.get()
    }

    /// What is made at the moment: by the start, or by a refresh.
    pub(super) fn progress(&self) -> Option<Progress> {
        match self.run() {
            Some(run) => run.handle.progress(),
            None => *self.start.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
