//! All spans and events of the crate, by `tracing`; no other module names any.
//!
//! Their target is `prosampler::telemetry`, so a filter such as `prosampler=info` finds them. An event with a counted
//! or measured quantity has it as a field, which a `tracing` layer can turn into a metric.
//!
//! | span | level | fields | lasts |
//! |---|---|---|---|
//! | `store` | INFO | `uri` | while a source is read into the store |
//! | `encode` | INFO | `encoder`, `samples`, `model_version` | while all samples are embedded |
//! | `graph` | INFO | `samples`, `candidates`, `neighbors`, `graph_version` | while a graph is built |
//! | `refresh` | INFO | `step` | from the trigger to the publication |
//! | `mini_batch` | DEBUG | `epoch`, `step` | while a mini-batch is drawn and gathered |
//!
//! Events at INFO are the milestones of a run: a cache that was opened, a model that was opened and how its samples are
//! grouped, a device that builds a graph, a snapshot that was published (`graph_version`, `model_version`, `step`,
//! `seconds`) and how its refresh spent the time (`store`, `model`, `encode`, `graph`, `checkpoint`), drift
//! (`cosine_shift`, `overlap`), a refresh that was skipped or cancelled (`step`), samples that were added, the end of
//! the stream, and who has embedded how many samples (`here`, `before`, `elsewhere`).
//!
//! Events at WARN are fallbacks, and failures that the run survives: damaged rows and files, samples that were skipped,
//! providers and devices that cannot be used, refreshes that failed, checkpoints that could not be written,
//! mini-batches that guards left short. Most have a `reason`.
//!
//! Events at DEBUG come with every mini-batch: its delivery (`step`, `waited`, `staleness`, `similarity`), uniform
//! top-ups, and all short ones after the first.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use tracing::{Span, debug, debug_span, info, info_span, warn};

use crate::sample::{GraphVersion, ModelVersion, SampleId};

pub(crate) fn store(uri: &str) -> Span {
    info_span!("store", uri)
}

pub(crate) fn encode(encoder: &str, samples: usize, model_version: ModelVersion) -> Span {
    info_span!("encode", encoder, samples, %model_version)
}

pub(crate) fn graph(samples: usize, candidates: usize, neighbors: usize, graph_version: GraphVersion) -> Span {
    info_span!("graph", samples, candidates, neighbors, %graph_version)
}

pub(crate) fn refresh(step: u64) -> Span {
    info_span!("refresh", step)
}

pub(crate) fn mini_batch(epoch: u64, step: u64) -> Span {
    debug_span!("mini_batch", epoch, step)
}

pub(crate) fn rows_skipped(rows: Option<usize>, reason: &dyn Display) {
    let rows = rows.map_or_else(|| "an unknown number".into(), |rows| rows.to_string());
    warn!(rows, %reason, "skipped rows of a damaged part");
}

pub(crate) fn arrow_schema_ignored(uri: &str, reason: &dyn Display) {
    warn!(uri, %reason, "the Arrow schema in the file's metadata does not fit its columns; it is ignored");
}

pub(crate) fn texts_unreadable(column: &str, count: usize, first: SampleId) {
    warn!(column, count, %first, "values that are no UTF-8 are null; the first is named");
}

/// Logged once, when a folder is opened.
pub(crate) fn foreign_files(uri: &str, names: &[String]) {
    let count = names.len();
    let first = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    warn!(uri, count, first, "the folder has files or folders that are no data; they are not read");
}

pub(crate) fn file_twice(uri: &str) {
    warn!(uri, "source.uri names a file twice; its rows are samples twice");
}

#[cfg(feature = "cloud")]
pub(crate) fn request_failed(reason: &dyn Display) {
    warn!(%reason, "a request to an object store failed; it is sent again while retries are left");
}

pub(crate) fn cache_opened(path: &Path) {
    info!(path = %path.display(), "opened the cache of an earlier run");
}

pub(crate) fn read_at_random(bytes: usize) {
    info!(bytes, "the rows are read at random: they take more than half of the memory, or the settings say so");
}

pub(crate) fn cache_awaited(path: &Path) {
    info!(path = %path.display(), "another process is building this cache; waiting for it");
}

pub(crate) fn cache_discarded(path: &Path, reason: &dyn Display) {
    warn!(path = %path.display(), %reason, "the cache is unusable and is built anew");
}

pub(crate) fn embeddings_removed(dir: &Path, bytes: u64) {
    info!(dir = %dir.display(), bytes, "removed embeddings that were not used for longest, to make room for others");
}

pub(crate) fn embeddings_not_kept(dir: &Path, reason: &dyn Display) {
    warn!(dir = %dir.display(), %reason, "embeddings made from here on are not kept for later runs");
}

/// `here` are samples that this process has embedded, `before` and `elsewhere` those that earlier runs and other
/// processes have.
pub(crate) fn embedded(here: usize, before: usize, elsewhere: usize) {
    info!(here, before, elsewhere, "samples that were embedded here, or read: of earlier runs, and of other processes");
}

pub(crate) fn rows_awaited(samples: usize) {
    info!(samples, "other processes are embedding these samples; waiting for them");
}

pub(crate) fn claim_ignored(path: &Path, holder: &str, awaited: Duration) {
    let (path, awaited) = (path.display(), awaited.as_secs_f64());
    warn!(%path, holder, awaited, "another process takes too long to make this file; this one makes it too");
}

pub(crate) fn not_claimed(path: &Path, reason: &dyn Display) {
    let path = path.display();
    warn!(%path, %reason, "no lock here, so other processes may do the same work as this one");
}

pub(crate) fn embeds_alone(world_size: usize) {
    warn!(
        world_size,
        "every rank embeds all samples by itself; to embed them once, set store.cache_dir or encode.cache_dir to a \
         folder that all ranks reach, with an encode.cache_limit above 0"
    );
}

pub(crate) fn no_identity(encoder: &str, world_size: usize) {
    info!(encoder, world_size, "the encoder has no identity, so every rank runs it over all samples");
}

pub(crate) fn shared_awaited(what: &str, holder: &str) {
    info!(what, holder, "waiting for what another rank makes for all");
}

pub(crate) fn not_shared(path: &Path, reason: &dyn Display) {
    let path = path.display();
    warn!(%path, %reason, "this rank shares no embeddings and graphs with others from here on: it makes its own");
}

#[cfg(feature = "onnx")]
pub(crate) fn runtime_loaded(path: &Path, found_by: &str) {
    info!(path = %path.display(), found_by, "loaded ONNX Runtime");
}

#[cfg(feature = "onnx")]
pub(crate) fn model_opened(path: &Path, dimension: usize, provider: &str, sessions: usize) {
    info!(path = %path.display(), dimension, provider, sessions, "opened the model");
}

#[cfg(feature = "onnx")]
pub(crate) fn output_taken(path: &Path, output: &str, reason: &str, others: &str) {
    info!(path = %path.display(), output, reason, others, "took this output of the model; encode.output names another");
}

/// The model's inputs decide this: without a mask, for example, only samples of one length share a batch.
#[cfg(feature = "onnx")]
pub(crate) fn grouped(path: &Path, together: &str) {
    info!(path = %path.display(), together, "which samples share a batch, since the model cannot tell others apart");
}

#[cfg(feature = "onnx")]
pub(crate) fn samples_mixed(path: &Path, together: &str) {
    let path = path.display();
    warn!(%path, together, "samples of a batch changed each other's vectors; now only these share one");
}

#[cfg(feature = "onnx")]
pub(crate) fn texts_cut(path: &Path, max_tokens: usize, reason: &dyn Display) {
    warn!(path = %path.display(), max_tokens, %reason, "the model takes no longer texts; encode.max_tokens is this");
}

#[cfg(feature = "onnx")]
pub(crate) fn longest_untried(path: &Path, tokens: usize, reason: &dyn Display) {
    warn!(path = %path.display(), tokens, %reason, "no memory to try the model on the longest text; it may fail later");
}

#[cfg(feature = "onnx")]
pub(crate) fn padding_unknown(tokenizer: &Path) {
    let tokenizer = tokenizer.display();
    warn!(%tokenizer, "names no token to fill texts up with, for a model without a mask; it is 0");
}

/// Logged once for each column and kind of reason.
pub(crate) fn samples_skipped(skipped: usize, first: SampleId, column: &str, reason: &str) {
    warn!(skipped, %first, column, reason, "skipped samples that cannot be encoded; the first is named");
}

#[cfg(feature = "onnx")]
pub(crate) fn provider_failed(provider: &str, reason: &str, next: &str) {
    warn!(provider, reason, next, "an execution provider cannot be used; the next one is tried");
}

#[cfg(feature = "onnx")]
pub(crate) fn not_pinned(provider: &str, reason: &str) {
    warn!(provider, reason, "no pinned memory for a model's inputs; they are copied by way of the system's");
}

#[cfg(feature = "onnx")]
pub(crate) fn one_session(provider: &str) {
    warn!(provider, "no memory for a second copy of the model on each GPU; one does all the work");
}

#[cfg(feature = "onnx")]
pub(crate) fn halved(rows: usize) {
    warn!(rows, "the model ran out of memory; batches of this many samples are tried from here on");
}

pub(crate) fn neighbors_clipped(neighbors: usize, samples: usize) {
    warn!(neighbors, samples, "fewer other samples than neighbors; every sample neighbors all others");
}

pub(crate) fn guards_wait(guards: &[&str]) {
    info!(guards = guards.join(", "), "these guards wait for the first embeddings, which a warm-up does not have");
}

pub(crate) fn graph_size(samples: usize, candidates: usize, neighbors: usize, setting: &dyn Display) {
    debug!(samples, candidates, neighbors, %setting, "the size of the graph");
}

pub(crate) fn candidates_raised(asked: usize, candidates: usize, neighbors: usize) {
    info!(asked, candidates, neighbors, "more candidates, so that neighbors are chosen among them");
}

pub(crate) fn all_are_candidates(candidates: usize, samples: usize) {
    warn!(
        candidates,
        samples,
        "all other samples are candidates, so neighbors are the nearest of all, with the most false negatives; lower \
         graph.candidates, or set graph.builder = \"exact\" if that is meant"
    );
}

pub(crate) fn near_copies(share: f64) {
    warn!(
        share,
        "this share of the samples have a neighbor that is nearly the same, likely a false negative; set \
         guards.duplicate_similarity = 0.999, or name a column that tells them in guards.distinct"
    );
}

pub(crate) fn above_positive(share: f64) {
    warn!(
        share,
        "this share of the neighbors are more similar to a sample than its own positive is: either the encoder knows too \
         little yet for hard mini-batches (lengthen walk.warm_up), or they are false negatives (set \
         guards.max_relative_to_positive = 0.95)"
    );
}

pub(crate) fn neighbors_topped_up(samples: usize, graph_version: GraphVersion) {
    warn!(samples, %graph_version, "the index reached too few neighbors of some samples; topped up uniformly");
}

pub(crate) fn nearly_exact(samples: usize) {
    info!(samples, "all others are candidates, but many: nearest neighbors by NN-descent; set graph.builder for exact");
}

pub(crate) fn graph_on_device(device: &str, parts: usize) {
    info!(device, parts, "building the graph on a device, the embeddings in so many parts");
}

pub(crate) fn device_halved(device: &str, vectors: usize, launch: usize) {
    warn!(device, vectors, launch, "the device ran out of memory; the graph is begun anew, with parts of this size");
}

pub(crate) fn device_failed(device: &str, reason: &dyn Display, failures: u64) {
    warn!(device, %reason, failures, "a graph could not be built on a device; the processor builds it");
}

pub(crate) fn recall_missed(wanted: f64, recall: f64) {
    warn!(
        wanted,
        recall, "the graph has fewer of the nearest than graph.recall asks for; graph.builder = \"exact\" has them all"
    );
}

pub(crate) fn rebuilt(kept: f64) {
    info!(kept, "too few neighbors were kept for refinement to pay; the graph is built anew");
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

pub(crate) fn samples_added(samples: usize, total: usize) {
    info!(samples, total, "the source has gained samples");
}

pub(crate) fn refined(kept: f64, recall: f64) {
    info!(kept, recall, "refined the graph");
}

/// `reason` is an error that says what it means for the run.
pub(crate) fn refresh_failed(step: u64, reason: &dyn Display) {
    warn!(step, %reason, "a refresh failed; the old snapshot stays");
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

pub(crate) fn snapshot_damaged(graph_version: u64, reason: &dyn Display) {
    warn!(graph_version, %reason, "a snapshot cannot be read; the one before it is tried");
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
    warn!(epoch, samples, "guards kept samples out of the epoch: no mini-batch of it could have them");
}

pub(crate) fn finished(epochs: u64, steps: u64) {
    info!(epochs, steps, "the stream has ended");
}

#[cfg(feature = "serve")]
pub(crate) fn serving(address: &dyn Display, token: bool, tls: bool) {
    info!(%address, token, tls, "serving mini-batches");
}

#[cfg(feature = "serve")]
pub(crate) fn rank_joined(rank: usize, step: u64) {
    info!(rank, step, "a rank has joined");
}

#[cfg(feature = "serve")]
pub(crate) fn rank_left(rank: usize, step: u64) {
    info!(rank, step, "a rank has left");
}

#[cfg(feature = "serve")]
pub(crate) fn run_restarted(step: u64) {
    info!(step, "the run goes on from a kept state");
}

#[cfg(feature = "serve")]
pub(crate) fn ranks_late(late: &[usize], step: u64) {
    warn!(?late, step, "the other ranks wait for these to take their mini-batches");
}

#[cfg(feature = "serve")]
pub(crate) fn reconnecting(uri: &str, attempt: u32, reason: &dyn Display) {
    warn!(uri, attempt, %reason, "there is no connection to the server; trying again");
}
