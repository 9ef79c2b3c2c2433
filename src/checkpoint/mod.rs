//! "The run has ended, go on where it was."
//!
//! A [`State`] is a few numbers, counted in delivered mini-batches, for the trainer to keep with its own checkpoint.
//! What it stands on lies in a folder ([`CheckpointConfig`](crate::config::CheckpointConfig)): the last few snapshots
//! and, for each, what was left of the epoch when it was first used. A run that is resumed draws again what the trainer
//! had since then, some million samples a second, and goes on. Every file is complete or not there, and has a checksum,
//! so a run may be killed at any time, and what is damaged is never taken for sound.
//!
//! A manifest names the files that count. What a trainer has [saved](crate::refresh::RefreshHandle::keep) is in it, too,
//! and stays resumable until it has saved twice more.

mod folder;
mod manifest;
mod numbers;
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

/// A snapshot, as it is kept.
#[derive(Debug)]
pub(crate) struct SavedSnapshot {
    pub graph: ProximityGraph,
    pub embeddings: Arc<EmbeddingTable>,
    /// The first graph over these embeddings.
    pub embeddings_of: u64,
    /// When the refresh began that made it.
    pub begun_at_step: u64,
    /// When the embeddings were made, all of them, and since by pushes.
    pub embedded_at_step: u64,
    pub pushed_at_step: Arc<[u64]>,
}

/// What a run begins with: the rows as they were, where it stands, and the snapshot that it stood on.
pub(crate) struct Begin {
    pub store: Store,
    pub state: State,
    /// Where it goes on from another run: its snapshot, and what was pushed and is not in it.
    pub kept: Option<(Box<SavedSnapshot>, SavedPushes)>,
}

/// What a state stands on, where there is one, and else step 0.
pub(crate) async fn begin(
    store: Store,
    state: Option<State>,
    checkpoints: Option<Checkpoints>,
    config: &PipelineConfig,
) -> Result<Begin> {
    let refused = |reason: &str| Error::State { reason: reason.to_owned() };
    let settings = settings(config);
    let Some(mut state) = state else {
        let state = State::first(config.seed, store.fingerprint(), settings);
        if let Some(checkpoints) = checkpoints {
            let state = state.clone();
            blocking(move || checkpoints.begin(state)).await?;
        }
        return Ok(Begin { store, state, kept: None });
    };
    let Some(checkpoints) = checkpoints else {
        return Err(refused("there is no checkpoint.dir; name the one of the run that the state is of"));
    };
    state.check(config.seed, &settings)?;
    let latest = config.checkpoint.resume == Resume::Latest;
    let version = (!latest).then_some(state.graph_version);
    let opened = checkpoints.clone();
    let of_state = state.clone();
    let (kept, mut waiting) = blocking(move || {
        let kept = opened.open(version)?;
        let waiting = opened.open_waiting(&of_state, &kept)?;
        Ok((kept, waiting))
    })
    .await?;
    if latest {
        // The rest is in the snapshot.
        waiting.retain_from(kept.begun_at_step);
        state.step = state.epoch_began_at_step;
        (state.graph_version, state.graph_used_from_step) = (kept.graph.version().0, state.step);
    }
    let changed = || refused("the rows are not those of the run that the state is of; start anew");
    let store = store.as_it_was(&state.rows, kept.graph.len()).ok_or_else(changed)?;
    state.settings = settings;
    let of_run = state.clone();
    blocking(move || checkpoints.go_on(&of_run)).await?;
    Ok(Begin { store, state, kept: Some((Box::new(kept), waiting)) })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::of_task("checkpoint", e))?
}
