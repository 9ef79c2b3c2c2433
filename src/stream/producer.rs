use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::MiniBatch;
use crate::checkpoint::{Checkpoints, State};
use crate::compute::died;
use crate::config::{StreamConfig, WalkConfig};
use crate::error::{Error, Result};
use crate::refresh::{Published, Snapshot};
use crate::sample::GraphVersion;
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
    /// What the sampler drew from last.
    graph_version: GraphVersion,
    checkpoints: Option<Checkpoints>,
    rank: usize,
    world_size: usize,
}

/// How long a run is, as far as that is known: an epoch may have more samples than the one before.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub per_epoch: AtomicU64,
    pub total: AtomicU64,
}

impl Producer {
    /// Begins with what a state says, or at the first epoch. Blocks where there is a state.
    pub fn new(
        published: Published,
        walk: WalkConfig,
        stream: &StreamConfig,
        seed: u64,
        state: Option<&State>,
        checkpoints: Option<Checkpoints>,
    ) -> Result<(Self, Arc<Shape>)> {
        let snapshot = published.current();
        let mut samples = snapshot.rows.len();
        let (epoch, step) = state.map_or((0, 0), |state| (state.epoch, state.step));
        let mut sampler = EpochSampler::new(samples, &walk, seed, epoch);
        if let Some(state) = state {
            if let (true, Some(checkpoints)) = (state.graph_used_from_step > state.epoch_began_at_step, &checkpoints) {
                let left = checkpoints.open_left(state.graph_used_from_step)?;
                samples = left.samples;
                sampler = EpochSampler::from_left(&left, &walk, seed, epoch);
            }
            for _ in state.graph_used_from_step..state.step {
                sampler.next(&snapshot.graph);
            }
        }
        let shape = Arc::new(Shape::default());
        let StreamConfig { epochs, rank, world_size, .. } = *stream;
        let graph_version = snapshot.graph_version();
        let shape_too = shape.clone();
        let producer = Self {
            published,
            walk,
            shape,
            seed,
            epochs,
            epoch,
            step,
            sampler,
            graph_version,
            checkpoints,
            rank,
            world_size,
        };
        producer.begin(samples);
        Ok((producer, shape_too))
    }

    /// Tells how long the epoch will be that begins here.
    fn begin(&self, samples: usize) {
        let dropped = (1..self.world_size).contains(&(samples % self.walk.batch_size)) && !self.walk.drop_last;
        let per_epoch = mini_batches_per_epoch(samples, &self.walk) - u64::from(dropped);
        self.shape.per_epoch.store(per_epoch, Relaxed);
        let left = per_epoch.saturating_mul(self.epochs.saturating_sub(self.epoch));
        self.shape.total.store((self.step - self.sampler.drawn()).saturating_add(left), Relaxed);
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
        if snapshot.graph_version() != self.graph_version {
            let left = self.sampler.pause();
            if let Some(checkpoints) = &self.checkpoints {
                checkpoints.save_left(self.step, &left)?;
            }
            self.graph_version = snapshot.graph_version();
        }
        let draw = loop {
            match self.sampler.next(&snapshot.graph) {
                Some(draw) if draw.ids.len() >= self.world_size => break draw,
                // Too few for all ranks, or the end of the epoch.
                Some(_) => continue,
                None => {}
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
        let share = draw.ids.len() / self.world_size;
        let ids = draw.ids[self.rank * share..][..share].to_vec();
        let mini_batch = MiniBatch {
            rows: snapshot.rows.gather(&ids)?,
            epoch: self.epoch,
            step: self.step,
            last: self.sampler.drawn() == self.shape.per_epoch.load(Relaxed),
            model_version: snapshot.model_version(),
            graph_version: snapshot.graph_version(),
            staleness: snapshot.ages.mean(&draw.ids, self.step),
            similarity: snapshot.embeddings.mean_similarity(&draw.ids),
            counts: draw.counts,
            ids,
        };
        self.step += 1;
        Ok(Some(mini_batch))
    }
}
