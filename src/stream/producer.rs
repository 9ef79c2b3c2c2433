use tokio::sync::mpsc;

use super::MiniBatch;
use crate::compute::died;
use crate::config::{StreamConfig, WalkConfig};
use crate::error::{Error, Result};
use crate::refresh::Published;
use crate::store::Store;
use crate::telemetry;
use crate::walk::EpochSampler;

/// Makes mini-batches, one after another.
#[derive(Debug)]
pub(crate) struct Producer {
    published: Published,
    store: Store,
    walk: WalkConfig,
    seed: u64,
    epochs: u64,
    epoch: u64,
    step: u64,
    sampler: EpochSampler,
}

impl Producer {
    pub fn new(published: Published, store: Store, walk: WalkConfig, stream: &StreamConfig, seed: u64) -> Self {
        let sampler = EpochSampler::new(store.len(), &walk, seed, 0);
        Self { published, store, walk, seed, epochs: stream.epochs, epoch: 0, step: 0, sampler }
    }

    /// Sends mini-batches until the last epoch ends, an error occurs, or nobody receives any more.
    pub async fn run(mut self, tx: mpsc::Sender<Result<MiniBatch>>) {
        loop {
            // Gathering blocks on pages that are not in memory, hence the blocking thread; see `compute`.
            let made = tokio::task::spawn_blocking(move || {
                let next = self.next();
                (self, next)
            });
            let item = match made.await {
                Ok((producer, next)) => {
                    self = producer;
                    next.transpose()
                }
                Err(e) => {
                    let error = match e.try_into_panic() {
                        Ok(panic) => died("producer", panic.as_ref()),
                        Err(e) => Error::TaskDied { task: "producer", message: e.to_string() },
                    };
                    // Nobody there to hear it: then nobody needs to.
                    let _ = tx.send(Err(error)).await;
                    return;
                }
            };
            let Some(item) = item else {
                telemetry::finished(self.epochs, self.step);
                return;
            };
            let failed = item.is_err();
            if tx.send(item).await.is_err() || failed {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Option<MiniBatch>> {
        let _span = telemetry::mini_batch(self.epoch, self.step).entered();
        let snapshot = self.published.current();
        let draw = loop {
            if let Some(draw) = self.sampler.next(&snapshot.graph) {
                break draw;
            }
            self.epoch += 1;
            if self.epoch >= self.epochs {
                return Ok(None);
            }
            self.sampler = EpochSampler::new(self.store.len(), &self.walk, self.seed, self.epoch);
        };
        if draw.counts.uniform_top_ups > 0 {
            telemetry::topped_up(self.epoch, self.step, draw.counts.uniform_top_ups);
        }
        let mini_batch = MiniBatch {
            rows: self.store.gather(&draw.ids)?,
            epoch: self.epoch,
            step: self.step,
            model_version: snapshot.model_version(),
            graph_version: snapshot.graph_version(),
            staleness: self.step.saturating_sub(snapshot.embedded_at_step),
            similarity: snapshot.embeddings.mean_similarity(&draw.ids),
            counts: draw.counts,
            ids: draw.ids,
        };
        self.step += 1;
        Ok(Some(mini_batch))
    }
}
