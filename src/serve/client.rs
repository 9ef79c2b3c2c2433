//! A served pipeline as the trainer sees it.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use futures::Stream;
use futures::stream::FusedStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frames::row_schema;
use super::messages::{Hello, Ticket};
use super::pump::{Pump, Retries};
use super::remote_handle::RemoteHandle;
use super::session::Session;
use super::token::Token;
use crate::checkpoint::State;
use crate::error::Result;
use crate::stream::MiniBatch;

/// How a [`RemoteStream`] reaches its server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// Which share of every mini-batch, from 0. Default 0.
    pub rank: usize,
    /// How many ranks share them: the server's `stream.world_size`. Default 1.
    pub world_size: usize,
    /// How many mini-batches are asked for before the trainer wants them; at least 1, default 2.
    pub prefetch: usize,
    /// Where to go on; default: at the beginning.
    pub state: Option<State>,
    /// The server's token. Default none.
    pub token: Option<Token>,
    /// A PEM file with the certificate that the server's is checked by, for uris of `https`. Default: those that come
    /// with the command's TLS library, which know no private ones.
    pub ca_certificate: Option<PathBuf>,
    /// How often in a row a connection that breaks is made again, first after a tenth of a second and then ever more
    /// slowly, up to 10 s. Default 10. The first one is tried for a second or two only.
    pub retries: u32,
    /// The most bytes of one message. Default 64 MiB.
    pub max_message_bytes: usize,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            rank: 0,
            world_size: 1,
            prefetch: 2,
            state: None,
            token: None,
            ca_certificate: None,
            retries: 10,
            max_message_bytes: 64 << 20,
        }
    }
}

/// Mini-batches of a pipeline that a [`Server`](super::Server) serves.
///
/// A connection that breaks is made again, and goes on where it was. It ends after the last epoch, or after its first
/// error. Dropping it ends its task.
#[derive(Debug)]
pub struct RemoteStream {
    items: mpsc::Receiver<Result<(MiniBatch, State)>>,
    taken: mpsc::UnboundedSender<u64>,
    handle: RemoteHandle,
    hello: Hello,
    schema: SchemaRef,
    state: State,
    is_done: bool,
    _tasks: JoinSet<()>,
}

impl RemoteStream {
    /// Takes a rank's place in the run of the server at `uri`, such as `http://127.0.0.1:8815`.
    ///
    /// A server that still embeds is waited for as long as it is there.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) if the server cannot be reached or refuses, with its reason;
    /// [`Error::Config`](crate::Error::Config) for options that are not possible;
    /// [`Error::Io`](crate::Error::Io) for a certificate that cannot be read.
    pub async fn connect(uri: &str, options: RemoteOptions) -> Result<Self> {
        let handle = RemoteHandle::connect(uri, &options).await?;
        let ticket = Ticket { rank: options.rank, world_size: options.world_size, state: options.state.clone() };
        let mut retries = Retries::new(options.retries);
        let session = loop {
            match Session::open(&handle, &ticket, options.prefetch as u64, 0).await {
                Ok(session) => break session,
                Err(status) => retries.wait(uri, status).await?,
            }
        };
        let (hello, schema) = (session.hello.clone(), row_schema(&session.schema));
        let (tx, items) = mpsc::channel(options.prefetch);
        let (taken, taken_steps) = mpsc::unbounded_channel();
        let state = hello.state.clone();
        let pump = Pump {
            handle: handle.clone(),
            ticket,
            prefetch: options.prefetch as u64,
            received: state.clone(),
            taken: state.next_step(),
            taken_steps,
            retries,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(pump.run(session, tx));
        Ok(Self { items, taken, handle, hello, schema, state, is_done: false, _tasks: tasks })
    }

    /// Controls the run's refreshes, and takes vectors from the trainer.
    #[must_use]
    pub fn handle(&self) -> RemoteHandle {
        self.handle.clone()
    }

    /// Where the run stands after the mini-batches taken, for [`RemoteOptions::state`].
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// The number of samples in the data set, when the connection was made.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.hello.samples
    }

    /// The number of mini-batches in an epoch, when the connection was made.
    #[must_use]
    pub fn mini_batches_per_epoch(&self) -> u64 {
        self.hello.mini_batches_per_epoch
    }

    /// The numbers of an embedding, and of each vector that is pushed.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.hello.dimension
    }

    /// Whether the server has a `checkpoint.dir`, in which states can be kept.
    #[must_use]
    pub fn has_checkpoints(&self) -> bool {
        self.hello.has_checkpoints
    }

    /// The columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Stream for RemoteStream {
    type Item = Result<MiniBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        self.items.poll_recv(cx).map(|item| match item {
            Some(Ok((mini_batch, state))) => {
                // If the task has ended, there is nobody to tell.
                let _ = self.taken.send(state.step);
                self.state = state;
                Some(Ok(mini_batch))
            }
            Some(Err(error)) => {
                self.is_done = true;
                Some(Err(error))
            }
            None => {
                self.is_done = true;
                None
            }
        })
    }
}

impl FusedStream for RemoteStream {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}
