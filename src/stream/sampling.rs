//! The ids of mini-batches, whose similarity is held at `walk.target_similarity` if that is set.

use crate::checkpoint::State;
use crate::config::WalkConfig;
use crate::error::{Error, Result};
use crate::refresh::DrawnFrom;
use crate::telemetry;
use crate::walk::{Draw, EpochSampler, Feedback, mini_batches_per_epoch};

/// Draws one mini-batch after another.
#[derive(Debug)]
pub(super) struct Sampling {
    /// The epoch that mini-batches are drawn of.
    pub sampler: EpochSampler,
    epoch: u64,
    walk: WalkConfig,
    world_size: usize,
    seed: u64,
    feedback: Option<Feedback>,
    /// For how many mini-batches in a row the target has been out of reach.
    at_bound: u64,
}

/// The length of epochs that are equally long on all hosts.
#[derive(Clone, Copy)]
struct FixedEpoch {
    samples: usize,
    mini_batches: u64,
}

/// What is drawn for a mini-batch, for all ranks together.
#[derive(Debug)]
pub(super) struct Drawn {
    pub draw: Draw,
    pub is_warm_up: bool,
    /// The mean similarity over all pairs; `None` without embeddings.
    pub similarity: Option<f32>,
    /// The feedback before it was drawn, as [`Feedback::save`] gives it.
    pub feedback: Option<[u64; 6]>,
    /// Whether the epoch has had its samples, and takes them once more to be as long as on other hosts.
    pub is_repeated: bool,
}

impl Sampling {
    /// Goes on with `sampler`, which is of the state's epoch.
    pub fn new(sampler: EpochSampler, walk: &WalkConfig, world_size: usize, state: &State) -> Result<Self> {
        let damaged = || Error::State { reason: "its feedback is not of this release; start anew".into() };
        let feedback = match (walk.target_similarity, state.feedback) {
            (None, _) => None,
            (Some(target), None) => Some(Feedback::new(target)),
            (Some(target), Some(saved)) => Some(Feedback::restore(target, saved).ok_or_else(damaged)?),
        };
        let (epoch, seed, walk) = (state.epoch, state.seed, walk.clone());
        Ok(Self { sampler, epoch, walk, world_size, seed, feedback, at_bound: 0 })
    }

    /// Goes on with another epoch.
    pub fn begin(&mut self, sampler: EpochSampler, epoch: u64) {
        self.sampler = sampler.with_partition_of(&self.sampler);
        self.epoch = epoch;
    }

    /// How many mini-batches the epoch has, if it is to have as many on all hosts.
    pub fn fixed_mini_batches(&self, from: &DrawnFrom) -> Option<u64> {
        self.fixed_epoch(from).map(|fixed| fixed.mini_batches)
    }

    /// `None` also if there are fewer rows: epochs then have them all.
    fn fixed_epoch(&self, from: &DrawnFrom) -> Option<FixedEpoch> {
        let rows = from.store().len() - from.facts().in_corpus();
        let samples = from.facts().epoch_samples.filter(|&samples| samples <= rows)?;
        // A last mini-batch in which not every rank has a sample is left out.
        let is_dropped = !self.walk.drop_last && (1..self.world_size).contains(&(samples % self.walk.batch_size));
        let mini_batches = mini_batches_per_epoch(samples, &self.walk) - u64::from(is_dropped);
        Some(FixedEpoch { samples, mini_batches })
    }

    /// The mini-batch of `step`, if the epoch has one that has a sample for every rank.
    ///
    /// Where guards, or samples without an embedding, would end the epoch before those of other hosts, it goes on with
    /// its samples once more.
    pub fn next(&mut self, from: &DrawnFrom, step: u64) -> Option<Drawn> {
        let began_at_step = self.sampler.step() - self.sampler.drawn();
        let taken = step - began_at_step;
        let fixed = self.fixed_epoch(from);
        if fixed.is_some_and(|fixed| taken >= fixed.mini_batches) {
            return None;
        }
        let drawn = self.draw(from);
        let Some(fixed) = fixed.filter(|_| drawn.is_none() && taken > 0) else { return drawn };
        let again = from.epoch(&self.walk, self.seed, self.epoch, began_at_step, self.world_size);
        self.sampler = again.again(&self.sampler, taken, fixed.samples);
        telemetry::epoch_goes_on(self.epoch, step, fixed.mini_batches - taken);
        self.draw(from)
    }

    fn draw(&mut self, from: &DrawnFrom) -> Option<Drawn> {
        let step = self.sampler.step();
        let is_warm_up = self.walk.is_warm_up(step, self.epoch);
        let feedback = self.feedback.as_ref().map(Feedback::save);
        if let Some(feedback) = &self.feedback {
            self.sampler.set_random_share(feedback.random_share());
        }
        let sampler = &mut self.sampler;
        sampler.set_weights(from.snapshot().and_then(|snapshot| snapshot.start_weights.clone()));
        let next = || match from {
            DrawnFrom::Rows(rows) => sampler.next_uniform(&rows.guards),
            DrawnFrom::Snapshot(snapshot) => sampler.next_guarded(&snapshot.graph, &snapshot.guards),
        };
        let draw = std::iter::from_fn(next).find(|draw| draw.ids.len() >= self.world_size)?;
        let similarity = from.snapshot().map(|snapshot| snapshot.embeddings.mean_similarity(&draw.ids));
        if let Some(similarity) = similarity.filter(|_| !is_warm_up && draw.ids.len() > 1) {
            self.observe(step, similarity);
        }
        let is_repeated = self.sampler.is_repeated();
        Some(Drawn { draw, is_warm_up, similarity, feedback, is_repeated })
    }

    /// Moves the random share for the next mini-batch. A target that stays out of reach is logged.
    fn observe(&mut self, step: u64, similarity: f32) {
        let Some(feedback) = &mut self.feedback else { return };
        feedback.observe(f64::from(similarity));
        telemetry::random_share_moved(step, similarity, feedback.random_share());
        self.at_bound = if feedback.is_at_bound() { self.at_bound + 1 } else { 0 };
        if self.at_bound == OUT_OF_REACH_AFTER {
            telemetry::target_out_of_reach(step, similarity, feedback.random_share());
        }
    }
}

/// A target is out of reach if so many mini-batches in a row have not come to it: single ones differ much.
const OUT_OF_REACH_AFTER: u64 = 32;
