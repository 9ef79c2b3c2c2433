//! What `prosampler run --json` prints: a line for each mini-batch and one for the whole run, each a JSON object.
//!
//! The names are those of the Rust structs and of Python, and docs/command.md lists them. A number that is not known is
//! null, and so is one that is not finite.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::ending::Ending;
use super::summary::Timing;
use crate::config::SamplerKind;
use crate::refresh::RefreshCounts;
use crate::report::{Measure, Summary};
use crate::source::SourceCounts;
use crate::walk::WalkCounts;
use crate::{Error, MiniBatch, MiniBatchStream, Result};

/// Prints a mini-batch, for which the run has waited so long.
pub(super) fn print_mini_batch(mini_batch: &MiniBatch, wait: Duration) -> Result<()> {
    let per_sample = mini_batch.negatives.len() / mini_batch.ids.len().max(1);
    let negatives = mini_batch.negatives.chunks_exact(per_sample.max(1));
    print(&MiniBatchLine {
        kind: "mini_batch",
        step: mini_batch.step,
        epoch: mini_batch.epoch,
        samples: mini_batch.ids.len(),
        ids: mini_batch.ids.iter().map(|id| id.0).collect(),
        negatives: negatives.map(|of_one| of_one.iter().map(|id| id.map(|id| id.0)).collect()).collect(),
        similarity: mini_batch.similarity,
        staleness: mini_batch.staleness,
        model_version: mini_batch.model_version.map(|version| version.0),
        graph_version: mini_batch.graph_version.map(|version| version.0),
        is_warm_up: mini_batch.is_warm_up,
        digest: format!("{:016x}", mini_batch.digest),
        wait: wait.as_secs_f64(),
        sources: mini_batch.sources(),
        counts: mini_batch.counts,
    })
}

/// Prints the run as a whole.
pub(super) fn print_summary(
    ending: Ending,
    stream: &MiniBatchStream,
    timing: &Timing,
    summary: &Summary,
) -> Result<()> {
    let counts = stream.counts();
    let handle = stream.handle();
    let waits = timing.other_waits();
    print(&SummaryLine {
        kind: "summary",
        ending: ending.name(),
        mini_batches: counts.delivered,
        delivered: stream.delivered(),
        samples: summary.samples,
        data_set_samples: stream.samples(),
        skipped: summary.skipped,
        inconsistent: summary.inconsistent,
        in_corpus: stream.in_corpus(),
        sampler: summary.sampler,
        similarity: mean(&summary.walked, Measure::mean_similarity),
        uniform_similarity: mean(&summary.uniform, Measure::mean_similarity),
        label: summary.label.as_deref(),
        shared: mean_shared(&summary.walked),
        uniform_shared: mean_shared(&summary.uniform),
        staleness: (!summary.graph_versions.is_empty()).then_some(summary.staleness),
        graph_versions: summary.graph_versions.iter().map(|(version, count)| (version.0, *count)).collect(),
        sources: &summary.sources,
        warm_up: summary.warm_up,
        first_wait: timing.first().map(|wait| wait.as_secs_f64()),
        median_wait: waits.median.map(|wait| wait.as_secs_f64()),
        longest_wait: waits.longest.map(|wait| wait.as_secs_f64()),
        trainer_wait: counts.trainer_wait.as_secs_f64(),
        producer_wait: counts.producer_wait.as_secs_f64(),
        streaming: timing.streaming.as_secs_f64(),
        refreshes: handle.counts(),
        source: handle.source_counts(),
        embeddings_reused: handle.embeddings_reused(),
        unplaced: counts.unplaced,
        repeated: counts.repeated,
        unsaved: counts.unsaved,
        counts: summary.counts,
    })
}

/// One mini-batch.
#[derive(Serialize)]
struct MiniBatchLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    step: u64,
    epoch: u64,
    samples: usize,
    ids: Vec<u32>,
    negatives: Vec<Vec<Option<u32>>>,
    similarity: Option<f32>,
    staleness: Option<u64>,
    model_version: Option<u64>,
    graph_version: Option<u64>,
    is_warm_up: bool,
    /// Hexadecimal: many readers of JSON have no whole numbers of 64 bits.
    digest: String,
    wait: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sources: BTreeMap<&'a str, usize>,
    counts: WalkCounts,
}

/// A run.
#[derive(Serialize)]
struct SummaryLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    ending: &'static str,
    mini_batches: u64,
    delivered: u64,
    samples: usize,
    data_set_samples: usize,
    skipped: usize,
    inconsistent: usize,
    in_corpus: usize,
    sampler: SamplerKind,
    similarity: Option<f64>,
    uniform_similarity: Option<f64>,
    label: Option<&'a str>,
    shared: Option<f64>,
    uniform_shared: Option<f64>,
    staleness: Option<u64>,
    graph_versions: BTreeMap<u64, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sources: &'a BTreeMap<String, u64>,
    warm_up: u64,
    first_wait: Option<f64>,
    median_wait: Option<f64>,
    longest_wait: Option<f64>,
    trainer_wait: f64,
    producer_wait: f64,
    streaming: f64,
    refreshes: RefreshCounts,
    source: SourceCounts,
    embeddings_reused: u64,
    unplaced: u64,
    repeated: u64,
    unsaved: u64,
    counts: WalkCounts,
}

fn mean(measure: &Measure, of: fn(&Measure) -> f64) -> Option<f64> {
    (!measure.similarity.is_empty()).then(|| of(measure))
}

fn mean_shared(measure: &Measure) -> Option<f64> {
    (!measure.shared.is_empty()).then(|| measure.mean_shared())
}

fn print(line: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(line);
    let text =
        text.map_err(|cause| Error::Io { action: "write to", path: "standard output".into(), cause: cause.into() })?;
    say!("{text}")
}
