//! "The run has ended, go on where it was."
//!
//! A [`State`] is a few numbers, counted in delivered mini-batches, for the trainer to keep with its own checkpoint.
//! The files that it refers to are in a folder ([`CheckpointConfig`](crate::config::CheckpointConfig)): the last few
//! snapshots and, for each, what was left of the epoch when it was first used. A run that is resumed draws the
//! mini-batches since then again, without their rows, and goes on.
//!
//! A manifest names the files that count. Every file is complete or not there, and has a checksum. A run may therefore
//! be killed at any time, and a damaged file is never used. The manifest also holds the states that a trainer has
//! [kept](crate::refresh::RefreshHandle::keep); each stays resumable until two more are kept.

mod decisions;
mod folder;
mod lock;
mod manifest;
mod numbers;
mod open;
mod saved_pushes;
mod settings;
mod state;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use self::decisions::Decisions;
pub(crate) use self::folder::{CheckpointFolder, WeakCheckpointFolder};
use self::manifest::Manifest;
pub(crate) use self::saved_pushes::{SavedPushes, Waiting};
pub(crate) use self::settings::settings;
pub use self::state::State;
use crate::config::{PipelineConfig, Resume};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::graph::ProximityGraph;
use crate::store::Store;
use crate::telemetry;

/// A snapshot as a checkpoint keeps it.
#[derive(Debug)]
pub(crate) struct SavedSnapshot {
    pub graph: ProximityGraph,
    pub embeddings: Arc<EmbeddingTable>,
    /// The version of the first graph over these embeddings.
    pub embeddings_since_graph: u64,
    /// The step at which the refresh began that made it.
    pub begun_at_step: u64,
    /// The step of the last pass over all samples.
    pub embedded_at_step: u64,
    /// The step at which each sample's vector was pushed; empty if none was.
    pub pushed_at_step: Arc<[u64]>,
    /// The last loss that was pushed of each sample, NaN if none was; empty if none was of any.
    pub losses: Arc<[f32]>,
}

/// What a run begins with.
pub(crate) struct RunStart {
    /// The rows, as they were if the run goes on from another.
    pub store: Store,
    pub state: State,
    /// The snapshot that the state refers to, if the run goes on from another that had one.
    pub snapshot: Option<SavedSnapshot>,
    /// What was pushed in that run and is not in the snapshot.
    pub waiting: Waiting,
    /// `None` without a `checkpoint.dir`.
    pub folder: Option<CheckpointFolder>,
    /// The number of mini-batches that the trainer has taken.
    pub delivered: watch::Sender<u64>,
}

impl State {
    /// The newest state that a trainer has kept in a `checkpoint.dir`; `None` if there is none after step 0.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Io`] for a manifest that cannot be read.
    pub fn newest_kept(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let states = Manifest::read(dir.as_ref())?.map(|manifest| manifest.states);
        Ok(states.unwrap_or_default().into_iter().max_by_key(|state| state.step).filter(|state| state.step > 0))
    }
}

/// Takes the checkpoint folder, and looks up what a state refers to; without a state, begins a run at step 0.
///
/// `store` has the rows of now, which may be more than those that the state was made with. `guide` is the checksum of
/// what identifies the guide's vectors.
pub(crate) async fn begin(
    store: Store,
    state: Option<State>,
    guide: Option<String>,
    config: &PipelineConfig,
) -> Result<RunStart> {
    let (delivered, receiver) = watch::channel(0);
    let lag = config.refresh.swap_after_steps.unwrap_or(0);
    let pending = lag / config.refresh.every_steps.unwrap_or(u64::MAX);
    let pending = usize::try_from(pending).unwrap_or(0);
    let folder = CheckpointFolder::take(&config.checkpoint, pending, &config.stream, receiver).await?;
    let start = match state {
        Some(state) => resume(store, state, guide, folder, delivered, config).await?,
        None => begin_anew(store, guide, folder, delivered, config).await?,
    };
    start.delivered.send_replace(start.state.step);
    Ok(start)
}

async fn begin_anew(
    store: Store,
    guide: Option<String>,
    folder: Option<CheckpointFolder>,
    delivered: watch::Sender<u64>,
    config: &PipelineConfig,
) -> Result<RunStart> {
    let first_graph = u64::from(config.walk.warm_up.is_none());
    let first = State::first(config.seed, store.fingerprint(), settings(config), first_graph);
    let state = State { guide, ..first };
    if let Some(folder) = folder.clone() {
        let state = state.clone();
        blocking(move || folder.begin(state)).await?;
    }
    Ok(RunStart { store, state, snapshot: None, waiting: Waiting::default(), folder, delivered })
}

async fn resume(
    store: Store,
    mut state: State,
    guide: Option<String>,
    folder: Option<CheckpointFolder>,
    delivered: watch::Sender<u64>,
    config: &PipelineConfig,
) -> Result<RunStart> {
    let refused = |reason: &str| Error::State { reason: reason.to_owned() };
    let Some(folder) = folder else {
        return Err(refused("there is no checkpoint.dir; name the one of the run that the state is of"));
    };
    let settings = settings(config);
    state.check(config.seed, &settings)?;

    let is_latest = config.checkpoint.resume == Resume::Latest;
    if state.has_other_guide(guide.as_ref()) {
        if !is_latest {
            return Err(refused(OTHER_GUIDE));
        }
        telemetry::other_guide(state.step);
    }
    let read = folder.clone();
    let wanted = state.clone();
    let samples = store.len();
    let open = move || {
        let snapshot = match (wanted.graph_version, is_latest) {
            (0, _) => None,
            (_, true) => Some(read.open(None)?),
            (version, false) => Some(read.open(Some(version))?),
        };
        let waiting = read.open_waiting(&wanted, snapshot.as_ref(), samples)?;
        Ok((snapshot, waiting))
    };
    let (snapshot, mut waiting) = blocking(open).await?;
    if let Some(snapshot) = snapshot.as_ref().filter(|_| is_latest) {
        // What was pushed before that step is in the snapshot.
        waiting.retain_from(snapshot.begun_at_step);
        state.step = state.epoch_began_at_step;
        state.graph_version = snapshot.graph.version().0;
        state.graph_used_from_step = state.step;
    }

    let changed = || refused("the rows are not those of the run that the state is of; start anew");
    let samples = snapshot.as_ref().map(|snapshot| snapshot.graph.len());
    let store = store.as_it_was(&state.rows, samples).ok_or_else(changed)?;
    state.settings = settings;
    state.guide = guide;
    let continued = state.clone();
    let written = folder.clone();
    blocking(move || written.resume_from(&continued)).await?;
    Ok(RunStart { store, state, snapshot, waiting, folder: Some(folder), delivered })
}

/// The mini-batches that were drawn are drawn again to learn what is left of the epoch.
const OTHER_GUIDE: &str = "its guide had other vectors than guards.guide has now, so that samples of the epoch would \
                           come twice or not at all; give the same model, on the same provider and release of ONNX \
                           Runtime, or set checkpoint.resume = \"latest\" to begin that epoch again";

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::of_task("checkpoint", e))?
}
