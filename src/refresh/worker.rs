use std::time::Instant;

use tokio::sync::watch;
use tracing::Instrument;

use super::snapshot::{Published, Publisher, Snapshot};
use crate::compute::ComputePool;
use crate::config::GraphConfig;
use crate::error::{Error, Result};
use crate::graph;
use crate::sample::GraphVersion;
use crate::telemetry;

/// Makes snapshots, the first one and all that follow.
#[derive(Debug)]
pub(crate) struct Worker {
    pool: ComputePool,
    graph: GraphConfig,
    seed: u64,
    publisher: Publisher,
}

impl Worker {
    /// Builds and publishes the first snapshot.
    pub async fn start(
        embeddings: crate::store::EmbeddingTable,
        graph: GraphConfig,
        seed: u64,
        pool: ComputePool,
    ) -> Result<(Self, Published)> {
        let (config, begun) = (graph.clone(), Instant::now());
        let first = move || {
            let graph = graph::build(&embeddings, &config, seed, GraphVersion(1));
            Ok(Snapshot::new(embeddings.into(), graph, 0))
        };
        let first = pool.run("graph", first).await?;
        telemetry::published(first.graph_version(), first.model_version(), 0, begun.elapsed().as_secs_f64());
        let (publisher, published) = Publisher::new(first);
        Ok((Self { pool, graph, seed, publisher }, published))
    }

    /// Refreshes each time `every` more mini-batches have been delivered, until nobody delivers any more.
    pub async fn run(self, every: u64, mut delivered: watch::Receiver<u64>) {
        let mut due = every;
        while let Ok(step) = delivered.wait_for(|&delivered| delivered >= due).await.map(|step| *step) {
            if let Err(error) = self.refresh(step).instrument(telemetry::refresh(step)).await {
                telemetry::refresh_failed(step, &Error::Refresh { step, cause: Box::new(error) });
            }
            due = step + every;
        }
    }

    async fn refresh(&self, step: u64) -> Result<()> {
        let (old, config, seed) = (self.publisher.current(), self.graph.clone(), self.seed);
        let begun = Instant::now();
        let work = move || {
            let version = GraphVersion(old.graph_version().0 + 1);
            let graph = graph::build(&old.embeddings, &config, seed, version);
            Ok(Snapshot::new(old.embeddings.clone(), graph, old.embedded_at_step))
        };
        let new = self.pool.run("refresh", work).await?;
        telemetry::published(new.graph_version(), new.model_version(), step, begun.elapsed().as_secs_f64());
        self.publisher.publish(new);
        Ok(())
    }
}
