use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::MiniBatch;
use super::counts::Shared;
use crate::checkpoint::{Checkpoints, State};
use crate::config::{Coverage, StreamConfig, WalkConfig};
use crate::error::{Error, Result};
use crate::refresh::{Published, Snapshot};
use crate::sample::GraphVersion;
use crate::telemetry;
use crate::walk::{Draw, EpochSampler, mini_batches_per_epoch};

/// Makes mini-batches, one after another.
#[derive(Debug)]
pub(crate) struct Producer {
    published: Published,
    walk: WalkConfig,
    shared: Arc<Shared>,
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
    /// Of a short mini-batch.
    warned: bool,
    /// The epoch has had a mini-batch.
    has_made: bool,
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
    ) -> Result<(Self, Arc<Shared>)> {
        let snapshot = published.current();
        let mut samples = snapshot.embeddings.present();
        let (epoch, step) = state.map_or((0, 0), |state| (state.epoch, state.step));
        let mut sampler = snapshot.epoch(&walk, seed, epoch);
        if let Some(state) = state {
            if let (true, Some(checkpoints)) = (state.needs_left(), &checkpoints) {
                let left = checkpoints.open_left(state.graph_used_from_step, snapshot.embeddings.len())?;
                samples = left.samples;
                sampler = EpochSampler::from_left(&left, &walk, seed, epoch);
            }
            for _ in state.graph_used_from_step..state.step {
                next(&mut sampler, &snapshot, stream.world_size);
            }
        }
        let is_open = walk.coverage == Coverage::Paper;
        let shared = Arc::new(Shared::new(is_open, walk.negatives));
        let StreamConfig { epochs, rank, world_size, .. } = *stream;
        let graph_version = snapshot.graph_version();
        let shared_too = shared.clone();
        let producer = Self {
            published,
            walk,
            shared,
            seed,
            epochs,
            epoch,
            step,
            sampler,
            graph_version,
            checkpoints,
            rank,
            world_size,
            warned: false,
            has_made: state.is_some_and(|state| state.step > state.epoch_began_at_step),
        };
        producer.begin(samples);
        Ok((producer, shared_too))
    }

    /// Tells how long the epoch will be that begins here.
    fn begin(&self, samples: usize) {
        let short = (1..self.world_size).contains(&(samples % self.walk.batch_size));
        let dropped = short && !self.walk.drop_last && !self.shared.is_open;
        let per_epoch = mini_batches_per_epoch(samples, &self.walk) - u64::from(dropped);
        self.shared.per_epoch.store(per_epoch, Relaxed);
        let left = per_epoch.saturating_mul(self.epochs.saturating_sub(self.epoch));
        self.shared.total.store(self.step.saturating_sub(self.sampler.drawn()).saturating_add(left), Relaxed);
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
                    // Nobody there to hear it: then nobody needs to.
                    let _ = tx.send(Err(Error::of_task("producer", e))).await;
                    return;
                }
            };
            let Some(item) = item else {
                self.shared.total.store(self.step, Relaxed);
                telemetry::finished(self.epochs, self.step);
                return;
            };
            let (failed, begun) = (item.is_err(), Instant::now());
            if tx.send(item).await.is_err() || failed {
                return;
            }
            self.shared.waited(begun.elapsed());
        }
    }

    fn next(&mut self, snapshot: &Snapshot) -> Result<Option<MiniBatch>> {
        let _span = telemetry::mini_batch(self.epoch, self.step).entered();
        if snapshot.graph_version() != self.graph_version {
            let left = self.sampler.pause();
            if let Some(checkpoints) = &self.checkpoints
                && let Err(error) = checkpoints.save_left(self.step, snapshot.graph_version().0, &left)
            {
                // A training run is worth more than a point to resume it from.
                self.shared.unsaved();
                telemetry::unsaved(self.step, &error);
            }
            self.graph_version = snapshot.graph_version();
        }
        let draw = loop {
            if let Some(draw) = next(&mut self.sampler, snapshot, self.world_size) {
                self.has_made = true;
                break draw;
            }
            self.end_epoch();
            if !std::mem::take(&mut self.has_made) {
                return Err(self.none());
            }
            self.epoch += 1;
            if self.epoch >= self.epochs {
                return Ok(None);
            }
            // Samples that have come are in from here on.
            self.sampler = snapshot.epoch(&self.walk, self.seed, self.epoch);
            self.begin(snapshot.embeddings.present());
        };
        if draw.counts.short > 0 {
            telemetry::short(self.epoch, self.step, draw.counts.short, !self.warned);
            self.warned = true;
        }
        if draw.counts.uniform_top_ups > 0 {
            telemetry::topped_up(self.epoch, self.step, draw.counts.uniform_top_ups);
        }
        let share = draw.ids.len() / self.world_size;
        let ids = draw.ids[self.rank * share..][..share].to_vec();
        let count = draw.negatives.len() / draw.ids.len().max(1);
        let negatives = draw.negatives[self.rank * share * count..][..share * count].to_vec();
        let mini_batch = MiniBatch {
            rows: snapshot.gather(&ids, &negatives)?,
            negatives,
            epoch: self.epoch,
            step: self.step,
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

    /// The error for an epoch without a mini-batch: the later ones would have none either.
    fn none(&self) -> Error {
        let refused = self.sampler.refused();
        let guards = [
            ("guards.duplicates or guards.duplicate_similarity", refused.refused_duplicates),
            ("guards.distinct or pairs.positive", refused.refused_distinct),
            ("guards.skip_nearest", refused.refused_nearest),
            ("guards.max_similarity", refused.refused_similar),
            ("guards.max_relative_to_positive", refused.refused_relative),
        ];
        let guards = guards.iter().filter(|(_, refused)| *refused > 0);
        let guards: Vec<_> = guards.map(|(guard, refused)| format!("{guard} (refused {refused})")).collect();
        let mut settings = if guards.is_empty() { "guards".to_owned() } else { guards.join(", ") };
        if self.walk.drop_last {
            settings.push_str(", with walk.drop_last, which takes full mini-batches only");
        }
        if self.world_size > 1 {
            settings.push_str(", with stream.world_size, since every rank needs a sample");
        }
        let reason = format!("they are kept apart by {settings}; loosen these");
        Error::NoMiniBatch { samples: self.sampler.samples(), reason }
    }

    /// Counts whom guards have kept out of the epoch.
    fn end_epoch(&self) {
        // Of the paper's coverage one may remain, with `drop_last` a rest.
        let rest = match (self.walk.coverage, self.walk.drop_last) {
            (Coverage::Paper, _) => return,
            (Coverage::Exact, true) => self.sampler.samples() % self.walk.batch_size,
            (Coverage::Exact, false) => 0,
        };
        let unplaced = self.sampler.left().saturating_sub(rest);
        if unplaced > 0 {
            self.shared.unplaced.fetch_add(unplaced as u64, Relaxed);
            telemetry::unplaced(self.epoch, unplaced);
        }
    }
}

/// The next mini-batch that has a sample for every rank.
fn next(sampler: &mut EpochSampler, snapshot: &Snapshot, world_size: usize) -> Option<Draw> {
    std::iter::from_fn(|| sampler.next_guarded(&snapshot.graph, &snapshot.guards))
        .find(|draw| draw.ids.len() >= world_size)
}
