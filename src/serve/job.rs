//! One run, whose mini-batches all ranks share.
//!
//! A mini-batch is made when the first rank asks for it, and held until all have taken it. Of each rank the job knows
//! the connection that speaks for it: a newer one takes its place, since the older may be half open.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::sync::{Mutex, Notify, watch};
use tonic::Status;

use super::frames::status;
use super::messages::{Hello, RunStatus, Ticket};
use crate::checkpoint::State;
use crate::error::Result;
use crate::pipeline::PipelineBuilder;
use crate::refresh::RefreshHandle;
use crate::stream::{MiniBatch, MiniBatchStream};
use crate::telemetry;

/// Makes the pipeline of the run, each time that it starts.
pub(super) type MakePipeline = Box<dyn Fn() -> PipelineBuilder + Send + Sync>;

pub(super) struct Job {
    make: MakePipeline,
    world_size: usize,
    batch_size: usize,
    drop_last: bool,
    window: usize,
    run: Mutex<Run>,
    /// Told whenever a mini-batch need not be held any more, or a connection has taken another's place.
    changed: Notify,
    /// Whether the server ends.
    ends: watch::Sender<bool>,
}

/// A mini-batch for all ranks, and the state after it.
pub(super) struct Held {
    pub mini_batch: MiniBatch,
    pub state: State,
}

struct Run {
    /// `None` if it could not be started anew.
    stream: Option<MiniBatchStream>,
    /// The mini-batches that follow `state` and that some rank has not taken yet.
    held: VecDeque<Arc<Held>>,
    /// The state before these.
    state: State,
    ranks: Vec<Rank>,
    /// The number of the connection that came last.
    connections: u64,
    /// Why the run has ended, if by an error.
    failure: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Rank {
    /// The step up to which it has taken all mini-batches.
    taken: u64,
    /// The connection that speaks for it.
    connection: Option<u64>,
}

/// A connection's place in the job: that of its rank.
pub(super) struct Seat {
    job: Arc<Job>,
    pub rank: usize,
    pub world_size: usize,
    connection: u64,
    step: u64,
    pub hello: Hello,
    pub schema: arrow::datatypes::SchemaRef,
}

impl Job {
    /// Starts the run, with `window` mini-batches held at most, at the newest state that was kept if there is one.
    pub async fn start(make: MakePipeline, window: usize) -> Result<Self> {
        let mut builder = make();
        let world_size = builder.config.stream.world_size;
        let batch_size = builder.config.walk.batch_size;
        let drop_last = builder.config.walk.drop_last;
        if let Some(dir) = &builder.config.checkpoint.dir
            && let Some(state) = State::newest_kept(dir)?
        {
            telemetry::run_restarted(state.step, state.skips);
            builder = builder.resume(state);
        }
        let stream = builder.for_all_ranks().start().await?;
        let run = Mutex::new(Run::new(stream, world_size));
        let (changed, ends) = (Notify::new(), watch::Sender::new(false));
        Ok(Self { make, world_size, batch_size, drop_last, window, run, changed, ends })
    }

    /// Gives a connection its rank's place. A run that stands elsewhere is started anew at the state of the ticket.
    pub async fn join(self: &Arc<Self>, ticket: Ticket) -> Result<Seat, Status> {
        let Ticket { rank, world_size, state } = ticket;
        if world_size != self.world_size {
            let own = self.world_size;
            return Err(Status::invalid_argument(format!(
                "the ticket says {world_size} ranks, and the server's stream.world_size is {own}; give the same"
            )));
        }
        if rank >= world_size {
            let message = format!("the ticket says rank {rank} of {world_size}; ranks are numbered from 0");
            return Err(Status::invalid_argument(message));
        }
        let mut run = self.run.lock().await;
        let at = match &state {
            Some(state) => run.step_of(state),
            None => (run.state.next_step() == 0 && run.ranks[rank].taken == 0).then_some(0),
        };
        let step = match (at, state) {
            (Some(step), _) => step,
            (None, Some(state)) => self.restart(&mut run, rank, state).await?,
            (None, None) => {
                let taken = run.ranks[rank].taken;
                return Err(Status::failed_precondition(format!(
                    "rank {rank} has taken {taken} mini-batches of this run; give the state that it goes on from, or \
                     start the server anew"
                )));
            }
        };
        run.connections += 1;
        let connection = run.connections;
        run.ranks[rank] = Rank { taken: step, connection: Some(connection) };
        self.changed.notify_waiters();
        let stream = run.stream()?;
        let handle = stream.handle();
        let schema = stream.schema();
        let hello = Hello {
            samples: stream.samples(),
            mini_batches_per_epoch: stream.mini_batches_per_epoch(),
            dimension: handle.dimension(),
            has_checkpoints: handle.has_checkpoints(),
            state: run.state_at(step),
        };
        telemetry::rank_joined(rank, step);
        Ok(Seat { job: self.clone(), rank, world_size, connection, step, hello, schema })
    }

    /// Starts the run anew at a state, unless ranks other than `rank` are there.
    async fn restart(&self, run: &mut Run, rank: usize, state: State) -> Result<u64, Status> {
        let others: Vec<_> =
            (0..self.world_size).filter(|&other| other != rank && run.ranks[other].connection.is_some()).collect();
        if !others.is_empty() {
            let State { step, skips, .. } = state;
            return Err(Status::failed_precondition(format!(
                "rank {rank} gives a state of step {step} that leaves out {skips} mini-batches, which is not held, and \
                 ranks {others:?} are connected; let all ranks go on from one state, after the last of them has left"
            )));
        }
        telemetry::run_restarted(state.step, state.skips);
        let step = state.next_step();
        // The checkpoint folder is locked until the old run is gone.
        run.stream = None;
        match (self.make)().for_all_ranks().resume(state).start().await {
            Ok(stream) => *run = Run { connections: run.connections, ..Run::new(stream, self.world_size) },
            Err(error) => {
                run.failure = Some(error.to_string());
                return Err(status(&error));
            }
        }
        Ok(step)
    }

    /// Ends all exchanges. Clients connect again, to a server that may come in the place of this one.
    pub fn end(&self) {
        self.ends.send_replace(true);
    }

    /// Controls the run's refreshes.
    pub async fn handle(&self) -> Result<RefreshHandle, Status> {
        Ok(self.run.lock().await.stream()?.handle())
    }

    /// How the run stands.
    pub async fn status(&self) -> Result<RunStatus, Status> {
        let run = self.run.lock().await;
        let stream = run.stream()?;
        let handle = stream.handle();
        let snapshot = handle.snapshot();
        Ok(RunStatus {
            samples: stream.samples(),
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            mini_batches_per_epoch: stream.mini_batches_per_epoch(),
            graph_version: snapshot.as_ref().map(|snapshot| snapshot.graph_version().0),
            model_version: snapshot.as_ref().map(|snapshot| snapshot.model_version().0),
            refreshes: handle.counts(),
        })
    }
}

impl Run {
    fn new(stream: MiniBatchStream, world_size: usize) -> Self {
        let state = stream.state();
        let ranks = vec![Rank { taken: state.next_step(), connection: None }; world_size];
        let stream = Some(stream);
        Self { stream, held: VecDeque::new(), state, ranks, connections: 0, failure: None }
    }

    fn stream(&self) -> Result<&MiniBatchStream, Status> {
        self.stream.as_ref().ok_or_else(|| self.failed())
    }

    fn failed(&self) -> Status {
        Status::failed_precondition(self.failure.clone().unwrap_or_else(|| "the run has ended".to_owned()))
    }

    /// The step that follows a state, if it is held or comes next.
    fn step_of(&self, state: &State) -> Option<u64> {
        let states = std::iter::once(&self.state).chain(self.held.iter().map(|held| &held.state));
        states.into_iter().find(|known| *known == state).map(State::next_step)
    }

    /// The state before `step`, which is held or comes next.
    fn state_at(&self, step: u64) -> State {
        let before = (step - self.state.next_step()) as usize;
        before.checked_sub(1).map_or_else(|| self.state.clone(), |last| self.held[last].state.clone())
    }

    /// Lets go of what all ranks have taken.
    fn release(&mut self) -> bool {
        let taken = self.ranks.iter().map(|rank| rank.taken).min().unwrap_or(0);
        let mut released = false;
        while self.state.next_step() < taken
            && let Some(held) = self.held.pop_front()
        {
            self.state = held.state.clone();
            released = true;
        }
        released
    }

    /// The ranks that hold the others up.
    fn late(&self) -> Vec<usize> {
        let ranks = self.ranks.iter().enumerate();
        ranks.filter(|(_, rank)| rank.taken == self.state.next_step()).map(|(number, _)| number).collect()
    }
}

impl Seat {
    /// The next mini-batch for this rank, all of it; `None` at the end of the run. Dropping the future loses nothing.
    ///
    /// It waits as long as the slowest rank is so far behind that nothing more may be held.
    pub async fn next(&self) -> Result<Option<Arc<Held>>, Status> {
        loop {
            let changed = self.job.changed.notified();
            let late = {
                let mut run = self.job.run.lock().await;
                self.check(&run)?;
                let ahead = (self.step - run.state.next_step()) as usize;
                if let Some(held) = run.held.get(ahead) {
                    return Ok(Some(held.clone()));
                }
                if run.held.len() < self.job.window {
                    return run.make().await;
                }
                run.late()
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LATE) => telemetry::ranks_late(&late, self.step),
            }
        }
    }

    /// Waits until the server ends.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ends = self.job.ends.subscribe();
        // The sender is in the job, which the seat keeps.
        async move { drop(ends.wait_for(|ends| *ends).await) }
    }

    /// Says that the mini-batch which `next` gave was sent.
    pub fn advance(&mut self) {
        self.step += 1;
    }

    /// Says that the trainer has taken all mini-batches before `step`.
    pub async fn taken(&self, step: u64) -> Result<(), Status> {
        if step > self.step {
            let message = format!("step {step} is said to be taken, and {} were sent", self.step);
            return Err(Status::invalid_argument(message));
        }
        let mut run = self.job.run.lock().await;
        self.check(&run)?;
        let rank = &mut run.ranks[self.rank];
        rank.taken = rank.taken.max(step);
        if run.release() {
            self.job.changed.notify_waiters();
        }
        Ok(())
    }

    /// Refuses to go on if another connection has taken this one's place.
    fn check(&self, run: &Run) -> Result<(), Status> {
        if run.ranks[self.rank].connection == Some(self.connection) {
            return Ok(());
        }
        Err(Status::aborted(format!("another client is rank {} now", self.rank)))
    }
}

impl Run {
    /// The next mini-batch of the run, which is held from here on.
    async fn make(&mut self) -> Result<Option<Arc<Held>>, Status> {
        if self.failure.is_some() {
            return Err(self.failed());
        }
        let Some(stream) = &mut self.stream else { return Err(self.failed()) };
        match stream.try_next().await {
            Ok(None) => Ok(None),
            Ok(Some(mini_batch)) => {
                let held = Arc::new(Held { mini_batch, state: stream.state() });
                self.held.push_back(held.clone());
                Ok(Some(held))
            }
            Err(error) => {
                self.failure = Some(error.to_string());
                Err(status(&error))
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (job, rank, connection) = (self.job.clone(), self.rank, self.connection);
        // The lock may be held by a rank that waits for a mini-batch.
        tokio::spawn(async move {
            let mut run = job.run.lock().await;
            if run.ranks[rank].connection == Some(connection) {
                run.ranks[rank].connection = None;
                telemetry::rank_left(rank, run.ranks[rank].taken);
            }
        });
    }
}

/// How long a rank waits for others before the log names them.
const LATE: Duration = Duration::from_secs(30);
