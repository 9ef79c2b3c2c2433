//! What a run's owner can ask of its refreshes, from any thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::easing::SharedEasing;
use super::published::Published;
use super::push_queue::PushQueue;
use super::report::{RefreshCounts, RefreshSeconds, RefreshStatus, Refreshed};
use super::snapshot::Snapshot;
use crate::checkpoint::{State, WeakCheckpointFolder};
use crate::config::{Similarity, Storage};
use crate::embeddings::EmbeddingTable;
use crate::encode::EmbeddingCache;
use crate::error::{ArgumentError, EmbeddingError, Error, Result};
use crate::progress::Progress;
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::source::{Source, SourceCounts};
use crate::store::Store;

/// Controls the refreshes of a running pipeline, and takes vectors from the trainer. Cloning shares it.
///
/// ```
/// use prosampler::SampleId;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use prosampler::arrow::{array::{ArrayRef, FixedSizeListArray, RecordBatch}, datatypes::Float32Type};
/// # use prosampler::{Pipeline, config::*, encode::ColumnEncoder, source::MemorySource};
/// # let vector = |i: i32| Some([Some((i as f32).sin()), Some((i as f32).cos())]);
/// # let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..100).map(vector), 2);
/// # let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)])?;
/// # let pipeline = Pipeline::builder()
/// #     .encoder(ColumnEncoder::new(&rows.schema(), "vector")?)
/// #     .source(MemorySource::new(vec![rows])?)
/// #     .graph(GraphConfig { candidates: 20.into(), neighbors: Some(5), ..GraphConfig::default() })
/// #     .walk(WalkConfig { batch_size: 32, ..WalkConfig::default() });
/// let stream = pipeline.start().await?;
/// let handle = stream.handle();
/// // The trainer has a better embedding of sample 3, and asks for a graph over it.
/// handle.push_embeddings(&[SampleId(3)], &[0.0, 1.0])?;
/// handle.refresh_now().await?;
/// assert_eq!(*handle.snapshot().expect("no warm-up").embeddings.get(SampleId(3)), [0.0, 1.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RefreshHandle {
    pub(super) calls: mpsc::UnboundedSender<Call>,
    pub(super) push_queue: Arc<Mutex<PushQueue>>,
    pub(super) status: Arc<RefreshStatus>,
    pub(super) published: Published,
    pub(super) delivered: watch::Receiver<u64>,
    pub(super) source: Arc<dyn Source>,
    pub(super) checkpoint_folder: Option<WeakCheckpointFolder>,
    pub(super) embedding_cache: Option<Arc<EmbeddingCache>>,
    pub(super) storage: Storage,
    pub(super) similarity: Similarity,
    pub(super) easing: SharedEasing,
    /// Whether mini-batches have starts, which losses could bias.
    pub(super) has_starts: bool,
}

/// A request for a refresh: its result is sent here.
pub(super) type Call = oneshot::Sender<Result<Refreshed>>;

impl RefreshHandle {
    /// Starts a refresh and waits until its snapshot is published, or until it is clear why there is none.
    ///
    /// If a refresh is running, this one begins when that has ended.
    ///
    /// # Errors
    /// [`Error::Refresh`] with the cause; the run goes on with the old snapshot. [`Error::Cancelled`] if the run has
    /// ended.
    pub async fn refresh_now(&self) -> Result<Refreshed> {
        let (tx, rx) = oneshot::channel();
        self.calls.send(tx).map_err(|_| Error::Cancelled)?;
        rx.await.unwrap_or(Err(Error::Cancelled))
    }

    /// Takes vectors that the trainer has just made: `vectors` is [ids × dimension], row-major.
    ///
    /// This is the paper's way, without any inference here. The next refresh replaces the embeddings of those samples;
    /// a later push for a sample replaces an earlier one. Copies the vectors, which take 4 d bytes a sample until then.
    /// With `pairs.graph_over = "cross"` a vector is that of the anchor and, behind it, that of the positive. With
    /// `refresh.when_easier`, give the vectors of each mini-batch in one call.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`], [`ArgumentError::UnknownSample`], [`ArgumentError::SkippedSample`], and, whatever
    /// `encode.on_bad_sample` says, [`EmbeddingError::NotFinite`] and [`EmbeddingError::BadLength`]. Nothing is taken
    /// then.
    pub fn push_embeddings(&self, ids: &[SampleId], vectors: &[f32]) -> Result<()> {
        let snapshot = self.published.current();
        let dimension = self.dimension();
        if vectors.len() != ids.len() * dimension {
            return Err(ArgumentError::Shape { found: vectors.len(), dimension }.into());
        }
        self.check_known(ids)?;
        let is_skipped = |id| snapshot.as_ref().is_some_and(|snapshot| snapshot.embeddings.is_skipped(id));
        if let Some(&sample) = ids.iter().find(|id| is_skipped(**id)) {
            return Err(ArgumentError::SkippedSample { sample }.into());
        }

        // A vector that no table accepts would make every later refresh fail.
        let version = ModelVersion(1);
        let mut trial = EmbeddingTable::with_capacity(ids.len(), dimension, self.storage, self.similarity, version)?;
        trial.push(&mut vectors.to_vec()).map_err(|error| with_sample_id(error, ids))?;
        let step = *self.delivered.borrow();
        lock(&self.push_queue).add(ids, vectors, step);
        self.easing.push(ids, &trial);
        Ok(())
    }

    /// Takes losses, or any measure of difficulty, that the trainer has just seen of these samples.
    ///
    /// From the next refresh on, walks prefer to start at samples of greater loss: of four random ones that remain, at
    /// the one with the greatest. A sample whose loss was never pushed has the number of `walk.weight_column` or,
    /// without one, the mean of all losses. A later push for a sample replaces an earlier one. They are kept with a
    /// state like vectors. With several ranks, push the losses of the whole mini-batch on each. Only the samplers
    /// `random_walk` and `knn` have such starts. Takes 4 bytes for each sample.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`], [`ArgumentError::UnknownSample`], [`EmbeddingError::NotFinite`], and [`Error::State`]
    /// for a sampler without starts. Nothing is taken then.
    pub fn push_losses(&self, ids: &[SampleId], losses: &[f32]) -> Result<()> {
        if !self.has_starts {
            let reason = "losses bias where walks start, and walk.sampler has no starts; set it to `random_walk` or \
                          `knn`";
            return Err(Error::State { reason: reason.to_owned() });
        }
        if losses.len() != ids.len() {
            return Err(ArgumentError::Shape { found: losses.len(), dimension: 1 }.into());
        }
        self.check_known(ids)?;
        if let Some((&sample, &value)) = ids.iter().zip(losses).find(|(_, loss)| !loss.is_finite()) {
            return Err(EmbeddingError::NotFinite { sample, component: 0, value }.into());
        }
        let step = *self.delivered.borrow();
        lock(&self.push_queue).add_losses(ids, losses, step);
        Ok(())
    }

    /// Refuses samples that the run does not have.
    fn check_known(&self, ids: &[SampleId]) -> Result<()> {
        let len = self.store().len();
        let unknown = ids.iter().find(|id| id.index() >= len);
        unknown.map_or(Ok(()), |&sample| Err(ArgumentError::UnknownSample { sample, len }.into()))
    }

    /// Notes a mini-batch that was walked on a graph, as it is delivered.
    pub(crate) fn note_delivered(&self, ids: &[SampleId], graph: GraphVersion, similarity: f32) {
        self.easing.deliver(ids, graph, similarity);
    }

    /// The numbers of an embedding, and of each vector that is pushed.
    #[must_use]
    pub fn dimension(&self) -> usize {
        lock(&self.push_queue).dimension()
    }

    /// The neighbors of a sample in the newest graph with their similarities, most similar first.
    ///
    /// # Errors
    /// [`ArgumentError::UnknownSample`], and [`Error::State`] in a warm-up that has no graph yet.
    pub fn neighbors(&self, sample: SampleId) -> Result<Vec<(SampleId, f32)>> {
        let snapshot = self.snapshot_with(sample)?;
        let graph = &snapshot.graph;
        let similarities = graph.similarities(sample).iter().copied();
        let mut found: Vec<_> = graph.neighbors(sample).iter().copied().zip(similarities).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(found)
    }

    /// How similar a sample's anchor and positive are, by the newest embeddings; `None` if rows are not pairs.
    ///
    /// # Errors
    /// Those of [`neighbors`](Self::neighbors).
    pub fn pair_similarity(&self, sample: SampleId) -> Result<Option<f32>> {
        let snapshot = self.snapshot_with(sample)?;
        Ok(snapshot.embeddings.pair_similarity(sample))
    }

    /// The newest snapshot, if its graph has this sample.
    fn snapshot_with(&self, sample: SampleId) -> Result<Arc<Snapshot>> {
        let Some(snapshot) = self.snapshot() else {
            let reason = "there is no graph yet, since the run is in its warm-up; ask again after it".to_owned();
            return Err(Error::State { reason });
        };
        let len = snapshot.graph.len();
        if sample.index() >= len {
            return Err(ArgumentError::UnknownSample { sample, len }.into());
        }
        Ok(snapshot)
    }

    /// Whether there is a [`checkpoint.dir`](crate::config::CheckpointConfig).
    #[must_use]
    pub fn has_checkpoints(&self) -> bool {
        self.checkpoint_folder.is_some()
    }

    /// Keeps a [state](crate::MiniBatchStream::state) resumable, which the trainer saves with its own checkpoint.
    ///
    /// **Order.** Call `keep` first, then write the trainer's own checkpoint: then every state in a checkpoint is kept.
    /// Two states are kept, so a trainer that is killed between the two goes on from its older checkpoint.
    ///
    /// The files that the state refers to stay in [`checkpoint.dir`](crate::config::CheckpointConfig), however many
    /// refreshes follow, until two newer states are kept. Vectors and losses that were pushed up to the state's step
    /// and are not in its graph are kept too.
    ///
    /// All of it is on disk when this returns. Writing takes longest: 4 d bytes for each sample with such a vector.
    /// Call it when the state is made, on all ranks or on rank 0, which does it for all.
    ///
    /// # Errors
    /// [`Error::State`] without a `checkpoint.dir`, for a state of another run, and if a file that it refers to is gone
    /// already; [`Error::Io`]. What was kept before is still kept then.
    pub async fn keep(&self, state: &State) -> Result<()> {
        let refused = |reason: &str| Error::State { reason: reason.to_owned() };
        let Some(folder) = &self.checkpoint_folder else {
            return Err(refused("there is no checkpoint.dir to keep a state in; name a folder"));
        };
        let Some(folder) = folder.upgrade() else {
            return Err(refused("the stream is gone; keep states while it is there"));
        };
        let state = state.clone();
        let push_queue = self.push_queue.clone();
        let keep = move || {
            let push_queue = lock(&push_queue);
            folder.keep(&state, &push_queue.missing_from(state.graph_version, state.step))
        };
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(|e| Error::of_task("checkpoint", e))?
    }

    /// Samples whose embeddings this run has taken from `encode.cache_dir` so far, at its start and in refreshes.
    #[must_use]
    pub fn embeddings_reused(&self) -> u64 {
        self.embedding_cache.as_ref().map_or(0, |cache| cache.reused())
    }

    /// How refreshes have ended so far.
    #[must_use]
    pub fn counts(&self) -> RefreshCounts {
        self.status.counts()
    }

    /// What all new snapshots have taken so far in the background, in seconds, stage by stage.
    #[must_use]
    pub fn seconds(&self) -> RefreshSeconds {
        self.status.seconds()
    }

    /// How far the refresh that is running has come; `None` if none is.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.status.progress()
    }

    /// What went wrong without stopping the reading of the source.
    ///
    /// Rows and texts are those skipped when the newest snapshot's rows were read, in this run or in the one that
    /// cached them. Requests are those of this run.
    #[must_use]
    pub fn source_counts(&self) -> SourceCounts {
        let store = self.store();
        SourceCounts { skipped_rows: store.skipped_rows(), bad_texts: store.bad_texts().0, ..self.source.counts() }
    }

    /// The number of mini-batches that the trainer has taken, before a resume too.
    #[cfg(feature = "metrics")]
    pub(crate) fn delivered(&self) -> u64 {
        *self.delivered.borrow()
    }

    pub(crate) fn published(&self) -> Published {
        self.published.clone()
    }

    /// The newest snapshot; `None` while a [warm-up](crate::config::WarmUp) has none yet.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.published.current()
    }

    /// The rows of the newest snapshot, or those that the run begins with.
    pub(crate) fn store(&self) -> Store {
        self.published.store()
    }
}

impl std::fmt::Debug for RefreshHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefreshHandle").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

fn lock(push_queue: &Mutex<PushQueue>) -> MutexGuard<'_, PushQueue> {
    push_queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces the index that an error names by the sample's id: entry `i` of `ids` is that of vector `i`.
fn with_sample_id(error: Error, ids: &[SampleId]) -> Error {
    match error {
        Error::Embedding(EmbeddingError::NotFinite { sample, component, value }) => {
            EmbeddingError::NotFinite { sample: ids[sample.index()], component, value }.into()
        }
        Error::Embedding(EmbeddingError::BadLength { sample, length, similarity }) => {
            EmbeddingError::BadLength { sample: ids[sample.index()], length, similarity }.into()
        }
        other => other,
    }
}
