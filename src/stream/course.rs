//! How a stream has gone so far, for those who watch it while it runs.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::counts::Shared;
use super::{MiniBatch, StreamCounts};
use crate::error::Result;
use crate::sample::{GraphVersion, ModelVersion};

/// How a stream has gone so far. The stream writes it; whoever watches reads it, from any task.
#[derive(Debug)]
pub(crate) struct Course {
    shared: Arc<Shared>,
    /// Mini-batches that are ready wait here; it does not keep the producer's end open.
    waiting: mpsc::WeakSender<Result<MiniBatch>>,
    delivered: Mutex<Delivered>,
}

/// What has been delivered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivered {
    pub counts: StreamCounts,
    pub samples: u64,
    /// `None` before the first mini-batch.
    pub last: Option<Last>,
    pub history: History,
}

/// The mini-batch that was delivered last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Last {
    pub epoch: u64,
    pub step: u64,
    pub similarity: Option<f32>,
    pub staleness: Option<u64>,
    pub graph_version: Option<GraphVersion>,
    pub model_version: Option<ModelVersion>,
}

impl Course {
    pub fn new(shared: Arc<Shared>, waiting: mpsc::WeakSender<Result<MiniBatch>>) -> Self {
        Self { shared, waiting, delivered: Mutex::default() }
    }

    /// The trainer has taken a mini-batch, for which it has waited so long; `counts` are the stream's since its start.
    pub fn add(&self, mini_batch: &MiniBatch, waited: Duration, counts: &StreamCounts) {
        let &MiniBatch { epoch, step, similarity, staleness, graph_version, model_version, .. } = mini_batch;
        let mut delivered = self.lock();
        delivered.counts = *counts;
        delivered.samples += mini_batch.ids.len() as u64;
        delivered.last = Some(Last { epoch, step, similarity, staleness, graph_version, model_version });
        delivered.history.add(step, similarity, staleness, waited);
    }

    pub fn delivered(&self) -> Delivered {
        let delivered = self.lock().clone();
        Delivered { counts: self.shared.complete(&delivered.counts), ..delivered }
    }

    /// Mini-batches in the epoch that is being made.
    pub fn per_epoch(&self) -> u64 {
        self.shared.per_epoch.load(Relaxed)
    }

    /// Mini-batches in the run; `None` if that is not known beforehand.
    pub fn total(&self) -> Option<u64> {
        (!self.shared.is_open).then(|| self.shared.total.load(Relaxed))
    }

    /// How many mini-batches are ready and how many can be; `None` once the producer has ended.
    pub fn ready(&self) -> Option<(usize, usize)> {
        let waiting = self.waiting.upgrade()?;
        Some((waiting.max_capacity() - waiting.capacity(), waiting.max_capacity()))
    }

    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's mini-batches, summed up over spans of equally many steps, so that a run of any length takes little room.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Steps that a span covers.
    width: u64,
    spans: Vec<Span>,
}

/// Some mini-batches that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Span {
    /// The first step.
    pub step: u64,
    pub mini_batches: u64,
    /// The sum over those that have a similarity, and their number.
    similarity: (f64, u64),
    /// The largest; `None` if none has one.
    pub staleness: Option<u64>,
    /// All of their waits.
    waited: Duration,
}

impl Span {
    /// The mean similarity; `None` if no mini-batch has one.
    pub fn similarity(&self) -> Option<f64> {
        let (sum, count) = self.similarity;
        (count > 0).then(|| sum / count as f64)
    }

    /// How long the trainer has waited for one of them, on average.
    pub fn mean_wait(&self) -> Duration {
        self.waited.div_f64(self.mini_batches.max(1) as f64)
    }

    fn join(&mut self, other: Self) {
        self.mini_batches += other.mini_batches;
        self.similarity.0 += other.similarity.0;
        self.similarity.1 += other.similarity.1;
        self.staleness = self.staleness.max(other.staleness);
        self.waited += other.waited;
    }
}

impl History {
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    fn add(&mut self, step: u64, similarity: Option<f32>, staleness: Option<u64>, waited: Duration) {
        let similarity = similarity.map_or((0.0, 0), |similarity| (f64::from(similarity), 1));
        let new = Span { step, mini_batches: 1, similarity, staleness, waited };
        self.width = self.width.max(1);
        match self.spans.last_mut().filter(|span| step / self.width == span.step / self.width) {
            Some(span) => span.join(new),
            None => self.spans.push(new),
        }
        if self.spans.len() > MOST_SPANS {
            self.width *= 2;
            let width = self.width;
            self.spans.dedup_by(|next, span| {
                let is_same = next.step / width == span.step / width;
                if is_same {
                    span.join(*next);
                }
                is_same
            });
        }
    }
}

/// Spans of a history, at most; enough for every point of a plot.
const MOST_SPANS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Against plain sums over all mini-batches: nothing is lost, and no span is wider than the history says.
    #[test]
    fn a_long_history_keeps_all_sums() {
        let mut history = History::default();
        let similarity = |step: u64| (!step.is_multiple_of(7)).then_some((step % 10) as f32);
        let steps = 300..20_000;
        for step in steps.clone() {
            history.add(step, similarity(step), step.checked_sub(400), Duration::from_millis(step));
        }
        let spans = history.spans();
        assert!((MOST_SPANS / 2..=MOST_SPANS).contains(&spans.len()), "{}", spans.len());
        assert_eq!(spans.iter().map(|span| span.mini_batches).sum::<u64>(), 19_700);
        for pair in spans.windows(2) {
            assert_eq!(pair[0].step + pair[0].mini_batches, pair[1].step);
        }
        for span in spans {
            let steps = span.step..span.step + span.mini_batches;
            assert_eq!(span.step / history.width, (steps.end - 1) / history.width);
            let known: Vec<f64> = steps.clone().filter_map(similarity).map(f64::from).collect();
            let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
            assert_eq!(span.similarity(), mean);
            assert_eq!(span.staleness, (steps.end - 1).checked_sub(400));
            assert_eq!(span.waited, Duration::from_millis(steps.sum()));
        }
    }

    #[test]
    fn a_short_history_has_a_span_for_each_mini_batch() {
        let mut history = History::default();
        history.add(5, None, None, Duration::ZERO);
        history.add(6, Some(0.5), Some(2), Duration::from_secs(1));
        let of: Vec<_> = history.spans().iter().map(|span| (span.step, span.similarity(), span.staleness)).collect();
        assert_eq!(of, [(5, None, None), (6, Some(0.5), Some(2))]);
    }
}
