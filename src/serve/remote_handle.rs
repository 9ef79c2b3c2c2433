//! A served run, and what can be asked of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field};
use arrow_flight::Action;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::channel::{authorization, channel};
use super::client::RemoteOptions;
use super::messages::{RefreshResult, RunStatus};
use crate::checkpoint::State;
use crate::error::{Cause, Error, Result};
use crate::sample::SampleId;
use crate::telemetry;

/// Controls the refreshes of a served run, and takes vectors from the trainer. Cloning shares its connection.
#[derive(Clone, Debug)]
pub struct RemoteHandle {
    pub(super) uri: String,
    channel: Channel,
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
    max_message_bytes: usize,
}

impl RemoteHandle {
    /// Reaches the server at `uri` without taking a rank's place.
    ///
    /// # Errors
    /// As [`RemoteStream::connect`](super::RemoteStream::connect).
    pub async fn connect(uri: &str, options: &RemoteOptions) -> Result<Self> {
        let authorization = authorization(options)?;
        let channel = channel(uri, options).await?;
        Ok(Self { uri: uri.to_owned(), channel, authorization, max_message_bytes: options.max_message_bytes })
    }

    /// Starts a refresh and waits until its snapshot is published.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn refresh_now(&self) -> Result<RefreshResult> {
        self.ask("refresh", Vec::new()).await
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
        let numbers = Arc::new(Float32Array::from(vectors.to_vec()));
        let lists = FixedSizeListArray::try_new(item, width, numbers, None).map_err(failed)?;
        let ids = UInt32Array::from_iter_values(ids.iter().map(|id| id.0));
        let columns: [(&str, ArrayRef); 2] = [("sample_id", Arc::new(ids)), ("vector", Arc::new(lists))];
        let batch = RecordBatch::try_from_iter(columns).map_err(failed)?;
        let frames = FlightDataEncoderBuilder::new().build(stream::iter([Ok(batch)]));
        let frames = frames.filter_map(|frame| async { frame.ok() });
        let done = self.client().do_put(self.request(frames)).await;
        let answers = done.map_err(|status| refused(&self.uri, status))?.into_inner();
        answers.try_for_each(|_| async { Ok(()) }).await.map_err(|status| refused(&self.uri, status))
    }

    /// Gives the run losses that the trainer has seen, as
    /// [`RefreshHandle::push_losses`](crate::RefreshHandle::push_losses) does.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn push_losses(&self, ids: &[SampleId], losses: &[f32]) -> Result<()> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let body = serde_json::to_vec(&(ids, losses));
        let body = body.map_err(|error| remote(&self.uri, "write losses for", error.into()))?;
        self.act("push_losses", body).await.map(drop)
    }

    /// How the run stands. A server that still embeds is waited for as long as it is there.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn status(&self) -> Result<RunStatus> {
        answer(&self.uri, self.ask("status", Vec::new())).await
    }

    /// The neighbors of a sample in the newest graph with their similarities, most similar first.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn neighbors(&self, sample: SampleId) -> Result<Vec<(SampleId, f32)>> {
        let found: Vec<(u32, f32)> = self.ask("neighbors", sample.0.to_string().into_bytes()).await?;
        Ok(found.into_iter().map(|(id, similarity)| (SampleId(id), similarity)).collect())
    }

    /// How similar a sample's anchor and positive are, by the newest embeddings; `None` if rows are not pairs.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's reason.
    pub async fn pair_similarity(&self, sample: SampleId) -> Result<Option<f32>> {
        self.ask("pair_similarity", sample.0.to_string().into_bytes()).await
    }

    async fn ask<T: DeserializeOwned>(&self, name: &str, body: Vec<u8>) -> Result<T> {
        let answer = self.act(name, body).await?;
        serde_json::from_slice(&answer).map_err(|error| remote(&self.uri, "understand", error.into()))
    }

    async fn act(&self, name: &str, body: Vec<u8>) -> Result<Vec<u8>> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let answer = self.client().do_action(self.request(action)).await;
        let mut answers = answer.map_err(|status| refused(&self.uri, status))?.into_inner();
        let first = answers.try_next().await.map_err(|status| refused(&self.uri, status))?;
        Ok(first.unwrap_or_default().body.into())
    }

    pub(super) fn client(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes + FRAMING)
            .max_encoding_message_size(self.max_message_bytes)
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

/// The answer of a server that may still embed; the log says what is waited for.
///
/// There is no limit: where the server is gone, the connection ends within 40 s.
pub(super) async fn answer<T>(uri: &str, answer: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut answer = pin!(answer);
    loop {
        match timeout(SILENT, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) => telemetry::server_silent(uri, began.elapsed().as_secs()),
        }
    }
}

pub(super) fn refused(uri: &str, status: Status) -> Error {
    Error::Server { uri: uri.to_owned(), reason: status.message().to_owned(), cause: Box::new(status) }
}

pub(super) fn remote(uri: &str, action: &'static str, cause: Cause) -> Error {
    Error::Server { uri: uri.to_owned(), reason: format!("cannot {action} it: {cause}"), cause }
}

/// The most bytes that Flight and HTTP/2 add to a message.
const FRAMING: usize = 1 << 10;
/// How long a server says nothing before the log names it, each time.
const SILENT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::Mutex;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// The fields of all events.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    impl Visit for Log {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.lock().unwrap().push_str(&format!("{field}={value:?} "));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_waited_for_and_named() {
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let hour = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            7
        };
        assert_eq!(answer("http://a", hour).await, 7);
        let lines = log.0.lock().unwrap().clone();
        for seconds in [30, 60, 3570] {
            assert!(lines.contains(&format!("uri=\"http://a\" seconds={seconds} ")), "{lines}");
        }
    }
}
