use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::Stream;
use futures::stream::FusedStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::counts::Shared;
use super::{MiniBatch, StreamCounts};
use crate::checkpoint::{Checkpoints, State};
use crate::error::{Error, Result};
use crate::refresh::{RefreshHandle, Snapshot};
use crate::telemetry;

/// The running pipeline, seen from the trainer: a stream of mini-batches.
///
/// Ends after the last epoch, or after its first error. Dropping it ends all its tasks; work that is already in the
/// compute pool runs to its end there and is thrown away.
#[derive(Debug)]
pub struct MiniBatchStream {
    rx: mpsc::Receiver<Result<MiniBatch>>,
    delivered: watch::Sender<u64>,
    shared: Arc<Shared>,
    handle: RefreshHandle,
    schema: SchemaRef,
    done: bool,
    tasks: JoinSet<()>,
    state: State,
    /// The folder is this run's while this is here.
    _checkpoints: Option<Checkpoints>,
    counts: StreamCounts,
    /// The trainer looked for a mini-batch, and none was there.
    waits_since: Option<Instant>,
}

impl MiniBatchStream {
    pub(crate) fn new(
        rx: mpsc::Receiver<Result<MiniBatch>>,
        delivered: watch::Sender<u64>,
        tasks: JoinSet<()>,
        handle: RefreshHandle,
        shared: Arc<Shared>,
        (state, checkpoints): (State, Option<Checkpoints>),
    ) -> Self {
        let schema = handle.snapshot().schema(shared.negatives);
        let (counts, waits_since) = Default::default();
        Self {
            rx,
            delivered,
            shared,
            handle,
            schema,
            done: false,
            tasks,
            state,
            _checkpoints: checkpoints,
            counts,
            waits_since,
        }
    }

    /// Reaches into the run: refreshes at will, and vectors from the trainer.
    #[must_use]
    pub fn handle(&self) -> RefreshHandle {
        self.handle.clone()
    }

    /// Where the run stands, for [`resume`](crate::PipelineBuilder::resume): after the mini-batches that were taken from
    /// the stream, whatever is ready behind them. Of use with [`checkpoint.dir`](crate::config::CheckpointConfig) only.
    /// What it stands on may be gone some refreshes later, unless it is [kept](RefreshHandle::keep).
    #[must_use]
    pub fn state(&self) -> State {
        self.state.sealed()
    }

    /// Mini-batches in the epoch that is being made: always the same, unless the source gains samples. Guards may end an
    /// epoch earlier, where no two of the samples left may come together; with the [paper's
    /// coverage](crate::config::Coverage::Paper) an epoch has more, and how many shows at its end.
    #[must_use]
    pub fn mini_batches_per_epoch(&self) -> u64 {
        self.shared.per_epoch.load(Relaxed)
    }

    /// Samples in the data set, as the newest snapshot has it.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.snapshot().rows.len()
    }

    /// Those of them that could not be read and are in no mini-batch
    /// ([`OnBadSample::Skip`](crate::config::OnBadSample::Skip)).
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.snapshot().embeddings.skipped()
    }

    /// The columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Mini-batches taken so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        *self.delivered.borrow()
    }

    /// What has happened so far: how long who waited for whom, and what the walks met.
    #[must_use]
    pub fn counts(&self) -> StreamCounts {
        self.shared.complete(&self.counts)
    }

    /// The newest snapshot: what the next mini-batch to be made will use.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.handle.snapshot()
    }

    fn deliver(&mut self, mini_batch: &MiniBatch, waited: Duration) {
        let MiniBatch { epoch, step, graph_version, staleness, similarity, counts, .. } = *mini_batch;
        telemetry::delivered(step, waited.as_secs_f64(), staleness, similarity);
        self.counts.delivered += 1;
        self.counts.trainer_wait += waited;
        self.counts.staleness = self.counts.staleness.max(staleness);
        self.counts.walks += counts;
        self.state.advance(epoch, step, graph_version);
        self.delivered.send_modify(|delivered| *delivered += 1);
    }

    /// Ends the stream; what its tasks left behind when they ended early is an error.
    fn end(&mut self) -> Option<Result<MiniBatch>> {
        self.done = true;
        self.tasks.abort_all();
        (self.delivered() < self.shared.total.load(Relaxed)).then(|| Err(Error::TaskEnded { task: "producer" }))
    }
}

impl Stream for MiniBatchStream {
    type Item = Result<MiniBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let item = match self.rx.poll_recv(cx) {
            Poll::Ready(item) => item,
            Poll::Pending => {
                self.waits_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            }
        };
        let waited = self.waits_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        Poll::Ready(match item {
            Some(Ok(mini_batch)) => {
                self.deliver(&mini_batch, waited);
                Some(Ok(mini_batch))
            }
            Some(Err(error)) => {
                self.done = true;
                self.tasks.abort_all();
                Some(Err(error))
            }
            None => self.end(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.done {
            return (0, Some(0));
        }
        // An error ends the stream early, so nothing is certain but the most there can be, as of now.
        let left = self.shared.total.load(Relaxed).saturating_sub(self.delivered());
        (0, usize::try_from(left).ok().filter(|_| !self.shared.is_open))
    }
}

impl FusedStream for MiniBatchStream {
    fn is_terminated(&self) -> bool {
        self.done
    }
}
