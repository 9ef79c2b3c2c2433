//! A run at one moment, as `/status` tells it.

use serde::Serialize;

use super::watched::{Run, Watched};
use crate::progress::Progress;
use crate::refresh::{RefreshCounts, RefreshSeconds};
use crate::source::SourceCounts;
use crate::stream::{Delivered, Span};
use crate::walk::WalkCounts;

/// A run at one moment. Names are those of Rust, Python and `prosampler run --json`; seconds are seconds.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub version: &'static str,
    /// Since the run was started or resumed.
    pub seconds: f64,
    /// What a start or a refresh makes at the moment.
    pub progress: Option<Stage>,
    /// `None` while the run starts.
    pub run: Option<Running>,
}

/// How far a start or a refresh has come.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    pub stage: &'static str,
    pub done: usize,
    pub total: Option<usize>,
}

/// A run that streams.
#[derive(Debug, Serialize)]
pub(super) struct Running {
    pub data_set_samples: usize,
    /// Those that could not be encoded.
    pub skipped: usize,
    /// Pairs that `pairs.within` leaves out.
    pub inconsistent: usize,
    /// Mini-batches taken since the start.
    pub mini_batches: u64,
    /// Their samples.
    pub samples: u64,
    /// Mini-batches taken, those before a resume among them.
    pub delivered: u64,
    /// Mini-batches that the run has, if that is known.
    pub total: Option<u64>,
    pub mini_batches_per_epoch: u64,
    /// Of the last mini-batch, as are the next four.
    pub epoch: Option<u64>,
    pub similarity: Option<f32>,
    pub staleness: Option<u64>,
    pub graph_version: Option<u64>,
    pub model_version: Option<u64>,
    /// Mini-batches that wait for the trainer.
    pub ready: Option<usize>,
    pub prefetch: Option<usize>,
    pub trainer_wait: f64,
    pub producer_wait: f64,
    pub warm_up: u64,
    pub unplaced: u64,
    pub repeated: u64,
    pub unsaved: u64,
    pub counts: WalkCounts,
    pub refreshes: RefreshCounts,
    /// What refreshes have taken, stage by stage.
    pub refresh_seconds: RefreshSeconds,
    pub source: SourceCounts,
    pub embeddings_reused: u64,
    pub history: History,
}

/// The mini-batches so far, span by span; of a long run a span has many.
#[derive(Debug, Default, Serialize)]
pub(super) struct History {
    pub step: Vec<u64>,
    pub similarity: Vec<Option<f64>>,
    pub staleness: Vec<Option<u64>>,
    /// The mean wait of the trainer for one mini-batch, in milliseconds.
    pub wait_ms: Vec<f64>,
}

impl Status {
    pub fn of(watched: &Watched) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            seconds: watched.begun.elapsed().as_secs_f64(),
            progress: watched.progress().map(Stage::of),
            run: watched.run().map(Running::of),
        }
    }
}

impl Stage {
    fn of(progress: Progress) -> Self {
        Self { stage: progress.stage.name(), done: progress.done, total: progress.total }
    }
}

impl Running {
    fn of(Run { course, handle }: &Run) -> Self {
        let Delivered { counts, samples, last, history } = course.delivered();
        let ready = course.ready();
        Self {
            data_set_samples: handle.store().len(),
            skipped: handle.snapshot().map_or(0, |snapshot| snapshot.embeddings.skipped()),
            inconsistent: handle.snapshot().map_or(0, |snapshot| snapshot.embeddings.inconsistent()),
            mini_batches: counts.delivered,
            samples,
            delivered: handle.delivered(),
            total: course.total(),
            mini_batches_per_epoch: course.per_epoch(),
            epoch: last.map(|last| last.epoch),
            similarity: last.and_then(|last| last.similarity),
            staleness: last.and_then(|last| last.staleness),
            graph_version: last.and_then(|last| last.graph_version).map(|version| version.0),
            model_version: last.and_then(|last| last.model_version).map(|version| version.0),
            ready: ready.map(|(ready, _)| ready),
            prefetch: ready.map(|(_, prefetch)| prefetch),
            trainer_wait: counts.trainer_wait.as_secs_f64(),
            producer_wait: counts.producer_wait.as_secs_f64(),
            warm_up: counts.warm_up,
            unplaced: counts.unplaced,
            repeated: counts.repeated,
            unsaved: counts.unsaved,
            counts: counts.walks,
            refreshes: handle.counts(),
            refresh_seconds: handle.seconds(),
            source: handle.source_counts(),
            embeddings_reused: handle.embeddings_reused(),
            history: History {
                step: history.spans().iter().map(|span| span.step).collect(),
                similarity: history.spans().iter().map(Span::similarity).collect(),
                staleness: history.spans().iter().map(|span| span.staleness).collect(),
                wait_ms: history.spans().iter().map(|span| span.mean_wait().as_secs_f64() * 1e3).collect(),
            },
        }
    }
}
