//! The task that makes mini-batches, one after another.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::MiniBatch;
use super::counts::Shared;
use super::graph_changes::GraphChanges;
use super::rows::{RowColumns, Rows};
use super::sampling::{Drawn, Sampling};
use crate::arrow_file::checksum;
use crate::checkpoint::{CheckpointFolder, State};
use crate::config::{Coverage, StreamConfig, WalkConfig};
use crate::error::{Error, Result, TooFewError};
use crate::refresh::{DrawnFrom, Published};
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;
use crate::walk::{Draw, EpochSampler};

/// Makes mini-batches, one after another, and sends them to the stream.
#[derive(Debug)]
pub(crate) struct Producer {
    settings: ProducerSettings,
    published: Published,
    shared: Arc<Shared>,
    epoch: u64,
    step: u64,
    sampling: Sampling,
    /// Whether the epoch has ended that the sampler is of, so that the next one must begin.
    epoch_has_ended: bool,
    /// The graph that the sampler drew from last; `None` in a warm-up without one.
    graph_version: Option<GraphVersion>,
    /// The rows of the snapshot with that graph.
    rows: Rows,
    graph_changes: GraphChanges,
    /// Whether a warning about a short mini-batch was logged.
    has_warned: bool,
    /// Whether the epoch has had a mini-batch.
    has_made: bool,
}

/// What comes next in a stream.
enum Next {
    MiniBatch(Box<MiniBatch>),
    /// The next epoch, since this one has ended.
    Epoch,
    /// Nothing: the last epoch has ended.
    End,
}

/// What stays the same during a run.
#[derive(Debug)]
pub(crate) struct ProducerSettings {
    pub row_columns: RowColumns,
    pub walk: WalkConfig,
    pub stream: StreamConfig,
    /// The ranks whose shares mini-batches have: this process's, or all.
    pub ranks: Range<usize>,
    /// Whether a run without a snapshot waits for one once its warm-up is over.
    pub waits_for_first: bool,
    pub seed: u64,
}

impl Producer {
    /// Begins at the state of the run, which is that of step 0 unless the run is resumed, with what it draws `from`
    /// there. Blocks.
    ///
    /// O(mini-batches drawn from the state's graph in its epoch), which are drawn again.
    pub fn new(
        settings: ProducerSettings,
        published: Published,
        from: &DrawnFrom,
        state: &State,
        checkpoint_folder: Option<CheckpointFolder>,
    ) -> Result<Self> {
        let ProducerSettings { row_columns, walk, stream, seed, .. } = &settings;
        let shared = Arc::new(Shared::new(walk.coverage == Coverage::Paper));
        let graph_changes = GraphChanges::new(checkpoint_folder, shared.clone());

        let State { epoch, step, .. } = *state;
        let mut sampler = from.epoch(walk, *seed, epoch, state.epoch_began_at_step, stream.world_size);
        if let Some(left) = graph_changes.left(state, from.store().len())? {
            sampler = EpochSampler::from_left(&left, walk, *seed, epoch).began_at_step(state.epoch_began_at_step);
            if walk.is_warm_up(state.epoch_began_at_step, epoch) {
                sampler = sampler.keeping_skipped();
            }
            sampler = sampler.divided(from.facts().strata.as_ref(), stream.world_size);
        }
        let mut sampling = Sampling::new(sampler, walk, stream.world_size, state)?;
        for step in state.graph_used_from_step..step {
            sampling.next(from, step);
        }

        let producer = Self {
            rows: Rows::of(from.store(), row_columns)?,
            settings,
            published,
            shared,
            epoch,
            step,
            sampling,
            epoch_has_ended: false,
            graph_version: from.graph_version(),
            graph_changes,
            has_warned: false,
            has_made: step > state.epoch_began_at_step,
        };
        producer.announce_epoch(from);
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
    fn announce_epoch(&self, from: &DrawnFrom) {
        let ProducerSettings { walk, stream, .. } = &self.settings;
        let sampler = &self.sampling.sampler;
        let is_last_short = (1..stream.world_size).contains(&(sampler.left() % walk.batch_size));
        let is_dropped = is_last_short && !walk.drop_last && !self.shared.is_open && !sampler.is_divided();
        let fixed = self.sampling.fixed_mini_batches(from);
        let per_epoch = fixed.unwrap_or_else(|| sampler.mini_batches() - u64::from(is_dropped));
        self.shared.per_epoch.store(per_epoch, Relaxed);
        let left = per_epoch.saturating_mul(stream.epochs.saturating_sub(self.epoch));
        self.shared.total.store(self.step.saturating_sub(self.sampling.sampler.drawn()).saturating_add(left), Relaxed);
    }

    /// Sends mini-batches until the last epoch ends, an error occurs, or the receiver is dropped.
    pub async fn run(mut self, tx: mpsc::Sender<Result<MiniBatch>>) {
        loop {
            let from = match self.drawn_from().await {
                Ok(from) => from,
                Err(error) => {
                    // If the receiver is gone, there is nothing to report to.
                    let _ = tx.send(Err(error)).await;
                    return;
                }
            };

            // Gathering blocks on pages that are not in memory, hence the blocking thread; see `compute`.
            let made = tokio::task::spawn_blocking(move || {
                let next = self.next(&from);
                (self, next)
            });
            let (producer, next) = match made.await {
                Ok(made) => made,
                Err(ended) => {
                    // If the receiver is gone, there is nothing to report to.
                    let _ = tx.send(Err(Error::of_task("producer", ended))).await;
                    return;
                }
            };
            self = producer;
            let item = match next {
                Ok(Next::MiniBatch(mini_batch)) => Ok(*mini_batch),
                Ok(Next::Epoch) => continue,
                Ok(Next::End) => {
                    self.shared.total.store(self.step, Relaxed);
                    telemetry::finished(self.settings.stream.epochs, self.step);
                    return;
                }
                Err(error) => Err(error),
            };

            let has_failed = item.is_err();
            let begun = Instant::now();
            if tx.send(item).await.is_err() || has_failed {
                return;
            }
            self.shared.add_wait(begun.elapsed());
        }
    }

    /// What the next mini-batch is drawn from, waiting for it if need be.
    ///
    /// That is the snapshot that its step uses, or rows alone: in the warm-up of a run that began without a snapshot,
    /// and after it if the run is not to wait for the first one.
    async fn drawn_from(&mut self) -> Result<DrawnFrom> {
        if let Some(rows) = self.published.unembedded() {
            let ProducerSettings { walk, waits_for_first, .. } = &self.settings;
            let is_warm_up = walk.is_warm_up(self.step, self.epoch);
            let goes_on = !is_warm_up && !waits_for_first && self.published.current().is_none();
            if goes_on {
                self.published.need_first_at(self.step);
            }
            if is_warm_up || goes_on {
                return Ok(DrawnFrom::Rows(rows.clone()));
            }
        }
        self.published.at(self.step).await.map(DrawnFrom::Snapshot)
    }

    /// The next mini-batch, if there is one before the epoch ends.
    fn next(&mut self, from: &DrawnFrom) -> Result<Next> {
        let _span = telemetry::mini_batch(self.epoch, self.step).entered();
        if from.graph_version() != self.graph_version {
            self.change_graph(from)?;
        }
        if std::mem::take(&mut self.epoch_has_ended) {
            let ProducerSettings { walk, stream, seed, .. } = &self.settings;
            // Samples that the source has gained are in from here on.
            self.sampling.begin(from.epoch(walk, *seed, self.epoch, self.step, stream.world_size), self.epoch);
            self.announce_epoch(from);
        }
        let Some(drawn) = self.sampling.next(from, self.step) else { return self.end_epoch() };
        self.has_made = true;
        self.shared.repeated.fetch_add(u64::from(drawn.is_repeated), Relaxed);
        self.report_shortage(&drawn.draw);
        let mini_batch = self.mini_batch(drawn, from)?;
        self.step += 1;
        Ok(Next::MiniBatch(mini_batch.into()))
    }

    /// The rows of a mini-batch, and what is known about it. With several ranks, this rank's share of them.
    fn mini_batch(&self, drawn: Drawn, from: &DrawnFrom) -> Result<MiniBatch> {
        let Drawn { mut draw, is_warm_up, similarity, feedback, .. } = drawn;
        let ProducerSettings { walk, stream, ranks, .. } = &self.settings;
        if let Some(lengths) = &from.facts().lengths {
            lengths.deal(&mut draw, stream.world_size, walk.order_by_length);
        }
        let share = draw.ids.len() / stream.world_size;
        let (from_place, to_place) = (ranks.start * share, ranks.end * share);
        let ids = draw.ids[from_place..to_place].to_vec();
        let count = draw.negatives.len() / draw.ids.len().max(1);
        let negatives = draw.negatives[from_place * count..to_place * count].to_vec();
        let snapshot = from.snapshot();
        // Of a last mini-batch that ranks cannot share equally, no rank gets what is left over.
        let shared = share * stream.world_size;
        let marks = from
            .mask()
            .map(|mask| mask.marks(from_place..to_place, &draw.ids[..shared], &draw.negatives[..shared * count]));
        Ok(MiniBatch {
            rows: self.rows.gather(&ids, &negatives, marks, self.epoch)?,
            negatives,
            epoch: self.epoch,
            step: self.step,
            model_version: snapshot.map(|snapshot| snapshot.model_version()),
            graph_version: from.graph_version(),
            staleness: snapshot.map(|snapshot| snapshot.ages.mean(&draw.ids, self.step)),
            similarity,
            is_warm_up,
            digest: digest(self.step, &draw.ids, snapshot.map(|snapshot| snapshot.graph_digest)),
            feedback,
            counts: draw.counts,
            ids,
        })
    }

    /// Logs what a mini-batch lacks, and what was drawn uniformly for want of neighbors.
    fn report_shortage(&mut self, draw: &Draw) {
        if draw.counts.short > 0 {
            telemetry::short(self.epoch, self.step, draw.counts.short, !self.has_warned);
            self.has_warned = true;
        }
        if draw.counts.uniform_top_ups > 0 {
            telemetry::topped_up(self.epoch, self.step, draw.counts.uniform_top_ups);
        }
    }

    /// Draws from another graph from here on.
    fn change_graph(&mut self, from: &DrawnFrom) -> Result<()> {
        let left = self.sampling.sampler.forget_order();
        self.graph_version = from.graph_version();
        if let Some(version) = self.graph_version {
            self.graph_changes.record(self.step, version, &left);
        }
        self.rows = Rows::of(from.store(), &self.settings.row_columns)?;
        Ok(())
    }

    /// Ends the epoch, of which no mini-batch is left. The next one begins with what its first step is drawn from.
    fn end_epoch(&mut self) -> Result<Next> {
        self.count_unplaced();
        if !std::mem::take(&mut self.has_made) {
            return Err(self.no_mini_batch());
        }
        self.epoch += 1;
        self.epoch_has_ended = true;
        Ok(if self.epoch < self.settings.stream.epochs { Next::Epoch } else { Next::End })
    }

    /// The error for an epoch without a mini-batch: later ones would have none either.
    fn no_mini_batch(&self) -> Error {
        let refused = self.sampling.sampler.refused();
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
        TooFewError::NoMiniBatch { samples: self.sampling.sampler.samples(), reason }.into()
    }

    /// Counts the samples that guards have kept out of the epoch that has ended.
    fn count_unplaced(&self) {
        let unplaced = self.sampling.sampler.unplaced();
        if unplaced > 0 {
            self.shared.unplaced.fetch_add(unplaced as u64, Relaxed);
            telemetry::unplaced(self.epoch, unplaced);
        }
    }
}

/// A hash of what all ranks draw at this step, and of the graph that they draw it from.
fn digest(step: u64, ids: &[SampleId], graph_digest: Option<u64>) -> u64 {
    let mut bytes = step.to_le_bytes().to_vec();
    bytes.extend(graph_digest.map_or([0; 8], u64::to_le_bytes));
    bytes.extend(ids.iter().flat_map(|id| id.0.to_le_bytes()));
    checksum(&bytes)
}
