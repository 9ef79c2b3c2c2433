//! What a refresh publishes: rows, embeddings and graph together.

use std::sync::{Arc, OnceLock};

use super::ages::{AgeSummary, Ages};
use super::facts::RowFacts;
use super::rules::RowRules;
use super::shared::{Origin, Recipe, Shared};
use crate::checkpoint::SavedSnapshot;
use crate::config::WalkConfig;
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph::{HnswIndex, ProximityGraph};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::store::Store;
use crate::walk::{EpochSampler, Guards, Mask};

/// Embeddings and the graph over them, published together with their rows and never changed afterwards.
#[derive(Debug)]
pub struct Snapshot {
    /// All samples' embeddings.
    pub embeddings: Arc<EmbeddingTable>,
    /// Their neighbors.
    pub graph: ProximityGraph,
    /// When the embeddings were made.
    pub ages: Ages,
    /// The step at which the refresh began that made this snapshot.
    pub(crate) begun_at_step: u64,
    /// The version of the first graph over these embeddings.
    pub(super) embeddings_since_graph: GraphVersion,
    /// The rows of all samples, with all columns that are stored.
    pub(crate) store: Store,
    /// What keeps samples out of each other's mini-batches.
    pub(crate) guards: Guards,
    /// What marks pairs of a mini-batch that are no negatives; `None` without `[mask]`.
    pub(crate) mask: Option<Mask>,
    /// What the rules look at in the rows.
    pub(crate) facts: RowFacts,
    /// The last loss that was pushed of each sample, NaN if none was; empty if none was of any.
    pub(super) losses: Arc<[f32]>,
    /// Which samples walks prefer to start at; `None` if none.
    pub(crate) start_weights: Option<Arc<[f32]>>,
    /// A hash of the graph.
    pub(crate) graph_digest: u64,
    /// Where the embeddings and the graph are from.
    pub(super) embeddings_origin: Origin,
    _graph_origin: Origin,
    index: OnceLock<HnswIndex>,
}

/// What a snapshot consists of, without its rows.
pub(super) struct SnapshotParts {
    pub embeddings: Shared<Arc<EmbeddingTable>>,
    pub graph: Shared<ProximityGraph>,
    pub ages: Ages,
    pub losses: Arc<[f32]>,
    pub embeddings_since_graph: GraphVersion,
    pub begun_at_step: u64,
}

impl Snapshot {
    /// `facts` are those of the same rows.
    pub(super) fn new(parts: SnapshotParts, store: Store, rules: &RowRules, facts: RowFacts) -> Self {
        let SnapshotParts { embeddings, graph, ages, losses, embeddings_since_graph, begun_at_step } = parts;
        let Shared { value: embeddings, origin: embeddings_origin } = embeddings;
        let Shared { value: graph, origin: graph_origin } = graph;
        let (guards, mask) = facts.apply(rules, Some(&embeddings));
        Self {
            graph_digest: graph.digest(),
            embeddings,
            graph,
            ages,
            begun_at_step,
            embeddings_since_graph,
            store,
            guards,
            mask,
            start_weights: start_weights(&losses, facts.weights.as_ref()),
            losses,
            facts,
            embeddings_origin,
            _graph_origin: graph_origin,
            index: OnceLock::new(),
        }
    }

    /// What a checkpoint keeps of it.
    pub(super) fn to_saved(&self) -> SavedSnapshot {
        SavedSnapshot {
            graph: self.graph.clone(),
            embeddings: self.embeddings.clone(),
            embeddings_since_graph: self.embeddings_since_graph.0,
            begun_at_step: self.begun_at_step,
            embedded_at_step: self.ages.embedded_at_step,
            pushed_at_step: self.ages.pushed_at_step.clone(),
            losses: self.losses.clone(),
        }
    }

    /// A snapshot from a checkpoint, over the same rows, of which `facts` are. `recipe` says what its embeddings are
    /// made of, if ranks share them.
    pub(super) fn of_saved(
        saved: SavedSnapshot,
        recipe: Option<Recipe>,
        store: Store,
        rules: &RowRules,
        facts: RowFacts,
    ) -> Self {
        let parts = SnapshotParts {
            embeddings: Shared::own(saved.embeddings, recipe),
            graph: Shared::own(saved.graph, None),
            ages: Ages { embedded_at_step: saved.embedded_at_step, pushed_at_step: saved.pushed_at_step },
            losses: saved.losses,
            embeddings_since_graph: GraphVersion(saved.embeddings_since_graph),
            begun_at_step: saved.begun_at_step,
        };
        Self::new(parts, store, rules, facts)
    }

    /// How old the embeddings are at `step`. O(samples log samples) if some were pushed.
    #[must_use]
    pub fn age(&self, step: u64) -> AgeSummary {
        self.ages.summary(self.embeddings.len(), self.embeddings.present(), step)
    }

    /// The index over these embeddings that [`search`](Self::search) asks.
    ///
    /// The first call builds it in the current rayon pool, as [`HnswIndex::build`] does, and blocks meanwhile. The
    /// snapshot keeps it, about 340 bytes a sample.
    pub fn index(&self) -> &HnswIndex {
        if let Some(index) = self.index.get() {
            return index;
        }
        // It is built outside of the cell, since a rayon thread that waits for the cell could be one that the build
        // needs. First calls at the same time may each build one, and the first that is done stays.
        let index = HnswIndex::build(&self.embeddings, self.graph_version().0);
        self.index.get_or_init(|| index)
    }

    /// The `k` samples most similar to a vector from outside, most similar first, each with its similarity.
    ///
    /// See [`HnswIndex::search`]. Blocks, and for long if the [index](Self::index) must be built first: call it on a
    /// blocking thread.
    ///
    /// # Errors
    /// [`ArgumentError::Query`](crate::error::ArgumentError::Query) for a vector of another dimension, one that is not
    /// finite, or without a usable length.
    pub fn search(&self, vector: &[f32], k: usize) -> Result<Vec<(SampleId, f32)>> {
        self.index().search(vector, k)
    }

    /// A bit for each sample, set if it is in epochs: it has an embedding, is no inconsistent pair, and of no corpus.
    pub(crate) fn in_epochs(&self) -> Vec<u64> {
        let mut bits = self.embeddings.epoch_bits();
        self.facts.leave_corpus_out(&mut bits);
        bits
    }

    /// An epoch over all samples that are in epochs, which begins at `step`.
    pub(crate) fn epoch(&self, walk: &WalkConfig, seed: u64, epoch: u64, step: u64) -> EpochSampler {
        let left = self.facts.beginning(self.embeddings.len(), self.embeddings.epoch_bits(), seed, epoch);
        EpochSampler::from_left(&left, walk, seed, epoch).began_at_step(step)
    }

    /// The model that made the embeddings. Vectors that a trainer pushed count as another.
    #[must_use]
    pub fn model_version(&self) -> ModelVersion {
        self.embeddings.model_version()
    }

    /// The version of the graph.
    #[must_use]
    pub fn graph_version(&self) -> GraphVersion {
        self.graph.version()
    }
}

/// Losses where they are known, else the `weights` of the settings; without these, the mean of the losses.
fn start_weights(losses: &[f32], weights: Option<&Arc<[f32]>>) -> Option<Arc<[f32]>> {
    let known: Vec<_> = losses.iter().copied().filter(|loss| !loss.is_nan()).collect();
    if known.is_empty() {
        return weights.cloned();
    }
    let mean = (known.iter().copied().map(f64::from).sum::<f64>() / known.len() as f64) as f32;
    let other = |id: usize| weights.map_or(mean, |weights| weights[id]);
    Some(losses.iter().enumerate().map(|(id, &loss)| if loss.is_nan() { other(id) } else { loss }).collect())
}
