//! Events of models and embeddings.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use crate::sample::SampleId;

pub(crate) fn embeddings_removed(dir: &Path, bytes: u64) {
    info!(dir = %dir.display(), bytes, "removed embeddings that were not used for longest, to make room for others");
}

pub(crate) fn embeddings_not_kept(dir: &Path, reason: &dyn Display) {
    warn!(dir = %dir.display(), %reason, "embeddings made from here on are not kept for later runs");
}

pub(crate) fn guide_embeds(encoder: &str, samples: usize) {
    info!(encoder, samples, "a guide embeds samples, to judge which are too similar");
}

pub(crate) fn pairs_left_out(within: usize, pairs: usize, samples: usize) {
    info!(within, pairs, samples, "left out pairs whose positive is not among the nearest to its anchor");
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
