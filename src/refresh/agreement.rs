//! On which steps of refreshes several ranks agree, if time or the model's file triggers them.
//!
//! Clocks of ranks differ, and so does when each sees a file change. So there are fixed steps at which a refresh may
//! begin, and rank 0 decides at each of them whether it does. The others wait for that in the background; their streams
//! wait only at the step from which the graph would be used.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoint::Decisions;
use crate::config::RefreshConfig;
use crate::error::{Error, Result};
use crate::telemetry;

/// What a rank knows of refreshes on which all agree.
pub(super) struct Agreement {
    /// `None` while they are being read or written.
    decisions: Option<Decisions>,
    /// The steps between two decisions.
    pub every: u64,
    /// The trigger by steps, beside the others.
    every_steps: Option<u64>,
    /// The step at which the last refresh began.
    begun_at_step: u64,
    /// Whether a trigger has fired here.
    is_wanted: bool,
}

impl Agreement {
    pub fn new(decisions: Decisions, config: &RefreshConfig) -> Self {
        let every = config.swap_after_steps.unwrap_or(MAX_STEPS_BETWEEN).clamp(1, MAX_STEPS_BETWEEN);
        let every_steps = config.every_steps;
        Self { decisions: Some(decisions), every, every_steps, begun_at_step: 0, is_wanted: false }
    }

    /// Notes that a trigger has fired. It counts on rank 0.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Notes that a refresh begins, or has begun, at `step`.
    pub fn begin(&mut self, step: u64) {
        self.begun_at_step = step;
        self.is_wanted = false;
    }

    /// Whether a refresh begins at `step`; `None` if the run ends before that is known.
    ///
    /// If rank 0 is gone, that is an error once the trainer asks for mini-batch `needed_at`.
    pub async fn begins(
        &mut self,
        step: u64,
        needed_at: u64,
        asked: &mut watch::Receiver<u64>,
    ) -> Result<Option<bool>> {
        let is_due = self.every_steps.is_some_and(|every| step >= self.begun_at_step.saturating_add(every));
        let wanted = self.is_wanted || is_due;
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            // In this order, since rank 0 may decide and end.
            let (has_writer, decided) = self.look(step, wanted).await?;
            if decided.is_some() {
                return Ok(decided);
            }
            let waited = begun.elapsed();
            let reason = match (has_writer, waited >= MAX_WAIT) {
                (true, false) => None,
                (false, _) => Some("has ended".to_owned()),
                (true, true) => Some(format!("has said nothing for {} s", waited.as_secs())),
            };
            if let Some(reason) = reason {
                if asked.wait_for(|&asked| asked >= needed_at).await.is_err() {
                    return Ok(None);
                }
                // It may have been late.
                return match self.look(step, wanted).await? {
                    (_, Some(decided)) => Ok(Some(decided)),
                    (_, None) => Err(rank_0(step, &reason)),
                };
            }
            if !is_told && waited >= PATIENCE {
                is_told = true;
                telemetry::decision_awaited(step);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether rank 0 is running, and what it has decided for `step`. Rank 0 decides here, unless it did before.
    async fn look(&mut self, step: u64, wanted: bool) -> Result<(bool, Option<bool>)> {
        let Some(mut decisions) = self.decisions.take() else { return Err(Error::Cancelled) };
        let look = move || {
            let has_writer = decisions.is_writer() || decisions.has_writer();
            let decided = decisions.at(step).and_then(|decided| {
                if decided.is_some() || !decisions.is_writer() {
                    return Ok(decided);
                }
                decisions.write(step, wanted)?;
                Ok(Some(wanted))
            });
            (decisions, decided.map(|decided| (has_writer, decided)))
        };
        let (decisions, looked) =
            tokio::task::spawn_blocking(look).await.map_err(|error| Error::of_task("refresh", error))?;
        self.decisions = Some(decisions);
        looked.map_err(|cause| Error::State {
            reason: format!(
                "whether a refresh begins at step {step} cannot be read or written in checkpoint.dir: {cause}"
            ),
        })
    }
}

fn rank_0(step: u64, what: &str) -> Error {
    let reason = format!(
        "rank 0, which decides whether a refresh begins at step {step}, {what}; start all ranks again, each with the \
         state that it has kept last"
    );
    Error::State { reason }
}

/// The most steps between two decisions.
const MAX_STEPS_BETWEEN: u64 = 10;

/// How long rank 0 may take before that is logged, and before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(600);

/// How long a rank waits between two looks.
const PAUSE: Duration = Duration::from_millis(20);
