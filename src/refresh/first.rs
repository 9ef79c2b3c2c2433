//! The first snapshot of a run: built from new embeddings, or restored from a checkpoint.

use super::ages::Ages;
use super::snapshot::{Snapshot, SnapshotParts};
use super::work::RefreshContext;
use crate::checkpoint::{Resumed, SavedPushes};
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::sample::GraphVersion;
use crate::store::Store;

/// What the refresh worker goes on from.
#[derive(Debug)]
pub(crate) struct FirstSnapshot {
    pub snapshot: Snapshot,
    /// Vectors that were pushed in the run before and are not in the snapshot.
    pub waiting: SavedPushes,
    /// Whether the snapshot is of an earlier run. The encoder may be newer than its embeddings then.
    pub is_restored: bool,
}

impl FirstSnapshot {
    /// Builds the graph over the first embeddings, and saves both in the checkpoint folder, if there is one.
    pub fn build(context: &RefreshContext, store: Store, embeddings: EmbeddingTable) -> Result<Self> {
        let version = GraphVersion(1);
        let graph = context.backend.build(&embeddings, context.seed, version)?;
        let parts = SnapshotParts {
            embeddings: embeddings.into(),
            graph,
            ages: Ages::all_at(0),
            embeddings_since_graph: version,
            begun_at_step: 0,
        };
        let snapshot = Snapshot::new(parts, store, &context.guard_rules, None)?;
        if let Some(folder) = &context.checkpoint_folder {
            folder.save(&snapshot.to_saved())?;
        }
        Ok(Self { snapshot, waiting: SavedPushes::default(), is_restored: false })
    }

    /// Takes up the snapshot of an earlier run.
    pub fn restore(context: &RefreshContext, store: Store, resumed: Resumed) -> Result<Self> {
        let snapshot = Snapshot::of_saved(resumed.snapshot, store, &context.guard_rules)?;
        Ok(Self { snapshot, waiting: resumed.waiting, is_restored: true })
    }
}
