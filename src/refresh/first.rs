//! What a run begins with, and how its first snapshot is made.

use std::sync::Arc;

use super::ages::Ages;
use super::embed::ages_after;
use super::facts::RowFacts;
use super::pushed_vectors::Pushes;
use super::shared::{Report, Shared};
use super::snapshot::{Snapshot, SnapshotParts};
use super::unembedded::{DrawnFrom, UnembeddedRows};
use super::work::RefreshContext;
use crate::checkpoint::{SavedSnapshot, Waiting};
use crate::embeddings::EmbeddingTable;
use crate::encode::Encoder;
use crate::error::Result;
use crate::sample::{GraphVersion, ModelVersion};
use crate::store::Store;

/// What the refresh worker goes on from.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub drawn_from: DrawnFrom,
    /// What was pushed in the run before and is not in the snapshot.
    pub waiting: Waiting,
    /// Whether the snapshot is of an earlier run. The encoder may be newer than its embeddings then.
    pub is_restored: bool,
}

/// The embeddings of a first snapshot, and where they are from.
pub(crate) struct FirstEmbeddings {
    pub table: Shared<EmbeddingTable>,
    /// The step at which the first pass over the samples began.
    pub step: u64,
    pub(super) pushed: Arc<Pushes>,
    pub facts: RowFacts,
}

impl Beginning {
    /// A run that begins with its first snapshot.
    pub fn embedded(snapshot: Snapshot) -> Self {
        let drawn_from = DrawnFrom::Snapshot(snapshot.into());
        Self { drawn_from, waiting: Waiting::default(), is_restored: false }
    }

    /// A run that goes on with the snapshot of an earlier one, over the same rows. `report` is told how many a guide
    /// has embedded.
    pub fn restored(
        context: &RefreshContext,
        store: Store,
        saved: SavedSnapshot,
        waiting: Waiting,
        report: Report<'_>,
    ) -> Result<Self> {
        let facts = context.row_facts(&store, None, report)?;
        let recipe = context.recipe_of_saved(&saved.embeddings);
        let snapshot = Snapshot::of_saved(saved, recipe, store, &context.row_rules, facts);
        Ok(Self { drawn_from: DrawnFrom::Snapshot(snapshot.into()), waiting, is_restored: true })
    }

    /// A run that begins, or goes on, in a warm-up that has no snapshot yet. `report` is told how many a guide has
    /// embedded.
    pub fn unembedded(context: &RefreshContext, store: Store, waiting: Waiting, report: Report<'_>) -> Result<Self> {
        let facts = context.row_facts(&store, None, report)?;
        let rows = UnembeddedRows::new(store, &context.row_rules, facts);
        Ok(Self { drawn_from: DrawnFrom::Rows(rows.into()), waiting, is_restored: false })
    }
}

impl RefreshContext {
    /// The embeddings of all samples in `store`, for a run that has none yet.
    ///
    /// Refuses them if skipped samples and inconsistent pairs leave fewer than a mini-batch has. `report` is told how
    /// many are done, and its error ends the work.
    pub fn embed_all(
        &self,
        encoder: &dyn Encoder,
        store: &Store,
        report: Report<'_>,
    ) -> Result<Shared<EmbeddingTable>> {
        let table = self.embed_anew(encoder, store, ModelVersion(1), 0, report)?;
        let needed = self.batch_size.max(2);
        self.check_enough(&table.value, store, needed)?;
        Ok(table)
    }

    /// Builds the first graph over `first`, and saves both in the checkpoint folder, if there is one.
    ///
    /// `report` is called while this rank waits for another one, and its error ends that.
    pub fn first_snapshot(
        &self,
        encoder: &dyn Encoder,
        store: Store,
        first: FirstEmbeddings,
        report: Report<'_>,
    ) -> Result<Snapshot> {
        let FirstEmbeddings { mut table, step, pushed, facts } = first;
        let (ages, _) = ages_after(&table.value, &pushed.vectors, &Ages::all_at(step));
        if pushed.vectors.len() > 0 {
            let version = table.value.model_version();
            let before = Shared { value: &table.value, origin: table.origin.clone() };
            table = self.embed_rest(before, &pushed.vectors, encoder, &store, version, report)?;
        }
        let version = GraphVersion(1);
        let build = || match &facts.strata {
            Some(strata) => self.backend.build_within(strata.parts(), &table.value, self.seed, version),
            None => self.backend.build(&table.value, self.seed, version),
        };
        let graph = self.shared_graph(table.origin.recipe, 0, version, build, report)?;
        let embeddings = table.map(Arc::new);
        let losses = pushed.losses_after(&[], store.len());
        let parts =
            SnapshotParts { embeddings, graph, ages, losses, embeddings_since_graph: version, begun_at_step: step };
        let snapshot = Snapshot::new(parts, store, &self.row_rules, facts);
        (self.check_first)(&snapshot)?;
        if let Some(folder) = &self.checkpoint_folder {
            folder.save(&snapshot.to_saved())?;
        }
        Ok(snapshot)
    }
}

impl FirstEmbeddings {
    /// Those that are made before the stream is there.
    pub fn at_start(table: Shared<EmbeddingTable>, facts: RowFacts) -> Self {
        let pushed = Pushes::new(table.value.dimension()).into();
        Self { table, step: 0, pushed, facts }
    }
}
