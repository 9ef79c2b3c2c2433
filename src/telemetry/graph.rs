//! Events of graphs.

use std::fmt::Display;

use tracing::{debug, info, warn};

use crate::sample::GraphVersion;

pub(crate) fn neighbors_clipped(neighbors: usize, samples: usize) {
    warn!(neighbors, samples, "fewer other samples than neighbors; every sample neighbors all others");
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

pub(crate) fn refined(kept: f64, recall: f64) {
    info!(kept, recall, "refined the graph");
}
