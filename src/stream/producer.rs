//! The task that makes mini-batches, one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::MiniBatch;
use super::counts::Shared;
use super::graph_changes::GraphChanges;
use super::rows::{RowColumns, Rows};
use crate::checkpoint::{Checkpoints, State};
use crate::config::{Coverage, StreamConfig, WalkConfig};
use crate::error::{Error, Result, TooFewError};
use crate::refresh::{Published, Snapshot};
use crate::sample::GraphVersion;
use crate::telemetry;
use crate::walk::{Draw, EpochSampler, mini_batches_per_epoch};

/// Makes mini-batches, one after another, and sends them to the stream.
#[derive(Debug)]
pub(crate) struct Producer {
    settings: ProducerSettings,
    published: Published,
    shared: Arc<Shared>,
    epoch: u64,
    step: u64,
    sampler: EpochSampler,
    /// The graph that the sampler drew from last.
    graph_version: GraphVersion,
    /// The rows of the snapshot with that graph.
    rows: Rows,
    graph_changes: GraphChanges,
    /// Whether a warning about a short mini-batch was logged.
    has_warned: bool,
    /// Whether the epoch has had a mini-batch.
    has_made: bool,
}

/// What stays the same during a run.
#[derive(Debug)]
pub(crate) struct ProducerSettings {
    pub row_columns: RowColumns,
    pub walk: WalkConfig,
    pub stream: StreamConfig,
    pub seed: u64,
}

impl Producer {
    /// Begins at the state of the run that is resumed, or at the first epoch. Blocks.
    pub fn new(
        settings: ProducerSettings,
        published: Published,
        resumed: Option<&State>,
        checkpoints: Option<Checkpoints>,
    ) -> Result<Self> {
        let ProducerSettings { row_columns, walk, stream, seed } = &settings;
        let snapshot = published.current();
        let shared = Arc::new(Shared::new(walk.coverage == Coverage::Paper));
        let graph_changes = GraphChanges::new(checkpoints, shared.clone());

        let (epoch, step) = resumed.map_or((0, 0), |state| (state.epoch, state.step));
        let mut samples = snapshot.embeddings.present();
        let mut sampler = snapshot.epoch(walk, *seed, epoch);
        if let Some(state) = resumed {
            if let Some(left) = graph_changes.left(state, snapshot.embeddings.len())? {
                samples = left.samples;
                sampler = EpochSampler::from_left(&left, walk, *seed, epoch);
            }
            for _ in state.graph_used_from_step..state.step {
                next_draw(&mut sampler, &snapshot, stream.world_size);
            }
        }

        let producer = Self {
            rows: Rows::of(&snapshot.store, row_columns)?,
            settings,
            published,
            shared,
            epoch,
            step,
            sampler,
            graph_version: snapshot.graph_version(),
            graph_changes,
            has_warned: false,
            has_made: resumed.is_some_and(|state| state.step > state.epoch_began_at_step),
        };
        producer.announce_epoch(samples);
        Ok(producer)
    }

    /// What the producer shares with the stream.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The columns of the mini-batches' rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema(self.settings.walk.negatives)
    }

    /// Tells the stream how many mini-batches the epoch that begins here has, and the run.
    fn announce_epoch(&self, samples: usize) {
        let ProducerSettings { walk, stream, .. } = &self.settings;
        let is_last_short = (1..stream.world_size).contains(&(samples % walk.batch_size));
        let is_dropped = is_last_short && !walk.drop_last && !self.shared.is_open;
        let per_epoch = mini_batches_per_epoch(samples, walk) - u64::from(is_dropped);
        self.shared.per_epoch.store(per_epoch, Relaxed);
        let left = per_epoch.saturating_mul(stream.epochs.saturating_sub(self.epoch));
        self.shared.total.store(self.step.saturating_sub(self.sampler.drawn()).saturating_add(left), Relaxed);
    }

    /// Sends mini-batches until the last epoch ends, an error occurs, or the receiver is dropped.
    pub async fn run(mut self, tx: mpsc::Sender<Result<MiniBatch>>) {
        loop {
            let snapshot = match self.published.at(self.step).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    // If the receiver is gone, there is nothing to report to.
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
                Err(ended) => {
                    // If the receiver is gone, there is nothing to report to.
                    let _ = tx.send(Err(Error::of_task("producer", ended))).await;
                    return;
                }
            };
            let Some(item) = item else {
                self.shared.total.store(self.step, Relaxed);
                telemetry::finished(self.settings.stream.epochs, self.step);
                return;
            };

            let has_failed = item.is_err();
            let begun = Instant::now();
            if tx.send(item).await.is_err() || has_failed {
                return;
            }
            self.shared.add_wait(begun.elapsed());
        }
    }

    /// The next mini-batch; `None` after the last epoch.
    fn next(&mut self, snapshot: &Snapshot) -> Result<Option<MiniBatch>> {
        let _span = telemetry::mini_batch(self.epoch, self.step).entered();
        if snapshot.graph_version() != self.graph_version {
            self.change_graph(snapshot)?;
        }
        let Some(draw) = self.draw(snapshot)? else { return Ok(None) };
        if draw.counts.short > 0 {
            telemetry::short(self.epoch, self.step, draw.counts.short, !self.has_warned);
            self.has_warned = true;
        }
        if draw.counts.uniform_top_ups > 0 {
            telemetry::topped_up(self.epoch, self.step, draw.counts.uniform_top_ups);
        }

        let StreamConfig { rank, world_size, .. } = self.settings.stream;
        let share = draw.ids.len() / world_size;
        let ids = draw.ids[rank * share..][..share].to_vec();
        let count = draw.negatives.len() / draw.ids.len().max(1);
        let negatives = draw.negatives[rank * share * count..][..share * count].to_vec();
        let mini_batch = MiniBatch {
            rows: self.rows.gather(&ids, &negatives)?,
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

    /// Draws from another graph from here on.
    fn change_graph(&mut self, snapshot: &Snapshot) -> Result<()> {
        let left = self.sampler.forget_order();
        self.graph_changes.record(self.step, snapshot.graph_version(), &left);
        self.graph_version = snapshot.graph_version();
        self.rows = Rows::of(&snapshot.store, &self.settings.row_columns)?;
        Ok(())
    }

    /// The samples of the next mini-batch, from the next epoch if this one has ended; `None` after the last epoch.
    fn draw(&mut self, snapshot: &Snapshot) -> Result<Option<Draw>> {
        let ProducerSettings { walk, stream, seed, .. } = &self.settings;
        loop {
            if let Some(draw) = next_draw(&mut self.sampler, snapshot, stream.world_size) {
                self.has_made = true;
                return Ok(Some(draw));
            }
            self.count_unplaced();
            if !std::mem::take(&mut self.has_made) {
                return Err(self.no_mini_batch());
            }
            self.epoch += 1;
            if self.epoch >= stream.epochs {
                return Ok(None);
            }
            // Samples that the source has gained are in from here on.
            self.sampler = snapshot.epoch(walk, *seed, self.epoch);
            self.announce_epoch(snapshot.embeddings.present());
        }
    }

    /// The error for an epoch without a mini-batch: later ones would have none either.
    fn no_mini_batch(&self) -> Error {
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
        if self.settings.walk.drop_last {
            settings.push_str(", with walk.drop_last, which takes full mini-batches only");
        }
        if self.settings.stream.world_size > 1 {
            settings.push_str(", with stream.world_size, since every rank needs a sample");
        }
        let reason = format!("they are kept apart by {settings}; loosen these");
        TooFewError::NoMiniBatch { samples: self.sampler.samples(), reason }.into()
    }

    /// Counts the samples that guards have kept out of the epoch that has ended.
    fn count_unplaced(&self) {
        let walk = &self.settings.walk;
        let expected_left = match (walk.coverage, walk.drop_last) {
            // One sample may be left in any case, and with `drop_last` fewer than a mini-batch has.
            (Coverage::Paper, _) => return,
            (Coverage::Exact, true) => self.sampler.samples() % walk.batch_size,
            (Coverage::Exact, false) => 0,
        };
        let unplaced = self.sampler.left().saturating_sub(expected_left);
        if unplaced > 0 {
            self.shared.unplaced.fetch_add(unplaced as u64, Relaxed);
            telemetry::unplaced(self.epoch, unplaced);
        }
    }
}

/// The next mini-batch that has a sample for every rank.
fn next_draw(sampler: &mut EpochSampler, snapshot: &Snapshot, world_size: usize) -> Option<Draw> {
    std::iter::from_fn(|| sampler.next_guarded(&snapshot.graph, &snapshot.guards))
        .find(|draw| draw.ids.len() >= world_size)
}
