//! The worker's first task in a run that begins with a warm-up: the first snapshot.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use super::cancel::{CancelOnDrop, CancellableEncoder};
use super::first::FirstEmbeddings;
use super::handle::Call;
use super::push_queue::FixedSteps;
use super::pushed_vectors::Pushes;
use super::report::{RefreshSeconds, Refreshed, Stopwatch};
use super::snapshot::Snapshot;
use super::unembedded::UnembeddedRows;
use super::worker::Worker;
use crate::config::FirstRefresh;
use crate::encode::Encoder;
use crate::error::{Error, ModelError, Result};
use crate::progress::Stage;
use crate::telemetry;

/// When the first snapshot is made, and for whom.
struct FirstDue {
    step: u64,
    /// The call of [`refresh_now`](super::RefreshHandle::refresh_now) that asks for it.
    call: Option<Call>,
}

/// A first snapshot, and the newest encoder.
struct FirstMade {
    snapshot: Snapshot,
    encoder: Arc<dyn Encoder>,
    report: Refreshed,
}

impl Worker {
    /// Makes and publishes the first snapshot as soon as it is due; false at the end of the run.
    ///
    /// If it cannot be made, the run ends.
    pub(super) async fn make_first(&mut self, rows: &Arc<UnembeddedRows>) -> Result<bool> {
        let Some(FirstDue { step, call }) = self.first_is_due().await else { return Ok(false) };
        self.begun = Instant::now();
        if let Some(every) = self.fixed_every() {
            self.push_queue().fix(FixedSteps { first: step, every });
        }
        let pushed = self.push_queue().take(Some(step), 1);
        let making = self.first_or_cancel(rows.clone(), pushed, step);
        let made = making.instrument(telemetry::refresh(step)).await;
        self.status.clear();
        match made {
            Ok(FirstMade { snapshot, encoder, report }) => {
                self.status.took(report.seconds);
                telemetry::published(snapshot.graph_version(), snapshot.model_version(), step, report.seconds.total());
                self.encoder = encoder;
                self.schedule_after(step);
                self.publisher.publish(snapshot);
                // If the caller is gone, there is nothing to report to.
                drop(call.map(|call| call.send(Ok(report))));
                Ok(true)
            }
            Err(error) => {
                let Some(call) = call else { return Err(error) };
                let cause = Arc::new(error);
                let failed = |cause| Error::Refresh { step, failures: 1, cause };
                // If the caller is gone, there is nothing to report to.
                let _ = call.send(Err(failed(cause.clone())));
                Err(failed(cause))
            }
        }
    }

    /// Waits until the first snapshot is due; `None` at the end of the run.
    async fn first_is_due(&mut self) -> Option<FirstDue> {
        if self.context.refresh.first == FirstRefresh::Start {
            return Some(FirstDue { step: 0, call: None });
        }
        let needed_at = &mut self.publisher.first_needed_at;
        let asked = &mut self.asked;
        let needed = async {
            let step = (*needed_at.wait_for(Option::is_some).await.ok()?)?;
            asked.wait_for(|&asked| asked >= step).await.ok()?;
            Some(step)
        };
        tokio::select! {
            biased;
            step = needed => step.map(|step| FirstDue { step, call: None }),
            call = self.calls.recv() => call.map(|call| FirstDue { step: *self.delivered.borrow(), call: Some(call) }),
        }
    }

    /// Makes the first snapshot. Dropping the future stops that at the next record batch.
    async fn first_or_cancel(&self, rows: Arc<UnembeddedRows>, pushed: Arc<Pushes>, step: u64) -> Result<FirstMade> {
        let cancel = CancelOnDrop(Arc::default());
        let cancelled = cancel.0.clone();
        let (context, status, encoder) = (self.context.clone(), self.status.clone(), self.encoder.clone());
        let make = move || {
            let mut stopwatch = Stopwatch::begin();
            let encoder = newest(encoder)?;
            let model = stopwatch.lap();
            let total = rows.store.len();
            let cancellable = CancellableEncoder { encoder: encoder.clone(), cancelled };
            let mut report = |done| {
                status.report(Stage::Encode, done, total);
                cancellable.check()
            };
            let table = context.embed_all(&cancellable, &rows.store, &mut report)?;
            let encode = stopwatch.lap();
            status.report(Stage::Graph, 0, total);
            let pushes = pushed.vectors.len();
            let first = FirstEmbeddings { table, step, pushed, facts: rows.facts.clone() };
            let mut wait = |_| cancellable.check();
            let snapshot = context.first_snapshot(&cancellable, rows.store.clone(), first, &mut wait)?;
            let seconds = RefreshSeconds { model, encode, graph: stopwatch.lap(), ..RefreshSeconds::default() };
            let report = Refreshed {
                graph_version: snapshot.graph_version(),
                model_version: snapshot.model_version(),
                skipped: false,
                drift: None,
                added: 0,
                pushed: pushes,
                seconds,
            };
            Ok(FirstMade { snapshot, encoder, report })
        };
        self.context.pool.run("refresh", make).await
    }
}

/// The encoder with the newest model, which must make vectors of the same dimension.
fn newest(encoder: Arc<dyn Encoder>) -> Result<Arc<dyn Encoder>> {
    let Some(newer) = encoder.newer()? else { return Ok(encoder) };
    let (found, expected) = (newer.dimension(), encoder.dimension());
    if found == expected {
        return Ok(newer);
    }
    Err(ModelError::Dimension {
        encoder: newer.name().to_owned(),
        found,
        other: "the run",
        expected,
        remedy: "export it with the same output, or start anew",
    }
    .into())
}
