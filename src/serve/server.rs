//! A pipeline that is served.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Identity, Server as Http, ServerTlsConfig};
use tonic::{Request, Status};

use super::accept::accepted;
use super::channel::FRAME;
use super::job::Job;
use super::options::{ServeOptions, TlsFiles};
use super::service::Service;
use crate::error::{Error, Result};
use crate::pipeline::PipelineBuilder;
use crate::telemetry;

/// Serves the mini-batches of a pipeline to trainers elsewhere.
///
/// ```no_run
/// use prosampler::serve::{ServeOptions, Server};
/// use prosampler::{Pipeline, PipelineConfig};
/// # #[tokio::main]
/// # async fn main() -> prosampler::Result<()> {
/// let config = PipelineConfig::from_file("pipelines/text.toml")?;
/// let server = Server::start(move || Pipeline::from_config(config.clone()), ServeOptions::default()).await?;
/// println!("{}", server.address());
/// server.run(std::future::pending()).await
/// # }
/// ```
pub struct Server {
    address: SocketAddr,
    job: Arc<Job>,
    /// Dropped, it ends the task.
    end: oneshot::Sender<()>,
    task: JoinSet<Result<(), tonic::transport::Error>>,
}

impl Server {
    /// Listens, then starts the pipeline that `make` returns, with `stream.world_size` ranks.
    ///
    /// Clients that come before the pipeline has started wait for it, over a connection that is alive. `make` is called
    /// again whenever the ranks go on from a state that is not held any more.
    ///
    /// # Errors
    /// [`Error::Config`] for options that are not safe or not possible; [`Error::Io`] for a certificate that cannot be
    /// read; [`Error::System`] if it cannot be used, or the address cannot be listened to; whatever the start of the
    /// pipeline reports.
    pub async fn start(
        make: impl Fn() -> PipelineBuilder + Send + Sync + 'static,
        options: ServeOptions,
    ) -> Result<Self> {
        options.check()?;
        let http = http(options.tls.as_ref())?;
        let failed = |cause: std::io::Error| Error::System { action: "listen to the address", cause: cause.into() };
        let listener = TcpListener::bind(options.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (started, job) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, http, Service { job, options: options.clone() }, ended));
        let job = Arc::new(Job::start(Box::new(make), options.window).await?);
        started.send_replace(Some(job.clone()));
        telemetry::serving(&address, options.token.is_some(), options.tls.is_some());
        Ok(Self { address, job, end, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` is ready.
    ///
    /// # Errors
    /// [`Error::System`] if the system refuses further connections.
    pub async fn run(self, end: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { job, end: ending, mut task, .. } = self;
        let end = async {
            end.await;
            job.end();
            drop(ending);
            // A connection that says nothing does not end by itself.
            tokio::time::sleep(LAST_WORDS).await;
        };
        let failed = |cause| Error::System { action: "serve", cause };
        tokio::select! {
            served = task.join_next() => match served {
                Some(Ok(Err(error))) => Err(failed(error.into())),
                Some(Err(panic)) => Err(failed(panic.into())),
                _ => Ok(()),
            },
            () = end => Ok(()),
        }
    }
}

/// Serves until `ended` is ready.
async fn serve(
    listener: TcpListener,
    mut http: Http,
    service: Service,
    ended: oneshot::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let options = service.options.clone();
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(options.max_message_bytes)
        .max_encoding_message_size(options.max_message_bytes + FRAMING);
    let service = InterceptedService::new(service, move |request| authorized(request, options.token.as_deref()));
    let connections = Box::pin(accepted(listener, options.max_connections));
    http.add_service(service).serve_with_incoming_shutdown(connections, async { drop(ended.await) }).await
}

fn http(tls_files: Option<&TlsFiles>) -> Result<Http> {
    let http = Http::builder()
        .max_frame_size(FRAME)
        .http2_adaptive_window(Some(true))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS)
        .accept_http1(false);
    let Some(files) = tls_files else { return Ok(http) };
    let failed = |cause: tonic::transport::Error| Error::System { action: "use the certificate", cause: cause.into() };
    http.tls_config(tls(files)?).map_err(failed)
}

fn tls(files: &TlsFiles) -> Result<ServerTlsConfig> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|cause| Error::Io { action: "read", path: path.to_owned(), cause });
    let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
    Ok(ServerTlsConfig::new().identity(identity).timeout(KEEPALIVE))
}

/// Lets a request through if it has the token.
fn authorized(request: Request<()>, token: Option<&str>) -> Result<Request<()>, Status> {
    let Some(token) = token else { return Ok(request) };
    let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if is_same(given.as_bytes(), token.as_bytes()) {
        return Ok(request);
    }
    Err(Status::unauthenticated("the token is missing or wrong; send `authorization: Bearer TOKEN`"))
}

/// Compares in a time that tells nothing of where two texts differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (x, y)| differences | (x ^ y)) == 0
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How long a connection may be silent before it is asked whether it is still there, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long connections have to end when the server does.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The most requests of a connection at a time.
const STREAMS: u32 = 16;
/// The most bytes that Flight and HTTP/2 add to a message.
const FRAMING: usize = 1 << 10;
