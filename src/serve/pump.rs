//! Moves mini-batches from the server to the trainer, over one exchange after another.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::messages::{Credits, Ticket};
use super::remote_handle::{RemoteHandle, refused};
use super::session::Session;
use crate::checkpoint::State;
use crate::error::Result;
use crate::stream::MiniBatch;
use crate::telemetry;

/// Moves mini-batches from exchanges, one after another, to the trainer.
pub(super) struct Pump {
    pub handle: RemoteHandle,
    pub ticket: Ticket,
    pub prefetch: u64,
    /// The state after the mini-batch that came last.
    pub received: State,
    /// The step up to which the trainer has taken them.
    pub taken: u64,
    pub taken_steps: mpsc::UnboundedReceiver<u64>,
    pub retries: Retries,
}

impl Pump {
    pub async fn run(mut self, mut session: Session, tx: mpsc::Sender<Result<(MiniBatch, State)>>) {
        loop {
            let broken = match self.pump(&mut session, &tx).await {
                Ok(()) => return,
                Err(status) => status,
            };
            session = match self.reconnect(broken).await {
                Ok(session) => session,
                Err(error) => {
                    // If the trainer is gone, there is nobody to tell.
                    let _ = tx.send(Err(error)).await;
                    return;
                }
            };
        }
    }

    /// Moves mini-batches until the run ends, or the trainer is gone.
    async fn pump(
        &mut self,
        session: &mut Session,
        tx: &mpsc::Sender<Result<(MiniBatch, State)>>,
    ) -> Result<(), Status> {
        loop {
            tokio::select! {
                taken = self.taken_steps.recv() => {
                    let Some(step) = taken else { return Ok(()) };
                    session.give(Credits { credits: step - self.taken, taken: step });
                    self.taken = step;
                }
                next = session.next() => {
                    let Some((mini_batch, state)) = next? else { return Ok(()) };
                    self.received = state.clone();
                    self.retries.succeeded();
                    // There is room: no more mini-batches are asked for than the channel holds.
                    if tx.send(Ok((mini_batch, state))).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Goes on after what has come.
    async fn reconnect(&mut self, mut broken: Status) -> Result<Session> {
        self.ticket.state = Some(self.received.clone());
        loop {
            self.retries.wait(&self.handle.uri, broken).await?;
            while let Ok(step) = self.taken_steps.try_recv() {
                self.taken = step;
            }
            let waiting = self.received.next_step() - self.taken;
            match Session::open(&self.handle, &self.ticket, self.prefetch - waiting, self.taken).await {
                Ok(session) => return Ok(session),
                Err(status) => broken = status,
            }
        }
    }
}

/// How often, and after which pause, a connection is made again.
#[derive(Debug)]
pub(super) struct Retries {
    most: u32,
    done: u32,
}

impl Retries {
    pub fn new(most: u32) -> Self {
        Self { most, done: 0 }
    }

    fn succeeded(&mut self) {
        self.done = 0;
    }

    /// Waits before the next attempt, unless there is none or it would be in vain.
    pub async fn wait(&mut self, uri: &str, status: Status) -> Result<()> {
        let is_passing = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
        if !is_passing || self.done == self.most {
            return Err(refused(uri, status));
        }
        self.done += 1;
        telemetry::reconnecting(uri, self.done, &status.message());
        tokio::time::sleep((FIRST_PAUSE * 2u32.saturating_pow(self.done - 1)).min(LONGEST_PAUSE)).await;
        Ok(())
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
