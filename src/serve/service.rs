//! The methods of Arrow Flight.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, FixedSizeListArray, RecordBatch};
use arrow::datatypes::{Float32Type, UInt32Type};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::exchange;
use super::frames::{json, status};
use super::job::Job;
use super::messages::{ACTIONS, RefreshResult};
use super::options::ServeOptions;
use crate::checkpoint::State;
use crate::sample::SampleId;

#[derive(Clone)]
pub(super) struct Service {
    /// `None` until the run has started.
    pub job: watch::Receiver<Option<Arc<Job>>>,
    pub options: ServeOptions,
}

impl Service {
    /// The job, once its run has started.
    async fn job(&self) -> Result<Arc<Job>, Status> {
        let mut job = self.job.clone();
        let started = job.wait_for(Option::is_some).await.ok().and_then(|job| job.clone());
        started.ok_or_else(|| Status::unavailable("the run could not be started; the server's log says why"))
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Streamed<HandshakeResponse>;
    type ListFlightsStream = Streamed<FlightInfo>;
    type DoGetStream = Streamed<FlightData>;
    type DoPutStream = Streamed<PutResult>;
    type DoActionStream = Streamed<arrow_flight::Result>;
    type ListActionsStream = Streamed<ActionType>;
    type DoExchangeStream = Streamed<FlightData>;

    /// Mini-batches as fast as the client reads. What HTTP/2 holds on the way counts as taken.
    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let ticket = parsed(&request.get_ref().ticket, "ticket")?;
        let seat = self.job().await?.join(ticket).await?;
        Ok(Response::new(exchange::all(seat, self.options.clone())))
    }

    /// Mini-batches as the client gives credits. Its first message has the ticket.
    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        let mut messages = request.into_inner();
        let first = within(self.options.max_idle, messages.message()).await??;
        let first = first.ok_or_else(|| Status::invalid_argument("the first message must have a ticket"))?;
        let descriptor = first.flight_descriptor.unwrap_or_default();
        let ticket = parsed(&descriptor.cmd, "command of the first message")?;
        let credits = exchange::credits(&first.app_metadata)?;
        let seat = self.job().await?.join(ticket).await?;
        Ok(Response::new(exchange::by_credits(seat, messages, credits, self.options.clone())))
    }

    /// Takes vectors that a trainer has made: columns `sample_id` (u32) and `vector` (lists of f32 of one length).
    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let handle = self.job().await?.handle().await?;
        let messages = request.into_inner().map_err(FlightError::from);
        let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
        while let Some(batch) = within(self.options.max_idle, batches.try_next()).await?? {
            let (ids, vectors) = vectors(&batch)?;
            handle.push_embeddings(&ids, &vectors).map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        Ok(Response::new(stream::once(async { Ok(PutResult::default()) }).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let Action { r#type: name, body } = request.into_inner();
        let job = self.job().await?;
        let handle = job.handle().await?;
        let answer = match name.as_str() {
            "refresh" => {
                let done = handle.refresh_now().await.map_err(|error| status(&error))?;
                let result = RefreshResult {
                    graph_version: done.graph_version.0,
                    model_version: done.model_version.0,
                    skipped: done.skipped,
                    drift: done.drift.as_ref().map(|drift| drift.cosine_shift),
                    added: done.added,
                    pushed: done.pushed,
                    seconds: done.seconds.total(),
                };
                json(&result)?
            }
            "push_losses" => {
                let (ids, losses): (Vec<u32>, Vec<f32>) = parsed(&body, "losses")?;
                let ids: Vec<_> = ids.into_iter().map(SampleId).collect();
                handle.push_losses(&ids, &losses).map_err(|error| status(&error))?;
                Vec::new()
            }
            "keep" => {
                let state: State = parsed(&body, "state")?;
                handle.keep(&state).await.map_err(|error| status(&error))?;
                Vec::new()
            }
            "status" => json(&job.status().await?)?,
            "neighbors" => {
                let sample: u32 = parsed(&body, "sample")?;
                let found = handle.neighbors(SampleId(sample)).map_err(|error| status(&error))?;
                json(&found.into_iter().map(|(id, similarity)| (id.0, similarity)).collect::<Vec<_>>())?
            }
            "pair_similarity" => {
                let sample: u32 = parsed(&body, "sample")?;
                json(&handle.pair_similarity(SampleId(sample)).map_err(|error| status(&error))?)?
            }
            _ => {
                let known: Vec<_> = ACTIONS.iter().map(|(name, _)| *name).collect();
                return Err(Status::invalid_argument(format!("no action `{name}`; there are {}", known.join(", "))));
            }
        };
        let answer = arrow_flight::Result { body: answer.into() };
        Ok(Response::new(stream::once(async { Ok(answer) }).boxed()))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        let actions = ACTIONS
            .map(|(name, description)| Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() }));
        Ok(Response::new(stream::iter(actions).boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        Err(unused("handshake: send the token with each request"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        Err(unused("list_flights: there is one run, which needs no name"))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        Err(unused("get_flight_info: make a ticket of rank and world_size"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(unused("poll_flight_info: make a ticket of rank and world_size"))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        Err(unused("get_schema: the first message of DoGet and DoExchange is the schema"))
    }
}

/// Ids and vectors of a record batch, the latter [ids × dimension].
fn vectors(batch: &RecordBatch) -> Result<(Vec<SampleId>, Vec<f32>), Status> {
    let wrong = || Status::invalid_argument("vectors need the columns `sample_id` (u32) and `vector` (lists of f32)");
    let ids = batch.column_by_name("sample_id").and_then(|column| column.as_primitive_opt::<UInt32Type>());
    let lists = batch.column_by_name("vector").and_then(|column| column.as_any().downcast_ref::<FixedSizeListArray>());
    let (ids, lists) = (ids.ok_or_else(wrong)?, lists.ok_or_else(wrong)?);
    let numbers = lists.values().as_primitive_opt::<Float32Type>().ok_or_else(wrong)?;
    if ids.null_count() + lists.null_count() + numbers.null_count() > 0 {
        return Err(Status::invalid_argument("vectors and their ids must not have nulls; leave such rows out"));
    }
    let width = lists.value_length() as usize;
    let numbers = &numbers.values()[lists.offset() * width..][..lists.len() * width];
    Ok((ids.values().iter().map(|&id| SampleId(id)).collect(), numbers.to_vec()))
}

fn parsed<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T, Status> {
    serde_json::from_slice(text).map_err(|error| Status::invalid_argument(format!("the {what} is wrong: {error}")))
}

fn unused(what: &str) -> Status {
    Status::unimplemented(what)
}

/// What a client sends, unless it is silent for too long.
pub(super) async fn within<T>(most: Duration, future: impl Future<Output = T>) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded(format!("nothing came from the client for {} s", most.as_secs()));
    tokio::time::timeout(most, future).await.map_err(silent)
}
