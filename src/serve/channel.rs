//! The connection to a server.

use std::time::Duration;

use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::client::RemoteOptions;
use super::pump::Retries;
use super::remote_handle::remote;
use crate::error::{Error, Fault, Faults, Result};

/// Connects. The channel connects again by itself when it is used after a connection broke.
///
/// Where nothing ever answered there is most likely no server, so this is tried for a second or two only.
pub(super) async fn channel(uri: &str, options: &RemoteOptions) -> Result<Channel> {
    let endpoint = endpoint(uri, options)?;
    let mut retries = Retries::new(options.retries.min(FIRST_RETRIES));
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => retries.wait(uri, unreachable(error)).await?,
        }
    }
}

/// What is sent with each request.
pub(super) fn authorization(options: &RemoteOptions) -> Result<Option<MetadataValue<Ascii>>> {
    let Some(token) = options.token.as_deref() else { return Ok(None) };
    let authorization = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
    let mut authorization =
        authorization.map_err(|_| fault("token", "must have letters, digits and signs of ASCII alone".to_owned()))?;
    authorization.set_sensitive(true);
    Ok(Some(authorization))
}

fn endpoint(uri: &str, options: &RemoteOptions) -> Result<Endpoint> {
    if options.prefetch == 0 {
        return Err(fault("prefetch", "must be at least 1".to_owned()));
    }
    let no_uri =
        || fault("uri", format!("`{uri}` is no uri of a server; write http://HOST:PORT, or https:// with TLS"));
    let mut endpoint = Endpoint::from_shared(uri.to_owned()).map_err(|_| no_uri())?;
    match endpoint.uri().scheme_str() {
        Some("https") => {
            let failed = |cause: tonic::transport::Error| remote(uri, "use TLS for", cause.into());
            endpoint = endpoint.tls_config(tls(options)?).map_err(failed)?;
        }
        Some("http") if options.token.is_some() && !is_local(endpoint.uri().host()) => {
            let message = "would be sent in the clear to another machine; use a uri of https://";
            return Err(fault("token", message.to_owned()));
        }
        Some("http") => {}
        _ => return Err(no_uri()),
    }
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .max_frame_size(FRAME)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true))
}

fn tls(options: &RemoteOptions) -> Result<ClientTlsConfig> {
    let tls = ClientTlsConfig::new();
    let Some(path) = &options.ca_certificate else { return Ok(tls) };
    let failed = |cause| Error::Io { action: "read", path: path.clone(), cause };
    Ok(tls.ca_certificate(Certificate::from_pem(std::fs::read(path).map_err(failed)?)))
}

fn is_local(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why no connection came about: the cause beneath all others.
fn unreachable(error: tonic::transport::Error) -> Status {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(beneath) = cause.source() {
        cause = beneath;
    }
    Status::unavailable(format!("cannot be reached ({cause}); start `prosampler serve` there, or check the uri"))
}

fn fault(key: &str, message: String) -> Error {
    Faults::one("RemoteOptions", Fault::new(key, message)).into()
}

const CONNECT: Duration = Duration::from_secs(20);
/// The most bytes of an HTTP/2 frame. By default it is 16 KiB, and a mini-batch many frames.
pub(super) const FRAME: u32 = 1 << 20;
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How often the first connection is tried again.
const FIRST_RETRIES: u32 = 4;
