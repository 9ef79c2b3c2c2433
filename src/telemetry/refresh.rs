//! Events of refreshes and checkpoints.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use crate::sample::{GraphVersion, ModelVersion};

pub(crate) fn shared_awaited(what: &str, holder: &str) {
    info!(what, holder, "waiting for what another rank makes for all");
}

pub(crate) fn not_shared(path: &Path, reason: &dyn Display) {
    let path = path.display();
    warn!(%path, %reason, "this rank shares no embeddings and graphs with others from here on: it makes its own");
}

pub(crate) fn published(graph_version: GraphVersion, model_version: ModelVersion, step: u64, seconds: f64) {
    info!(%graph_version, %model_version, step, seconds, "published a snapshot");
}

pub(crate) fn refresh_took(store: f64, model: f64, encode: f64, graph: f64, checkpoint: f64) {
    info!(store, model, encode, graph, checkpoint, "seconds of a refresh, stage by stage");
}

pub(crate) fn drifted(cosine_shift: f64, overlap: f64, model_version: ModelVersion) {
    info!(
        cosine_shift,
        overlap,
        %model_version,
        "a newer model; how far its vectors for a few samples lie from the old"
    );
}

pub(crate) fn watch_failed(reason: &dyn Display, poll: Duration) {
    warn!(%reason, poll = poll.as_secs_f64(), "the system does not tell of changes of the model; it is looked at");
}

pub(crate) fn model_incomplete(missing: &Path) {
    warn!(missing = %missing.display(), "the model has changed, but a file of it is missing; the refresh waits for it");
}

pub(crate) fn decision_awaited(step: u64) {
    warn!(step, "rank 0 is late to say whether a refresh begins at this step; waiting for it");
}

/// `first` and `last` are the similarity of mini-batches to the trainer, as a share of that by the graph.
pub(crate) fn easier(graph_version: GraphVersion, first: f64, last: f64) {
    info!(%graph_version, first, last, "mini-batches of the graph have become easier; a refresh is due");
}

pub(crate) fn easing_unobserved(mini_batches: u64) {
    warn!(
        mini_batches,
        "refresh.when_easier waits for pushed vectors, and none came for these mini-batches; push those of each \
         mini-batch in one call, or leave it out"
    );
}

pub(crate) fn refresh_skipped(step: u64, reason: &'static str) {
    info!(step, reason, "skipped a refresh");
}

pub(crate) fn refresh_cancelled(step: u64) {
    info!(step, "gave up a refresh: a newer model has come");
}

pub(crate) fn pushes_dropped(samples: usize) {
    warn!(samples, "dropped pushed vectors: a newer model has embedded all samples since");
}

pub(crate) fn pushes_skipped(samples: usize) {
    warn!(samples, "dropped pushed vectors: a newer model could not encode their samples, which are skipped since");
}

/// `reason` is an error that says what it means for the run.
pub(crate) fn refresh_failed(step: u64, reason: &dyn Display) {
    warn!(step, %reason, "a refresh failed; the old snapshot stays");
}

pub(crate) fn unsaved(step: u64, reason: &dyn Display) {
    warn!(step, %reason, "could not note in the checkpoint folder what was left of the epoch; the run goes on");
}

/// `kept_at_step` is 0 unless a trainer has kept a state after step 0.
pub(crate) fn checkpoints_taken_over(dir: &Path, files: usize, kept_at_step: u64) {
    let dir = dir.display();
    if kept_at_step == 0 {
        info!(%dir, files, "the checkpoint folder has files of a run that saved no state; they are removed");
    } else {
        warn!(
            %dir,
            files,
            kept_at_step,
            "the checkpoint folder has files of a run that kept one state; they are removed"
        );
    }
}

pub(crate) fn state_not_kept(step: u64) {
    warn!(step, "the state was not kept: vectors that were pushed before it and are not in its graph are lost");
}

pub(crate) fn other_guide(step: u64) {
    warn!(
        step,
        "the guide has other vectors than that of the state: from here on, bounds on similarity go by the new ones"
    );
}

pub(crate) fn snapshot_damaged(graph_version: u64, reason: &dyn Display) {
    warn!(graph_version, %reason, "a snapshot cannot be read; the one before it is tried");
}
