//! A served run, and what can be asked of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field};
use arrow_flight::Action;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::client::RemoteOptions;
use super::messages::RefreshResult;
use crate::checkpoint::State;
use crate::error::{Cause, Error, Fault, Faults, Result};
use crate::sample::SampleId;

/// Controls the refreshes of a served run, and takes vectors from the trainer. Cloning shares its connection.
#[derive(Clone, Debug)]
pub struct RemoteHandle {
    pub(super) uri: String,
    channel: Channel,
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
    max_message_bytes: usize,
}

impl RemoteHandle {
    pub(super) fn new(uri: &str, options: &RemoteOptions) -> Result<Self> {
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

fn is_local(uri: &str) -> bool {
    let host = uri.parse::<tonic::transport::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let host = host.unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn refused(uri: &str, status: Status) -> Error {
    Error::Server { uri: uri.to_owned(), reason: status.message().to_owned(), cause: Box::new(status) }
}

fn remote(uri: &str, action: &'static str, cause: Cause) -> Error {
    Error::Server { uri: uri.to_owned(), reason: format!("cannot {action} it: {cause}"), cause }
}

const CONNECT: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The most bytes that Flight and HTTP/2 add to a message.
const FRAMING: usize = 1 << 10;
