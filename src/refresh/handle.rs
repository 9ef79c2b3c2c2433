use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::report::{RefreshCounts, Refreshed, Told};
use super::snapshot::{Published, Snapshot};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::sample::SampleId;
use crate::source::{Source, SourceCounts};
use crate::store::EmbeddingTable;

/// Reaches into a running pipeline: refreshes at will, and vectors from the trainer. Cloning shares it.
#[derive(Clone)]
pub struct RefreshHandle {
    pub(super) calls: mpsc::UnboundedSender<Call>,
    pub(super) pushed: Arc<Mutex<Pushed>>,
    pub(super) told: Arc<Told>,
    pub(super) published: Published,
    pub(super) delivered: watch::Receiver<u64>,
    pub(super) source: Arc<dyn Source>,
}

/// Someone waits for a refresh.
pub(super) type Call = oneshot::Sender<Result<Refreshed>>;

/// Vectors from the trainer that the next refresh takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pushed {
    /// Where in `vectors`, and at which step.
    places: HashMap<SampleId, (usize, u64)>,
    vectors: Vec<f32>,
}

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
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        let Pushed { places, vectors: kept } = &mut *pushed;
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(dimension)) {
            let place = places.entry(id).or_insert((kept.len(), step));
            place.1 = step;
            if place.0 == kept.len() {
                kept.extend_from_slice(vector);
            } else {
                kept[place.0..][..dimension].copy_from_slice(vector);
            }
        }
        Ok(())
    }

    /// How refreshes have ended so far.
    #[must_use]
    pub fn counts(&self) -> RefreshCounts {
        self.told.counts()
    }

    /// How far the refresh has come that is under way; `None` where none is.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.told.progress()
    }

    /// What reading the source has got over: rows skipped when the newest snapshot's were read, in this run or the one
    /// that cached them, and requests that this run sent again.
    #[must_use]
    pub fn source_counts(&self) -> SourceCounts {
        SourceCounts { skipped_rows: self.snapshot().store.skipped_rows(), ..self.source.counts() }
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

impl Pushed {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Each sample with its vector and the step of its push, in the order of ids.
    pub fn vectors(&self, dimension: usize) -> impl Iterator<Item = (SampleId, &[f32], u64)> {
        let mut places: Vec<_> = self.places.iter().map(|(&id, &(place, step))| (id, place, step)).collect();
        places.sort_unstable();
        places.into_iter().map(move |(id, place, step)| (id, &self.vectors[place..][..dimension], step))
    }

    /// Takes back what a refresh that failed had taken; what was pushed since is newer.
    pub fn restore(&mut self, older: Self, dimension: usize) {
        let newer = std::mem::replace(self, older);
        for (id, vector, step) in newer.vectors(dimension) {
            let place = self.places.entry(id).or_insert((self.vectors.len(), step));
            place.1 = step;
            if place.0 == self.vectors.len() {
                self.vectors.extend_from_slice(vector);
            } else {
                self.vectors[place.0..][..dimension].copy_from_slice(vector);
            }
        }
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
