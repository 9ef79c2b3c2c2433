use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::error::Result;
use crate::graph::{HnswIndex, ProximityGraph};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::store::EmbeddingTable;

/// Embeddings and the graph over them, published together.
#[derive(Debug)]
pub struct Snapshot {
    /// All samples' embeddings.
    pub embeddings: Arc<EmbeddingTable>,
    /// Their neighbors.
    pub graph: ProximityGraph,
    /// Mini-batches that had been delivered when the embeddings were made: staleness counts from here.
    pub embedded_at_step: u64,
    index: OnceLock<HnswIndex>,
}

impl Snapshot {
    pub(super) fn new(embeddings: Arc<EmbeddingTable>, graph: ProximityGraph, embedded_at_step: u64) -> Self {
        Self { embeddings, graph, embedded_at_step, index: OnceLock::new() }
    }

    /// The index over these embeddings that [`search`](Self::search) asks. The first call builds it, in the current
    /// rayon pool, as [`HnswIndex::build`] does, and blocks meanwhile; the snapshot keeps it, about 340 bytes a sample.
    pub fn index(&self) -> &HnswIndex {
        if let Some(index) = self.index.get() {
            return index;
        }
        // Built outside of the cell: a rayon thread that waits for the cell could be one that the build needs. So
        // first calls at the same time may each build, and one index stays.
        let index = HnswIndex::build(&self.embeddings, self.graph_version().0);
        self.index.get_or_init(|| index)
    }

    /// The `k` samples most similar to a vector from outside, most similar first, each with its similarity; see
    /// [`HnswIndex::search`]. Blocks, for long where the [index](Self::index) is still to be built: call it on a
    /// blocking thread.
    ///
    /// # Errors
    /// [`Error::Query`](crate::Error::Query) for a vector of another dimension, one that is not finite, or without a
    /// usable length.
    pub fn search(&self, vector: &[f32], k: usize) -> Result<Vec<(SampleId, f32)>> {
        self.index().search(vector, k)
    }

    /// The model that made the embeddings.
    #[must_use]
    pub fn model_version(&self) -> ModelVersion {
        self.embeddings.model_version()
    }

    /// Which graph this is.
    #[must_use]
    pub fn graph_version(&self) -> GraphVersion {
        self.graph.version()
    }
}

/// The reading end: always the newest snapshot. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Published(watch::Receiver<Arc<Snapshot>>);

impl Published {
    /// The newest snapshot. Never waits for a refresh.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.borrow().clone()
    }
}

/// The publishing end.
#[derive(Debug)]
pub(crate) struct Publisher(watch::Sender<Arc<Snapshot>>);

impl Publisher {
    pub fn new(first: Snapshot) -> (Self, Published) {
        let (tx, rx) = watch::channel(Arc::new(first));
        (Self(tx), Published(rx))
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.0.borrow().clone()
    }

    /// One atomic swap: readers see the old one or the new one, whole.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.send_replace(Arc::new(snapshot));
    }
}
