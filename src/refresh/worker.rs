//! The task that refreshes: waits for a trigger, runs one refresh, publishes its snapshot.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::agreement::Agreement;
use super::cancel::CancelOnDrop;
use super::easing::SharedEasing;
use super::first::Beginning;
use super::handle::{Call, RefreshHandle};
use super::published::Publisher;
use super::push_queue::PushQueue;
use super::pushed_vectors::Pushes;
use super::report::{RefreshSeconds, RefreshStatus, Refreshed};
use super::snapshot::Snapshot;
use super::triggers::{Trigger, changed, fixed_every, refresh_steps};
use super::unembedded::UnembeddedRows;
use super::watch::ModelWatch;
use super::work::{RefreshContext, RefreshInput, RefreshOutput};
use crate::checkpoint::CheckpointFolder;
use crate::config::{OnNewerModel, OnRefreshError};
use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::sample::GraphVersion;
use crate::telemetry;

/// Makes all snapshots after the first one, and that one too if the run begins without.
pub(crate) struct Worker {
    pub(super) context: Arc<RefreshContext>,
    pub(super) encoder: Arc<dyn Encoder>,
    pub(super) publisher: Publisher,
    pub(super) delivered: watch::Receiver<u64>,
    pub(super) asked: watch::Receiver<u64>,
    pub(super) calls: mpsc::UnboundedReceiver<Call>,
    pub(super) model_watch: Option<ModelWatch>,
    /// The graph whose mini-batches have become easier.
    pub(super) easier: watch::Receiver<GraphVersion>,
    pub(super) push_queue: Arc<Mutex<PushQueue>>,
    pub(super) status: Arc<RefreshStatus>,
    /// The number of refreshes that have failed since the last one that did not.
    failures: u32,
    /// When the last refresh began.
    pub(super) begun: Instant,
    /// The step at which the next refresh begins; `u64::MAX` if steps trigger none.
    pub(super) due_step: u64,
    /// Whether the snapshot in use is of an earlier run, so that the encoder may be newer than its embeddings.
    is_restored: bool,
    /// The rows to make the first snapshot of, if the run begins without one.
    unembedded: Option<Arc<UnembeddedRows>>,
    /// Whether a changed model cancelled the last refresh, so that the next one begins at once.
    pub(super) restarts: bool,
    /// With several ranks, and triggers that do not fire at the same step on all.
    pub(super) agreement: Option<Agreement>,
    /// Calls that wait for the next refresh on which all ranks agree.
    pub(super) waiting_calls: Vec<Call>,
}

/// How far the trainer is.
pub(crate) struct TrainerSteps {
    /// The number of mini-batches that it has taken.
    pub delivered: watch::Receiver<u64>,
    /// The step of the mini-batch that it has asked for last. It is done with all before.
    pub asked: watch::Receiver<u64>,
}

impl Worker {
    /// Publishes the first snapshot, if there is one.
    pub fn new(
        context: Arc<RefreshContext>,
        beginning: Beginning,
        encoder: Arc<dyn Encoder>,
        model_watch: Option<ModelWatch>,
        TrainerSteps { delivered, asked }: TrainerSteps,
    ) -> (Self, RefreshHandle) {
        let Beginning { drawn_from, waiting, is_restored } = beginning;
        let begun_at_step = drawn_from.snapshot().map(|snapshot| snapshot.begun_at_step);
        // The vectors of an earlier run may be of another dimension than the encoder's.
        let dimension = drawn_from.snapshot().map_or(encoder.dimension(), |snapshot| snapshot.embeddings.dimension());
        let agreement = context.agreement();
        let fixed_every = fixed_every(&context.refresh, agreement.as_ref());
        let mut push_queue = PushQueue::new(dimension, refresh_steps(fixed_every, begun_at_step));
        push_queue.resume(&waiting);
        let push_queue = Arc::new(Mutex::new(push_queue));
        let (publisher, published) = Publisher::new(drawn_from);
        let unembedded = published.unembedded().cloned();

        let (tx, calls) = mpsc::unbounded_channel();
        let (easing, easier) = SharedEasing::new(context.refresh.when_easier);
        let status = Arc::<RefreshStatus>::default();
        let handle = RefreshHandle {
            calls: tx,
            push_queue: push_queue.clone(),
            easing,
            status: status.clone(),
            published,
            delivered: delivered.clone(),
            source: context.source.clone(),
            checkpoint_folder: context.checkpoint_folder.as_ref().map(CheckpointFolder::downgrade),
            embedding_cache: context.embedding_cache.clone(),
            storage: context.storage,
            similarity: context.similarity,
            has_starts: context.has_starts,
        };
        let mut worker = Self {
            context,
            encoder,
            publisher,
            delivered,
            asked,
            calls,
            model_watch,
            easier,
            push_queue,
            status,
            failures: 0,
            begun: Instant::now(),
            due_step: u64::MAX,
            is_restored,
            unembedded,
            restarts: false,
            agreement,
            waiting_calls: Vec::new(),
        };
        if let Some(step) = begun_at_step {
            worker.schedule_after(step);
        }
        (worker, handle)
    }

    /// Refreshes whenever a trigger fires, until the stream is dropped. The error is one that ends the run.
    pub async fn run(mut self) -> Result<()> {
        if let Some(rows) = self.unembedded.take()
            && !self.make_first(&rows).await?
        {
            return Ok(());
        }
        while let Some(trigger) = self.agreed_trigger().await? {
            self.begun = Instant::now();
            let due_step = if let Trigger::Steps(step) = trigger { Some(step) } else { None };
            let step = due_step.unwrap_or_else(|| *self.delivered.borrow());
            let result = self.refresh_and_publish(step, due_step).instrument(telemetry::refresh(step)).await;
            self.schedule_next(due_step.is_some());

            let fatal = self.report_failure(&result);
            let call = if let Trigger::Call(call) = trigger { Some(call) } else { None };
            for call in self.waiting_calls.drain(..).chain(call) {
                // If the caller is gone, there is nothing to report to.
                let _ = call.send(copy_of(&result));
            }
            if let Some(error) = fatal {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Logs a refresh that failed; gives the error if it is one that ends the run.
    fn report_failure(&self, result: &Result<Refreshed>) -> Option<Error> {
        let Err(Error::Refresh { step, failures, cause }) = result else { return None };
        telemetry::refresh_failed(*step, cause);
        let config = &self.context.refresh;
        let is_fatal = config.on_error == OnRefreshError::Fail && *failures >= config.max_failures;
        is_fatal.then(|| Error::Refresh { step: *step, failures: *failures, cause: cause.clone() })
    }

    /// One refresh, from the search for what is new to its publication. `due_step` is given if its step was fixed.
    async fn refresh_and_publish(&mut self, step: u64, due_step: Option<u64>) -> Result<Refreshed> {
        let old = self.publisher.current().ok_or(Error::TaskEnded { task: "refresh" })?;
        let version = old.graph_version().0 + 1;
        self.forget_pushes();
        let pushed = self.push_queue().take(due_step, version);
        let result = self.refresh_or_cancel(old.clone(), pushed, step).await;
        self.status.clear();
        match result {
            Ok(output) => Ok(self.adopt(output, old, step)),
            Err(error) => {
                self.push_queue().take_back(version);
                Err(self.count_failure(error, step))
            }
        }
    }

    /// Makes a snapshot. With `on_newer_model = "restart"`, a model that changes meanwhile cancels that.
    async fn refresh_or_cancel(&mut self, old: Arc<Snapshot>, pushed: Arc<Pushes>, step: u64) -> Result<RefreshOutput> {
        let cancel = CancelOnDrop(Arc::default());
        let making = self.context.make_snapshot(RefreshInput {
            old,
            encoder: self.encoder.clone(),
            is_restored: self.is_restored,
            pushed,
            step,
            cancelled: cancel.0.clone(),
            status: self.status.clone(),
        });
        // Ranks that agree on refreshes finish them, since a model changes for each at another time.
        let restarts = self.context.refresh.on_newer_model == OnNewerModel::Restart && self.agreement.is_none();
        tokio::select! {
            result = making => result,
            () = changed(&mut self.model_watch), if restarts => {
                self.restarts = true;
                Err(Error::Cancelled)
            }
        }
    }

    /// Takes over what a refresh has made, and publishes its snapshot, if there is one.
    fn adopt(&mut self, output: RefreshOutput, old: Arc<Snapshot>, step: u64) -> Refreshed {
        let RefreshOutput { report, snapshot, encoder } = output;
        self.failures = 0;
        self.is_restored = false;
        self.forget_pushes();
        let old_encoder = std::mem::replace(&mut self.encoder, encoder);
        let Some(snapshot) = snapshot else {
            count(&self.status.skipped);
            return report;
        };

        count(&self.status.published);
        self.status.took(report.seconds);
        let RefreshSeconds { store, model, encode, graph, checkpoint } = report.seconds;
        telemetry::published(snapshot.graph_version(), snapshot.model_version(), step, report.seconds.total());
        telemetry::refresh_took(store, model, encode, graph, checkpoint);
        let unused = match self.context.refresh.swap_after_steps {
            None => self.publisher.publish(snapshot),
            Some(lag) => self.publisher.publish_from(step.saturating_add(lag), snapshot, *self.delivered.borrow()),
        };
        // Freeing much memory takes a while, and the stream's tasks may run on this thread, too.
        drop(tokio::task::spawn_blocking(move || drop((old, unused, old_encoder))));
        report
    }

    /// Counts a refresh that was cancelled or failed; gives the error for its caller.
    fn count_failure(&mut self, error: Error, step: u64) -> Error {
        if matches!(error, Error::Cancelled) {
            count(&self.status.cancelled);
            telemetry::refresh_cancelled(step);
            return error;
        }
        self.failures += 1;
        count(&self.status.failed);
        Error::Refresh { step, failures: self.failures, cause: Arc::new(error) }
    }

    /// Forgets pushes that are in every graph that a state may still refer to.
    ///
    /// Without a checkpoint folder no state can be resumed.
    fn forget_pushes(&self) {
        let folder = self.context.checkpoint_folder.as_ref();
        let in_use = folder.map_or(u64::MAX, CheckpointFolder::oldest_graph_in_use);
        self.push_queue().forget(in_use);
    }

    pub(super) fn push_queue(&self) -> MutexGuard<'_, PushQueue> {
        self.push_queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("failures", &self.failures).finish_non_exhaustive()
    }
}

/// The result of a refresh, for one of several callers.
fn copy_of(result: &Result<Refreshed>) -> Result<Refreshed> {
    match result {
        Ok(refreshed) => Ok(refreshed.clone()),
        Err(Error::Refresh { step, failures, cause }) => {
            Err(Error::Refresh { step: *step, failures: *failures, cause: cause.clone() })
        }
        Err(_) => Err(Error::Cancelled),
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
