use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::MiniBatch;
use crate::compute::died;
use crate::config::{StreamConfig, WalkConfig};
use crate::error::{Error, Result};
use crate::refresh::{Published, Snapshot};
use crate::telemetry;
use crate::walk::{EpochSampler, mini_batches_per_epoch};

/// Makes mini-batches, one after another.
#[derive(Debug)]
pub(crate) struct Producer {
    published: Published,
    walk: WalkConfig,
    shape: Arc<Shape>,
    seed: u64,
    epochs: u64,
    epoch: u64,
    step: u64,
    sampler: EpochSampler,
}

/// How long a run is, as far as that is known: an epoch may have more samples than the one before.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub per_epoch: AtomicU64,
    pub total: AtomicU64,
}

impl Producer {
    pub fn new(published: Published, walk: WalkConfig, stream: &StreamConfig, seed: u64) -> (Self, Arc<Shape>) {
        let samples = published.current().rows.len();
        let sampler = EpochSampler::new(samples, &walk, seed, 0);
        let shape = Arc::new(Shape::default());
        let epochs = stream.epochs;
        let producer = Self { published, walk, shape: shape.clone(), seed, epochs, epoch: 0, step: 0, sampler };
        producer.begin(samples);
        (producer, shape)
    }

    /// Tells how long the epoch will be that begins here.
    fn begin(&self, samples: usize) {
        let per_epoch = mini_batches_per_epoch(samples, &self.walk);
        self.shape.per_epoch.store(per_epoch, Relaxed);
        let left = self.epochs.saturating_sub(self.epoch);
        self.shape.total.store(self.step.saturating_add(per_epoch.saturating_mul(left)), Relaxed);
    }

    /// Sends mini-batches until the last epoch ends, an error occurs, or nobody receives any more.
    pub async fn run(mut self, tx: mpsc::Sender<Result<MiniBatch>>) {
        loop {
            let snapshot = match self.published.at(self.step).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    // Nobody there to hear it: then nobody needs to.
                    let _ = tx.send(Err(error)).await;
                    return;
                }
            };
            // Gathering blocks on pages that are not in memory, hence the blocking thread; see `compute`.
            let made = tokio::task::spawn_blocking(move || {
                let next = self.next(&snapshot);
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
                self.shape.total.store(self.step, Relaxed);
                telemetry::finished(self.epochs, self.step);
                return;
            };
            let failed = item.is_err();
            if tx.send(item).await.is_err() || failed {
                return;
            }
        }
    }

    fn next(&mut self, snapshot: &Snapshot) -> Result<Option<MiniBatch>> {
        let _span = telemetry::mini_batch(self.epoch, self.step).entered();
        let draw = loop {
            if let Some(draw) = self.sampler.next(&snapshot.graph) {
                break draw;
            }
            self.epoch += 1;
            if self.epoch >= self.epochs {
                return Ok(None);
            }
            // Samples that have come are in from here on.
            self.sampler = EpochSampler::new(snapshot.rows.len(), &self.walk, self.seed, self.epoch);
            self.begin(snapshot.rows.len());
        };
        if draw.counts.uniform_top_ups > 0 {
            telemetry::topped_up(self.epoch, self.step, draw.counts.uniform_top_ups);
        }
        let mini_batch = MiniBatch {
            rows: snapshot.rows.gather(&draw.ids)?,
            epoch: self.epoch,
            step: self.step,
            model_version: snapshot.model_version(),
            graph_version: snapshot.graph_version(),
            staleness: snapshot.ages.mean(&draw.ids, self.step),
            similarity: snapshot.embeddings.mean_similarity(&draw.ids),
            counts: draw.counts,
            ids: draw.ids,
        };
        self.step += 1;
        Ok(Some(mini_batch))
    }
}
