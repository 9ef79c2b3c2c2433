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

mod folder;
mod lock;
mod manifest;
mod numbers;
mod open;
mod pushes;
mod settings;
mod state;

use std::sync::Arc;

pub(crate) use self::folder::{Checkpoints, WeakCheckpoints};
pub(crate) use self::pushes::SavedPushes;
pub(crate) use self::settings::settings;
pub use self::state::State;
use crate::config::{PipelineConfig, Resume};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::graph::ProximityGraph;
use crate::store::Store;

/// A snapshot as a checkpoint keeps it.
#[derive(Debug)]
pub(crate) struct SavedSnapshot {
    pub graph: ProximityGraph,
    pub embeddings: Arc<EmbeddingTable>,
    /// The version of the first graph over these embeddings.
    pub embeddings_of: u64,
    /// The step at which the refresh began that made it.
    pub begun_at_step: u64,
    /// The step of the last pass over all samples.
    pub embedded_at_step: u64,
    /// The step at which each sample's vector was pushed; empty if none was.
    pub pushed_at_step: Arc<[u64]>,
}

/// What a run begins with.
pub(crate) struct Begin {
    /// The rows, as they were if the run goes on from another.
    pub store: Store,
    pub state: State,
    /// What the state refers to, if the run goes on from another.
    pub resumed: Option<Resumed>,
}

/// What an earlier run has left.
pub(crate) struct Resumed {
    pub snapshot: SavedSnapshot,
    /// Vectors that were pushed and are not in the snapshot.
    pub waiting: SavedPushes,
}

/// Looks up what a state refers to; without a state, begins a run at step 0.
pub(crate) async fn begin(
    store: Store,
    state: Option<State>,
    checkpoints: Option<Checkpoints>,
    config: &PipelineConfig,
) -> Result<Begin> {
    match state {
        Some(state) => resume(store, state, checkpoints, config).await,
        None => begin_anew(store, checkpoints, config).await,
    }
}

async fn begin_anew(store: Store, checkpoints: Option<Checkpoints>, config: &PipelineConfig) -> Result<Begin> {
    let state = State::first(config.seed, store.fingerprint(), settings(config));
    if let Some(checkpoints) = checkpoints {
        let state = state.clone();
        blocking(move || checkpoints.begin(state)).await?;
    }
    Ok(Begin { store, state, resumed: None })
}

async fn resume(
    store: Store,
    mut state: State,
    checkpoints: Option<Checkpoints>,
    config: &PipelineConfig,
) -> Result<Begin> {
    let refused = |reason: &str| Error::State { reason: reason.to_owned() };
    let Some(checkpoints) = checkpoints else {
        return Err(refused("there is no checkpoint.dir; name the one of the run that the state is of"));
    };
    let settings = settings(config);
    state.check(config.seed, &settings)?;

    let is_latest = config.checkpoint.resume == Resume::Latest;
    let version = (!is_latest).then_some(state.graph_version);
    let folder = checkpoints.clone();
    let wanted = state.clone();
    let open = move || {
        let snapshot = folder.open(version)?;
        let waiting = folder.open_waiting(&wanted, &snapshot)?;
        Ok(Resumed { snapshot, waiting })
    };
    let mut resumed = blocking(open).await?;
    let snapshot = &resumed.snapshot;
    if is_latest {
        // What was pushed before that step is in the snapshot.
        resumed.waiting.retain_from(snapshot.begun_at_step);
        state.step = state.epoch_began_at_step;
        state.graph_version = snapshot.graph.version().0;
        state.graph_used_from_step = state.step;
    }

    let changed = || refused("the rows are not those of the run that the state is of; start anew");
    let store = store.as_it_was(&state.rows, snapshot.graph.len()).ok_or_else(changed)?;
    state.settings = settings;
    let continued = state.clone();
    blocking(move || checkpoints.resume_from(&continued)).await?;
    Ok(Begin { store, state, resumed: Some(resumed) })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::of_task("checkpoint", e))?
}
