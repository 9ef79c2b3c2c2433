use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant as Clock;
use tracing::Instrument;

use super::handle::{Call, RefreshHandle};
use super::pushed::Pushes;
use super::report::{RefreshSeconds, RefreshStatus, Refreshed};
use super::snapshot::{Ages, Publisher, Snapshot};
use super::watch::ModelWatch;
use super::work::{CancelOnDrop, RefreshContext, RefreshInput, RefreshOutput};
use crate::checkpoint::{Checkpoints, SavedPushes, SavedSnapshot};
use crate::compute::ComputePool;
use crate::config::{OnNewerModel, OnRefreshError};
use crate::embeddings::EmbeddingTable;
use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::sample::GraphVersion;
use crate::store::Store;
use crate::telemetry;

/// Makes snapshots, the first one and all that follow.
pub(crate) struct Worker {
    context: Arc<RefreshContext>,
    encoder: Arc<dyn Encoder>,
    publisher: Publisher,
    delivered: watch::Receiver<u64>,
    calls: mpsc::UnboundedReceiver<Call>,
    model: Option<ModelWatch>,
    pushes: Arc<Mutex<Pushes>>,
    status: Arc<RefreshStatus>,
    failures: u32,
    /// When the last refresh began.
    begun: Clock,
    /// The step at which the next one begins.
    due: u64,
    /// The encoder may be newer than the embeddings.
    resumed: bool,
}

/// What the first snapshot is made of.
pub(crate) enum InitialSnapshot {
    Embedded(EmbeddingTable),
    /// The snapshot that a state is of, and what was pushed and is not in it.
    Resumed(Box<SavedSnapshot>, SavedPushes),
}

/// What started a refresh.
enum Trigger {
    /// So many delivered mini-batches: the step that was due.
    Steps(u64),
    Time,
    Model,
    Call(Call),
}

impl Worker {
    /// Builds and publishes the first snapshot.
    pub async fn start(
        context: RefreshContext,
        pool: &ComputePool,
        first: InitialSnapshot,
        store: Store,
        encoder: Arc<dyn Encoder>,
        model: Option<ModelWatch>,
        delivered: watch::Receiver<u64>,
    ) -> Result<(Self, RefreshHandle)> {
        let begun = Instant::now();
        let context = Arc::new(context);
        let resumed = matches!(first, InitialSnapshot::Resumed(..));
        let first = {
            let context = context.clone();
            move || match first {
                InitialSnapshot::Resumed(kept, waiting) => {
                    Ok((Snapshot::of_saved(*kept, store, &context.selection)?, waiting))
                }
                InitialSnapshot::Embedded(embeddings) => {
                    let (version, ages) = (GraphVersion(1), Ages::all_at(0));
                    let graph = context.backend.build(&embeddings, context.seed, version)?;
                    let (embeddings, selection) = (embeddings.into(), &context.selection);
                    let first = Snapshot::new(embeddings, graph, ages, (version, 0), store, selection, None)?;
                    if let Some(checkpoints) = &context.checkpoints {
                        checkpoints.save(&first.kept())?;
                    }
                    Ok((first, SavedPushes::default()))
                }
            }
        };
        let (first, waiting) = pool.run("graph", first).await?;
        let step = *delivered.borrow();
        telemetry::published(first.graph_version(), first.model_version(), step, begun.elapsed().as_secs_f64());
        let due = context.refresh.every_steps.map_or(u64::MAX, |every| first.begun_at_step.saturating_add(every));
        let fixed = context.refresh.every_steps.filter(|_| context.refresh.swap_after_steps.is_some());
        let fixed = fixed.map(|every| (first.begun_at_step, every));
        let mut pushes = Pushes::new(first.embeddings.dimension(), fixed);
        pushes.resume(&waiting);
        let pushes = Arc::new(Mutex::new(pushes));
        let (publisher, published) = Publisher::new(first);
        if let Some(lag) = context.refresh.swap_after_steps {
            publisher.settle(due.saturating_add(lag));
        }
        let (tx, calls) = mpsc::unbounded_channel();
        let status = Arc::<RefreshStatus>::default();
        let handle = RefreshHandle {
            calls: tx,
            pushes: pushes.clone(),
            status: status.clone(),
            published,
            delivered: delivered.clone(),
            source: context.source.clone(),
            checkpoints: context.checkpoints.as_ref().map(Checkpoints::downgrade),
            embeddings: context.embeddings.clone(),
        };
        let worker = Self {
            context,
            encoder,
            publisher,
            delivered,
            calls,
            model,
            pushes,
            status,
            failures: 0,
            begun: Clock::now(),
            due,
            resumed,
        };
        Ok((worker, handle))
    }

    /// Refreshes whenever a trigger fires, until nobody delivers any more. The error is the one that ends the run.
    pub async fn run(mut self) -> Result<()> {
        let every = self.context.refresh.every_steps;
        let pause = self.context.refresh.every_seconds.map(Duration::from_secs_f64);
        let mut overtaken = false;
        loop {
            let trigger = if std::mem::take(&mut overtaken) {
                Trigger::Model
            } else {
                match self.next(self.due, pause.map(|pause| self.begun + pause)).await {
                    Some(trigger) => trigger,
                    None => return Ok(()),
                }
            };
            self.begun = Clock::now();
            let due = if let Trigger::Steps(due) = trigger { Some(due) } else { None };
            let step = due.unwrap_or_else(|| *self.delivered.borrow());
            let result = self.refresh(step, due, &mut overtaken).instrument(telemetry::refresh(step)).await;
            if let (Trigger::Steps(_), Some(every)) = (&trigger, every) {
                // With `swap_after_steps` none may be left out, however late it is.
                let from =
                    if self.context.refresh.swap_after_steps.is_some() { self.due } else { *self.delivered.borrow() };
                self.due = from.max(self.due).saturating_add(every);
            }
            if let Some(lag) = self.context.refresh.swap_after_steps {
                self.publisher.settle(self.due.saturating_add(lag));
            }
            let config = &self.context.refresh;
            let mut fatal = None;
            if let Err(Error::Refresh { step, failures, cause }) = &result {
                telemetry::refresh_failed(*step, cause);
                if config.on_error == OnRefreshError::Fail && *failures >= config.max_failures {
                    fatal = Some(Error::Refresh { step: *step, failures: *failures, cause: cause.clone() });
                }
            }
            if let Trigger::Call(call) = trigger {
                // A caller that is gone has no use for the answer.
                let _ = call.send(result);
            }
            if let Some(error) = fatal {
                return Err(error);
            }
        }
    }

    /// Forgets what every state has that may yet be kept. Without checkpoints none is.
    fn forget_pushes(&self) {
        let in_use = self.context.checkpoints.as_ref().map_or(u64::MAX, Checkpoints::oldest_graph_in_use);
        self.pushes().forget(in_use);
    }

    fn pushes(&self) -> MutexGuard<'_, Pushes> {
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next trigger that fires; `None` at the end of the run.
    async fn next(&mut self, due: u64, at: Option<Clock>) -> Option<Trigger> {
        let time = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            delivered = self.delivered.wait_for(|&delivered| delivered >= due) => {
                delivered.is_ok().then_some(Trigger::Steps(due))
            }
            // The stream keeps a handle, so calls end no earlier than the run.
            call = self.calls.recv() => call.map(Trigger::Call),
            () = changed(&mut self.model) => Some(Trigger::Model),
            () = time => Some(Trigger::Time),
        }
    }

    /// One refresh, from the search for what is new to its publication. `due` where its step was fixed before.
    async fn refresh(&mut self, step: u64, due: Option<u64>, overtaken: &mut bool) -> Result<Refreshed> {
        let old = self.publisher.current();
        let version = old.graph_version().0 + 1;
        self.forget_pushes();
        let pushed = self.pushes().take(due, version);
        let cancel = CancelOnDrop(Arc::default());
        let work = self.context.refresh(RefreshInput {
            old: old.clone(),
            encoder: self.encoder.clone(),
            resumed: self.resumed,
            pushed,
            step,
            cancelled: cancel.0.clone(),
            status: self.status.clone(),
        });
        let restart = self.context.refresh.on_newer_model == OnNewerModel::Restart;
        let result = tokio::select! {
            result = work => result,
            () = changed(&mut self.model), if restart => {
                *overtaken = true;
                Err(Error::Cancelled)
            }
        };
        drop(cancel);
        self.status.rest();
        match result {
            Ok(RefreshOutput { report, snapshot, encoder }) => {
                self.failures = 0;
                self.resumed = false;
                self.forget_pushes();
                let old_encoder = std::mem::replace(&mut self.encoder, encoder);
                let Some(snapshot) = snapshot else {
                    count(&self.status.skipped);
                    return Ok(report);
                };
                count(&self.status.published);
                let (graph, model, seconds) = (snapshot.graph_version(), snapshot.model_version(), report.seconds);
                telemetry::published(graph, model, step, seconds.total());
                let RefreshSeconds { store, model, encode, graph, checkpoint } = seconds;
                telemetry::refresh_took(store, model, encode, graph, checkpoint);
                let unused = match self.context.refresh.swap_after_steps {
                    None => self.publisher.publish(snapshot),
                    Some(lag) => {
                        self.publisher.publish_from(step.saturating_add(lag), snapshot, *self.delivered.borrow())
                    }
                };
                // Freeing much memory takes a while, and the stream's tasks may be on this thread, too.
                drop(tokio::task::spawn_blocking(move || drop((old, unused, old_encoder))));
                Ok(report)
            }
            Err(error) => {
                self.pushes().restore(version);
                if matches!(error, Error::Cancelled) {
                    count(&self.status.cancelled);
                    telemetry::refresh_cancelled(step);
                    return Err(error);
                }
                self.failures += 1;
                count(&self.status.failed);
                Err(Error::Refresh { step, failures: self.failures, cause: Arc::new(error) })
            }
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("failures", &self.failures).finish_non_exhaustive()
    }
}

async fn changed(model: &mut Option<ModelWatch>) {
    match model {
        Some(model) => model.changed().await,
        None => std::future::pending().await,
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
