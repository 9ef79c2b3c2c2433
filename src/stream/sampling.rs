//! The ids of mini-batches, whose similarity is held at `walk.target_similarity` if that is set.

use crate::checkpoint::State;
use crate::config::WalkConfig;
use crate::error::{Error, Result};
use crate::refresh::DrawnFrom;
use crate::telemetry;
use crate::walk::{Draw, EpochSampler, Feedback};

/// Draws one mini-batch after another.
#[derive(Debug)]
pub(super) struct Sampling {
    /// The epoch that mini-batches are drawn of.
    pub sampler: EpochSampler,
    epoch: u64,
    walk: WalkConfig,
    world_size: usize,
    feedback: Option<Feedback>,
    /// For how many mini-batches in a row the target has been out of reach.
    at_bound: u64,
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
        let (epoch, walk) = (state.epoch, walk.clone());
        Ok(Self { sampler, epoch, walk, world_size, feedback, at_bound: 0 })
    }

    /// Goes on with another epoch.
    pub fn begin(&mut self, sampler: EpochSampler, epoch: u64) {
        self.sampler = sampler.with_partition_of(&self.sampler);
        self.epoch = epoch;
    }

    /// The next mini-batch of the epoch that has a sample for every rank.
    pub fn next(&mut self, from: &DrawnFrom) -> Option<Drawn> {
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
        Some(Drawn { draw, is_warm_up, similarity, feedback })
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
