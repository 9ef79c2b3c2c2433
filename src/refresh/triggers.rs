//! What starts refreshes, and at which steps they begin.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::agreement::Agreement;
use super::handle::Call;
use super::push_queue::{FixedSteps, RefreshSteps};
use super::watch::ModelWatch;
use super::worker::Worker;
use crate::config::RefreshConfig;
use crate::error::Result;
use crate::sample::GraphVersion;

/// What started a refresh.
pub(super) enum Trigger {
    /// The trainer has taken as many mini-batches as the due step says.
    Steps(u64),
    /// The time since the last refresh has passed.
    Time,
    /// The model's files have changed.
    Model,
    /// Mini-batches of this graph have become easier.
    Easier(GraphVersion),
    /// [`RefreshHandle::refresh_now`].
    Call(Call),
}

impl Worker {
    /// The next trigger that starts a refresh on all ranks; `None` at the end of the run.
    pub(super) async fn agreed_trigger(&mut self) -> Result<Option<Trigger>> {
        loop {
            let Some(trigger) = self.next_trigger().await else { return Ok(None) };
            if let Trigger::Easier(graph) = trigger
                && self.publisher.current().is_none_or(|newest| newest.graph_version() > graph)
            {
                // A newer graph is there already, or will come into use.
                continue;
            }
            let needed_at = self.decided_before();
            let Some(agreement) = &mut self.agreement else { return Ok(Some(trigger)) };
            match trigger {
                Trigger::Steps(step) => match agreement.begins(step, needed_at, &mut self.asked).await? {
                    None => return Ok(None),
                    Some(true) => {
                        agreement.begin(step);
                        return Ok(Some(trigger));
                    }
                    Some(false) => self.schedule_next(true),
                },
                Trigger::Time | Trigger::Model | Trigger::Easier(_) => {
                    self.begun = Instant::now();
                    agreement.want();
                }
                Trigger::Call(call) => {
                    agreement.want();
                    self.waiting_calls.push(call);
                }
            }
        }
    }

    /// The next trigger that fires; `None` at the end of the run.
    async fn next_trigger(&mut self) -> Option<Trigger> {
        if std::mem::take(&mut self.restarts) {
            return Some(Trigger::Model);
        }
        let due_step = self.due_step;
        let due_time = self.context.refresh.every_seconds.map(|every| self.begun + Duration::from_secs_f64(every));
        let time = async {
            match due_time {
                Some(due_time) => tokio::time::sleep_until(due_time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            delivered = self.delivered.wait_for(|&delivered| delivered >= due_step) => {
                delivered.is_ok().then_some(Trigger::Steps(due_step))
            }
            // The stream keeps a handle, so calls end no earlier than the run.
            call = self.calls.recv() => call.map(Trigger::Call),
            () = changed(&mut self.model_watch) => Some(Trigger::Model),
            graph = easier(&mut self.easier) => Some(Trigger::Easier(graph)),
            () = time => Some(Trigger::Time),
        }
    }

    /// Sets the step at which the next refresh begins, if the one that has ended was due at a step.
    pub(super) fn schedule_next(&mut self, was_due: bool) {
        if let Some(every) = self.every().filter(|_| was_due) {
            // None of several fixed steps may be left out, however late it is.
            let from = if self.fixed_every().is_some() { self.due_step } else { *self.delivered.borrow() };
            self.due_step = from.max(self.due_step).saturating_add(every);
        }
        self.decide();
    }

    /// The number of steps between those at which a refresh may begin; `None` if steps trigger none.
    fn every(&self) -> Option<u64> {
        self.agreement.as_ref().map(|agreement| agreement.every).or(self.context.refresh.every_steps)
    }

    /// The same, if the steps are fixed.
    pub(super) fn fixed_every(&self) -> Option<u64> {
        fixed_every(&self.context.refresh, self.agreement.as_ref())
    }

    /// Sets the step at which the next refresh begins after a snapshot that was begun at `step`.
    pub(super) fn schedule_after(&mut self, step: u64) {
        self.due_step = self.every().map_or(u64::MAX, |every| step.saturating_add(every));
        if let Some(agreement) = &mut self.agreement {
            agreement.begin(step);
        }
        self.decide();
    }

    /// Promises the steps before which no refresh to come is used.
    fn decide(&self) {
        if self.context.refresh.swap_after_steps.is_some() {
            self.publisher.decide_before(self.decided_before());
        }
    }

    /// The first step that may use a refresh to come.
    fn decided_before(&self) -> u64 {
        self.due_step.saturating_add(self.context.refresh.swap_after_steps.unwrap_or(0))
    }
}

/// The number of steps between those at which a refresh may begin, if they are fixed.
pub(super) fn fixed_every(config: &RefreshConfig, agreement: Option<&Agreement>) -> Option<u64> {
    let every = agreement.map(|agreement| agreement.every);
    every.or_else(|| config.every_steps.filter(|_| config.swap_after_steps.is_some()))
}

/// When refreshes begin that follow a snapshot begun at `begun_at_step`, if there is one yet.
pub(super) fn refresh_steps(fixed_every: Option<u64>, begun_at_step: Option<u64>) -> RefreshSteps {
    match (fixed_every, begun_at_step) {
        (None, _) => RefreshSteps::Open,
        (Some(_), None) => RefreshSteps::Unknown,
        (Some(every), Some(first)) => RefreshSteps::Fixed(FixedSteps { first, every }),
    }
}

/// Waits until mini-batches have become easier, and says of which graph.
async fn easier(easier: &mut watch::Receiver<GraphVersion>) -> GraphVersion {
    match easier.changed().await {
        Ok(()) => *easier.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

pub(super) async fn changed(model_watch: &mut Option<ModelWatch>) {
    match model_watch {
        Some(model_watch) => model_watch.changed().await,
        None => std::future::pending().await,
    }
}
