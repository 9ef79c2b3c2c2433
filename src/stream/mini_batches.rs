//! The stream of mini-batches that a trainer takes.

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
#[cfg(feature = "metrics")]
use super::course::Course;
use super::{MiniBatch, StreamCounts};
use crate::checkpoint::{CheckpointFolder, State};
use crate::error::{Error, Result};
use crate::refresh::{RefreshHandle, Snapshot};
use crate::telemetry;

/// A running pipeline as the trainer sees it: a stream of mini-batches.
///
/// It ends after the last epoch, or after its first error. Dropping it ends all its tasks; work that the compute pool
/// has begun runs to its end there, and its result is thrown away.
///
/// ```
/// use futures::TryStreamExt;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use prosampler::arrow::{array::{ArrayRef, FixedSizeListArray, RecordBatch}, datatypes::Float32Type};
/// # use prosampler::{Pipeline, config::*, encode::ColumnEncoder, source::MemorySource};
/// # let vector = |i: i32| Some([Some((i as f32).sin()), Some((i as f32).cos())]);
/// # let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..100).map(vector), 2);
/// # let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)])?;
/// # let pipeline = Pipeline::builder()
/// #     .encoder(ColumnEncoder::new(&rows.schema(), "vector")?)
/// #     .source(MemorySource::new(vec![rows])?)
/// #     .graph(GraphConfig { candidates: 20.into(), neighbors: Some(5), ..GraphConfig::default() })
/// #     .walk(WalkConfig { batch_size: 32, ..WalkConfig::default() });
/// let mut stream = pipeline.start().await?;
/// let mut samples = 0;
/// while let Some(mini_batch) = stream.try_next().await? {
///     samples += mini_batch.ids.len();
/// }
/// assert_eq!((samples, stream.delivered()), (100, 4));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MiniBatchStream {
    rx: mpsc::Receiver<Result<MiniBatch>>,
    delivered: watch::Sender<u64>,
    asked: watch::Sender<u64>,
    shared: Arc<Shared>,
    handle: RefreshHandle,
    schema: SchemaRef,
    is_done: bool,
    tasks: JoinSet<()>,
    state: State,
    /// Keeps the folder locked for this run.
    _checkpoint_folder: Option<CheckpointFolder>,
    counts: StreamCounts,
    /// Since when the trainer has waited for a mini-batch, if it does.
    waiting_since: Option<Instant>,
    /// For those who watch the run.
    #[cfg(feature = "metrics")]
    watched: Option<WatchedCourse>,
}

/// A course that is watched, and where.
#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
pub(crate) struct WatchedCourse {
    pub course: Arc<Course>,
    pub address: std::net::SocketAddr,
}

/// What a stream is made of.
pub(crate) struct StreamParts {
    /// Receives the producer's mini-batches.
    pub rx: mpsc::Receiver<Result<MiniBatch>>,
    /// The number of mini-batches that the trainer has taken.
    pub delivered: watch::Sender<u64>,
    /// The step of the mini-batch that the trainer has asked for last.
    pub asked: watch::Sender<u64>,
    /// The worker and the producer.
    pub tasks: JoinSet<()>,
    pub handle: RefreshHandle,
    pub shared: Arc<Shared>,
    pub schema: SchemaRef,
    pub state: State,
    pub checkpoint_folder: Option<CheckpointFolder>,
    #[cfg(feature = "metrics")]
    pub watched: Option<WatchedCourse>,
}

impl MiniBatchStream {
    pub(crate) fn new(parts: StreamParts) -> Self {
        Self {
            rx: parts.rx,
            delivered: parts.delivered,
            asked: parts.asked,
            shared: parts.shared,
            handle: parts.handle,
            schema: parts.schema,
            is_done: false,
            tasks: parts.tasks,
            state: parts.state,
            _checkpoint_folder: parts.checkpoint_folder,
            counts: StreamCounts::default(),
            waiting_since: None,
            #[cfg(feature = "metrics")]
            watched: parts.watched,
        }
    }

    /// Controls the run's refreshes, and takes vectors from the trainer.
    #[must_use]
    pub fn handle(&self) -> RefreshHandle {
        self.handle.clone()
    }

    /// Where the run stands, for [`resume`](crate::PipelineBuilder::resume).
    ///
    /// That is after the mini-batches taken from the stream, whatever is ready behind them. It is of use only with
    /// [`checkpoint.dir`](crate::config::CheckpointConfig). The files that it refers to may be gone some refreshes
    /// later, unless it is [kept](RefreshHandle::keep).
    #[must_use]
    pub fn state(&self) -> State {
        self.state.sealed()
    }

    /// The number of mini-batches in the epoch that is being made.
    ///
    /// It changes only if the source gains samples. Guards may end an epoch earlier, if no two of the samples left may
    /// be in one mini-batch. With the [paper's coverage](crate::config::Coverage::Paper) an epoch has more, and their
    /// number is known only at its end.
    #[must_use]
    pub fn mini_batches_per_epoch(&self) -> u64 {
        self.shared.per_epoch.load(Relaxed)
    }

    /// The number of samples in the data set of the newest snapshot.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.handle.store().len()
    }

    /// The number of those that could not be read and are in no mini-batch
    /// ([`OnBadSample::Skip`](crate::config::OnBadSample::Skip)).
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.snapshot().map_or(0, |snapshot| snapshot.embeddings.skipped())
    }

    /// The number of pairs that [`pairs.within`](crate::config::PairsConfig::within) leaves out of epochs that begin
    /// with the newest snapshot.
    #[must_use]
    pub fn inconsistent(&self) -> usize {
        self.snapshot().map_or(0, |snapshot| snapshot.embeddings.inconsistent())
    }

    /// The number of samples of [`pairs.corpus`](crate::config::PairsConfig::corpus), which are in no epoch.
    #[must_use]
    pub fn in_corpus(&self) -> usize {
        self.handle.published().in_corpus()
    }

    /// The columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The number of mini-batches taken so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        *self.delivered.borrow()
    }

    /// What the stream has counted so far: who waited for whom and how long, and what happened on the walks.
    #[must_use]
    pub fn counts(&self) -> StreamCounts {
        self.shared.complete(&self.counts)
    }

    /// The newest snapshot: what the next mini-batch to be made will use. `None` while a
    /// [warm-up](crate::config::WarmUp) has none yet.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.handle.snapshot()
    }

    /// Where the run can be watched; `None` without a
    /// [`metrics.address`](crate::config::MetricsConfig::address).
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics_address(&self) -> Option<std::net::SocketAddr> {
        self.watched.as_ref().map(|watched| watched.address)
    }

    fn deliver(&mut self, mini_batch: &MiniBatch, waited: Duration) {
        let MiniBatch { epoch, step, graph_version, staleness, similarity, is_warm_up, feedback, counts, .. } =
            *mini_batch;
        telemetry::delivered(step, waited.as_secs_f64(), staleness, similarity);
        self.counts.delivered += 1;
        self.counts.trainer_wait += waited;
        self.counts.staleness = self.counts.staleness.max(staleness.unwrap_or(0));
        self.counts.warm_up += u64::from(is_warm_up);
        self.counts.walks += counts;
        #[cfg(feature = "metrics")]
        if let Some(watched) = &self.watched {
            watched.course.add(mini_batch, waited, &self.counts);
        }
        if let (Some(graph), Some(similarity), false) = (graph_version, similarity, is_warm_up) {
            self.handle.note_delivered(&mini_batch.ids, graph, similarity);
        }
        self.state.advance(epoch, step, graph_version, feedback);
        self.delivered.send_modify(|delivered| *delivered += 1);
    }

    /// Ends the stream. It is an error if its tasks ended before the last mini-batch.
    fn end(&mut self) -> Option<Result<MiniBatch>> {
        self.is_done = true;
        self.tasks.abort_all();
        if self.delivered() >= self.shared.total.load(Relaxed) {
            return None;
        }
        Some(Err(Error::TaskEnded { task: "producer" }))
    }
}

impl Stream for MiniBatchStream {
    type Item = Result<MiniBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        loop {
            let step = self.delivered();
            self.asked.send_if_modified(|asked| std::mem::replace(asked, step) != step);
            let item = match self.rx.poll_recv(cx) {
                Poll::Ready(item) => item,
                Poll::Pending => {
                    self.waiting_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            };
            let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            return Poll::Ready(match item {
                Some(Ok(mini_batch)) => {
                    self.deliver(&mini_batch, waited);
                    if self.state.skips > 0 {
                        self.state.skips -= 1;
                        telemetry::left_out(mini_batch.step, self.state.skips);
                        continue;
                    }
                    Some(Ok(mini_batch))
                }
                Some(Err(error)) => {
                    self.is_done = true;
                    self.tasks.abort_all();
                    Some(Err(error))
                }
                None => self.end(),
            });
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.is_done {
            return (0, Some(0));
        }
        // An error ends the stream early, so only an upper bound is certain.
        let left = self.shared.total.load(Relaxed).saturating_sub(self.delivered());
        (0, usize::try_from(left).ok().filter(|_| !self.shared.is_open))
    }
}

impl FusedStream for MiniBatchStream {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}
