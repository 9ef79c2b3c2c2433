//! A served pipeline as the trainer sees it.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, FlightDescriptor};
use futures::stream::FusedStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::frames::{mini_batch, row_schema};
use super::messages::{Credits, Facts, Hello, RefreshResult, Ticket};
use crate::checkpoint::State;
use crate::error::{Error, Fault, Faults, Result};
use crate::sample::SampleId;
use crate::stream::MiniBatch;
use crate::telemetry;

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
    pub token: Option<String>,
    /// A PEM file with the certificate that the server's is checked by, for uris of `https`. Default: those that come
    /// with the command's TLS library, which know no private ones.
    pub ca_certificate: Option<PathBuf>,
    /// How often in a row a connection that breaks is made again, first after a tenth of a second and then ever more
    /// slowly, up to 10 s. Default 10.
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

/// Controls the refreshes of a served run, and takes vectors from the trainer. Cloning shares its connection.
#[derive(Clone, Debug)]
pub struct RemoteHandle {
    uri: String,
    channel: Channel,
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
    max_message_bytes: usize,
}

impl RemoteStream {
    /// Takes a rank's place in the run of the server at `uri`, such as `http://127.0.0.1:8815`.
    ///
    /// # Errors
    /// [`Error::Server`] if the server cannot be reached or refuses, with its reason; [`Error::Config`] for options
    /// that are not possible; [`Error::Io`] for a certificate that cannot be read.
    pub async fn connect(uri: &str, options: RemoteOptions) -> Result<Self> {
        let handle = RemoteHandle::new(uri, &options)?;
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
            taken: state.step,
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

impl RemoteHandle {
    fn new(uri: &str, options: &RemoteOptions) -> Result<Self> {
        let fault = |key: &str, message: String| Error::from(Faults::one("RemoteOptions", Fault::new(key, message)));
        if options.prefetch == 0 {
            return Err(fault("prefetch", "must be at least 1".into()));
        }
        let endpoint = Endpoint::from_shared(uri.to_owned());
        let wrong = "is no uri of a server; write http://HOST:PORT, or https:// with TLS";
        let mut endpoint = endpoint.map_err(|_| fault("uri", format!("`{uri}` {wrong}")))?;
        if uri.starts_with("https:") {
            let mut tls = ClientTlsConfig::new();
            if let Some(path) = &options.ca_certificate {
                let failed = |cause| Error::Io { action: "read", path: path.clone(), cause };
                tls = tls.ca_certificate(Certificate::from_pem(std::fs::read(path).map_err(failed)?));
            }
            let failed = |cause: tonic::transport::Error| remote(uri, "use TLS for", cause.into());
            endpoint = endpoint.tls_config(tls).map_err(failed)?;
        } else if options.token.is_some() && !is_local(uri) {
            let message = "would be sent in the clear to another machine; use a uri of https://";
            return Err(fault("token", message.into()));
        }
        let authorization = options.token.as_ref().map(|token| format!("Bearer {token}").parse()).transpose();
        let signs = "must have letters, digits and signs of ASCII alone";
        let authorization = authorization.map_err(|_| fault("token", signs.into()))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_lazy();
        Ok(Self { uri: uri.to_owned(), channel, authorization, max_message_bytes: options.max_message_bytes })
    }

    /// Starts a refresh and waits until its snapshot is published.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn refresh_now(&self) -> Result<RefreshResult> {
        let answer = self.act("refresh", Vec::new()).await?;
        serde_json::from_slice(&answer).map_err(|error| remote(&self.uri, "understand", error.into()))
    }

    /// Keeps a state resumable, as [`RefreshHandle::keep`](crate::RefreshHandle::keep) does, in the server's
    /// `checkpoint.dir`.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn keep(&self, state: &State) -> Result<()> {
        let body = serde_json::to_vec(state).map_err(|error| remote(&self.uri, "write a state for", error.into()))?;
        self.act("keep", body).await.map(drop)
    }

    /// Gives the run vectors that the trainer has made, [ids × dimension], row-major, as
    /// [`RefreshHandle::push_embeddings`](crate::RefreshHandle::push_embeddings) does.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn push_embeddings(&self, ids: &[SampleId], vectors: &[f32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let failed = |error: arrow::error::ArrowError| remote(&self.uri, "write vectors for", error.into());
        let width = i32::try_from(vectors.len() / ids.len()).unwrap_or(i32::MAX);
        let item = Field::new("item", DataType::Float32, false).into();
        let numbers = std::sync::Arc::new(Float32Array::from(vectors.to_vec()));
        let lists = FixedSizeListArray::try_new(item, width, numbers, None).map_err(failed)?;
        let ids = UInt32Array::from_iter_values(ids.iter().map(|id| id.0));
        let columns: [(&str, ArrayRef); 2] =
            [("sample_id", std::sync::Arc::new(ids)), ("vector", std::sync::Arc::new(lists))];
        let batch = RecordBatch::try_from_iter(columns).map_err(failed)?;
        let frames = FlightDataEncoderBuilder::new().build(stream::iter([Ok(batch)]));
        let frames = frames.filter_map(|frame| async { frame.ok() });
        let done = self.client().do_put(self.request(frames)).await;
        let answers = done.map_err(|status| refused(&self.uri, status))?.into_inner();
        answers.try_for_each(|_| async { Ok(()) }).await.map_err(|status| refused(&self.uri, status))
    }

    async fn act(&self, name: &str, body: Vec<u8>) -> Result<Vec<u8>> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let answer = self.client().do_action(self.request(action)).await;
        let mut answers = answer.map_err(|status| refused(&self.uri, status))?.into_inner();
        let first = answers.try_next().await.map_err(|status| refused(&self.uri, status))?;
        Ok(first.unwrap_or_default().body.into())
    }

    fn client(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes + FRAMING)
            .max_encoding_message_size(self.max_message_bytes)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

/// An open exchange.
struct Session {
    frames: FlightDataDecoder,
    credits: mpsc::UnboundedSender<FlightData>,
    hello: Hello,
    schema: SchemaRef,
}

impl Session {
    /// Takes a place, with the first credits.
    async fn open(handle: &RemoteHandle, ticket: &Ticket, credits: u64, taken: u64) -> Result<Self, Status> {
        let internal = |error: serde_json::Error| Status::invalid_argument(error.to_string());
        let command = serde_json::to_vec(ticket).map_err(internal)?;
        let first = FlightData::new()
            .with_descriptor(FlightDescriptor::new_cmd(command))
            .with_app_metadata(serde_json::to_vec(&Credits { credits, taken }).map_err(internal)?);
        let (tx, rx) = mpsc::unbounded_channel();
        // The receiver is below.
        let _ = tx.send(first);
        let messages = stream::unfold(rx, |mut rx| async { Some((rx.recv().await?, rx)) });
        let answer = handle.client().do_exchange(handle.request(messages)).await?.into_inner();
        let mut frames = FlightDataDecoder::new(answer.map_err(FlightError::from));
        let Some(first) = frames.try_next().await.map_err(status)? else {
            return Err(Status::unavailable("the server sent nothing"));
        };
        let hello = serde_json::from_slice(&first.app_metadata()).map_err(internal)?;
        let DecodedPayload::Schema(schema) = first.payload else {
            return Err(Status::invalid_argument("the server's first message is no schema; is it a prosampler?"));
        };
        Ok(Self { frames, credits: tx, hello, schema })
    }

    fn give(&self, credits: Credits) {
        // This never fails: two numbers.
        let Ok(text) = serde_json::to_vec(&credits) else { return };
        // If the exchange has ended, the next message says so.
        let _ = self.credits.send(FlightData::new().with_app_metadata(text));
    }

    /// The next mini-batch, and the state after it.
    async fn next(&mut self) -> Result<Option<(MiniBatch, State)>, Status> {
        let Some(frame) = self.frames.try_next().await.map_err(status)? else { return Ok(None) };
        let wrong = || Status::invalid_argument("the server sent a message that is no mini-batch");
        let facts: Facts = serde_json::from_slice(&frame.app_metadata()).map_err(|_| wrong())?;
        let DecodedPayload::RecordBatch(rows) = frame.payload else { return Err(wrong()) };
        let mini_batch = mini_batch(&rows, &facts).ok_or_else(wrong)?;
        Ok(Some((mini_batch, facts.state)))
    }
}

/// Moves mini-batches from exchanges, one after another, to the trainer.
struct Pump {
    handle: RemoteHandle,
    ticket: Ticket,
    prefetch: u64,
    /// The state after the mini-batch that came last.
    received: State,
    /// The step up to which the trainer has taken them.
    taken: u64,
    taken_steps: mpsc::UnboundedReceiver<u64>,
    retries: Retries,
}

impl Pump {
    async fn run(mut self, mut session: Session, tx: mpsc::Sender<Result<(MiniBatch, State)>>) {
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
            let waiting = self.received.step - self.taken;
            match Session::open(&self.handle, &self.ticket, self.prefetch - waiting, self.taken).await {
                Ok(session) => return Ok(session),
                Err(status) => broken = status,
            }
        }
    }
}

/// How often, and after which pause, a connection is made again.
#[derive(Debug)]
struct Retries {
    most: u32,
    done: u32,
}

impl Retries {
    fn new(most: u32) -> Self {
        Self { most, done: 0 }
    }

    fn succeeded(&mut self) {
        self.done = 0;
    }

    /// Waits before the next attempt, unless there is none or it would be in vain.
    async fn wait(&mut self, uri: &str, status: Status) -> Result<()> {
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

fn is_local(uri: &str) -> bool {
    let host = uri.parse::<tonic::transport::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let host = host.unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::invalid_argument(other.to_string()),
    }
}

fn refused(uri: &str, status: Status) -> Error {
    Error::Server { uri: uri.to_owned(), reason: status.message().to_owned(), cause: Box::new(status) }
}

fn remote(uri: &str, action: &'static str, cause: crate::error::Cause) -> Error {
    Error::Server { uri: uri.to_owned(), reason: format!("cannot {action} it: {cause}"), cause }
}

const CONNECT: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The most bytes that Flight and HTTP/2 add to a message.
const FRAMING: usize = 1 << 10;
