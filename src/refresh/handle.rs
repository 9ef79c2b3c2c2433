use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::pushed::Pushes;
use super::report::{RefreshCounts, RefreshStatus, Refreshed};
use super::snapshot::{Published, Snapshot};
use crate::checkpoint::{State, WeakCheckpoints};
use crate::embeddings::EmbeddingTable;
use crate::encode::EmbeddingCache;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::sample::SampleId;
use crate::source::{Source, SourceCounts};

/// Reaches into a running pipeline: refreshes at will, and vectors from the trainer. Cloning shares it.
#[derive(Clone)]
pub struct RefreshHandle {
    pub(super) calls: mpsc::UnboundedSender<Call>,
    pub(super) pushes: Arc<Mutex<Pushes>>,
    pub(super) status: Arc<RefreshStatus>,
    pub(super) published: Published,
    pub(super) delivered: watch::Receiver<u64>,
    pub(super) source: Arc<dyn Source>,
    pub(super) checkpoints: Option<WeakCheckpoints>,
    pub(super) embeddings: Option<Arc<EmbeddingCache>>,
}

/// Someone waits for a refresh.
pub(super) type Call = oneshot::Sender<Result<Refreshed>>;

impl RefreshHandle {
    /// Starts a refresh, once the one that may be under way has ended, and returns when its snapshot is published, or
    /// why there is none.
    ///
    /// # Errors
    /// [`Error::Refresh`] with the cause; the run goes on with the old snapshot. [`Error::Cancelled`] where the run has
    /// ended.
    pub async fn refresh_now(&self) -> Result<Refreshed> {
        let (tx, rx) = oneshot::channel();
        self.calls.send(tx).map_err(|_| Error::Cancelled)?;
        rx.await.unwrap_or(Err(Error::Cancelled))
    }

    /// Vectors that the trainer has just made, `vectors` [ids × dimension], row-major: the paper's way, without any
    /// inference here. The next refresh puts them in the place of those samples' embeddings; a later push for a sample
    /// replaces an earlier one. Copies them; 4 d bytes a sample until then.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::UnknownSample`], [`Error::SkippedSample`], and, whatever `encode.on_bad_sample` says,
    /// [`Error::NotFinite`] and [`Error::BadLength`]: nothing is taken then.
    pub fn push_embeddings(&self, ids: &[SampleId], vectors: &[f32]) -> Result<()> {
        let table = self.published.current().embeddings.clone();
        let (dimension, len) = (table.dimension(), table.len());
        if vectors.len() != ids.len() * dimension {
            return Err(Error::Shape { found: vectors.len(), dimension });
        }
        if let Some(&sample) = ids.iter().find(|id| id.index() >= len) {
            return Err(Error::UnknownSample { sample, len });
        }
        if let Some(&sample) = ids.iter().find(|id| table.is_skipped(**id)) {
            return Err(Error::SkippedSample { sample });
        }
        // What no table takes would make every refresh fail from here on.
        let (storage, similarity) = (table.storage(), table.similarity());
        let mut tried =
            EmbeddingTable::with_capacity(ids.len(), dimension, storage, similarity, table.model_version())?;
        tried.push(&mut vectors.to_vec()).map_err(|error| named(error, ids))?;
        let step = *self.delivered.borrow();
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner).add(ids, vectors, step);
        Ok(())
    }

    /// Whether there is a [`checkpoint.dir`](crate::config::CheckpointConfig).
    #[must_use]
    pub fn has_checkpoints(&self) -> bool {
        self.checkpoints.is_some()
    }

    /// Says that the trainer saves this [state](crate::MiniBatchStream::state) with its own checkpoint: what it stands
    /// on stays in [`checkpoint.dir`](crate::config::CheckpointConfig), however many refreshes come, until two newer
    /// states are kept. Two, so that a trainer that is killed between its own checkpoint and this call can go on,
    /// whichever it makes first. Vectors that were pushed up to the state's step and are not in its graph are kept too,
    /// so that whoever pushes any calls this before the trainer writes its own checkpoint. On disk when this returns, after some milliseconds and what it takes to write
    /// 4 d bytes a sample with such a vector. Call it when the state is made, and on all ranks or on rank 0, which does
    /// it for all.
    ///
    /// # Errors
    /// [`Error::State`] without a `checkpoint.dir`, for a state of another run, and where what it stands on is gone
    /// already; [`Error::Io`]. What was kept before is still kept then.
    pub async fn keep(&self, state: &State) -> Result<()> {
        let refused = |reason: &str| Error::State { reason: reason.to_owned() };
        let folder = self.checkpoints.as_ref();
        let folder = folder.ok_or_else(|| refused("there is no checkpoint.dir to keep a state in; name a folder"))?;
        let checkpoints =
            folder.upgrade().ok_or_else(|| refused("the stream is gone; keep states while it is there"))?;
        let (state, pushes) = (state.clone(), self.pushes.clone());
        let keep = move || {
            let waiting = pushes.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = waiting.beyond(state.graph_version, state.step);
            checkpoints.keep(&state, &waiting)
        };
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(|e| Error::of_task("checkpoint", e))?
    }

    /// Samples whose embeddings this run has taken from `encode.cache_dir` so far, at its start and in refreshes.
    #[must_use]
    pub fn embeddings_reused(&self) -> u64 {
        self.embeddings.as_ref().map_or(0, |cache| cache.reused())
    }

    /// How refreshes have ended so far.
    #[must_use]
    pub fn counts(&self) -> RefreshCounts {
        self.status.counts()
    }

    /// How far the refresh has come that is under way; `None` where none is.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.status.progress()
    }

    /// What reading the source has got over: rows skipped when the newest snapshot's were read, in this run or the one
    /// that cached them, and requests that this run sent again.
    #[must_use]
    pub fn source_counts(&self) -> SourceCounts {
        let store = &self.snapshot().store;
        SourceCounts { skipped_rows: store.skipped_rows(), bad_texts: store.bad_texts().0, ..self.source.counts() }
    }

    pub(crate) fn published(&self) -> Published {
        self.published.clone()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.current()
    }
}

impl std::fmt::Debug for RefreshHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefreshHandle").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// An error about the vectors of these samples that were put into a table of their own, with the sample's own name.
fn named(error: Error, ids: &[SampleId]) -> Error {
    match error {
        Error::NotFinite { sample, component, value } => {
            Error::NotFinite { sample: ids[sample.index()], component, value }
        }
        Error::BadLength { sample, length, similarity } => {
            Error::BadLength { sample: ids[sample.index()], length, similarity }
        }
        other => other,
    }
}
