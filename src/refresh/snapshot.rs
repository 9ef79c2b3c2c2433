use std::sync::Arc;

use tokio::sync::watch;

use crate::graph::ProximityGraph;
use crate::sample::{GraphVersion, ModelVersion};
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
}

impl Snapshot {
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
