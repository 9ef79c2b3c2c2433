//! Events of mini-batches.

use tracing::{debug, info, warn};

pub(crate) fn guards_wait(guards: &[&str]) {
    info!(guards = guards.join(", "), "these guards wait for the first embeddings, which a warm-up does not have");
}

pub(crate) fn left_out(step: u64, more: u64) {
    info!(step, more, "a mini-batch is left out, as the state asks");
}

pub(crate) fn topped_up(epoch: u64, step: u64, uniform_top_ups: u64) {
    debug!(epoch, step, uniform_top_ups, "the walk ran out of steps; topped up uniformly");
}

pub(crate) fn random_share_moved(step: u64, similarity: f32, random_share: f64) {
    debug!(step, similarity, random_share, "the random share of the next mini-batch, after this one's similarity");
}

pub(crate) fn target_out_of_reach(step: u64, similarity: f32, random_share: f64) {
    warn!(
        step,
        similarity,
        random_share,
        "walk.target_similarity cannot be reached: no mini-batch is harder without random samples, or easier than \
         uniform; change graph.candidates, walk.restart_probability, or the target"
    );
}

pub(crate) fn delivered(step: u64, waited: f64, staleness: Option<u64>, similarity: Option<f32>) {
    debug!(step, waited, staleness, similarity, "delivered a mini-batch");
}

/// The first short mini-batch of a run is a warning, later ones are for debugging.
pub(crate) fn short(epoch: u64, step: u64, missing: u64, first: bool) {
    if first {
        warn!(epoch, step, missing, "guards left a mini-batch short: no other sample may come with its own");
    } else {
        debug!(epoch, step, missing, "guards left a mini-batch short");
    }
}

pub(crate) fn unplaced(epoch: u64, samples: usize) {
    warn!(epoch, samples, "guards or walk.same kept samples out of the epoch: no mini-batch of it could have them");
}

pub(crate) fn epoch_goes_on(epoch: u64, step: u64, mini_batches: u64) {
    warn!(
        epoch,
        step,
        mini_batches,
        "guards, or samples without an embedding, would end the epoch before those of other hosts; it goes on with \
         samples that it has had; lower walk.epoch_samples if these are many"
    );
}

pub(crate) fn finished(epochs: u64, steps: u64) {
    info!(epochs, steps, "the stream has ended");
}
