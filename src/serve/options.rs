//! Where a server listens, whom it lets in, and what it bears.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::token::Token;
use crate::error::{Error, Fault, Faults, Result};

/// How a [`Server`](super::Server) serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeOptions {
    /// Where it listens. Default 127.0.0.1:8815; port 0 is any free one.
    pub address: SocketAddr,
    /// What clients must send as `authorization: Bearer TOKEN`; at least 16 bytes. Default none.
    pub token: Option<Token>,
    /// The files of its certificate. Default none, and no TLS.
    pub tls: Option<TlsFiles>,
    /// Whether it may listen to other machines without token or TLS. Default false.
    pub insecure: bool,
    /// The most bytes of one message, in either direction. Default 64 MiB.
    pub max_message_bytes: usize,
    /// The most connections at a time. More wait until one ends. Default 128.
    pub max_connections: usize,
    /// How long a client may be silent while the server waits for it. Default ten minutes.
    pub max_idle: Duration,
    /// How many mini-batches the fastest rank may be ahead of the slowest; all of these are held. Default 8.
    pub window: usize,
}

/// A certificate and its key, each a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, or a chain that begins with it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8815)),
            token: None,
            tls: None,
            insecure: false,
            max_message_bytes: 64 << 20,
            max_connections: 128,
            max_idle: Duration::from_secs(600),
            window: 8,
        }
    }
}

impl ServeOptions {
    /// Refuses to be open to other machines by oversight, and limits with which nothing could be served.
    pub(super) fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut require = |ok: bool, key: &str, message: &str| {
            if !ok {
                faults.push(Fault::new(key, message));
            }
        };
        let is_local = self.address.ip().is_loopback() || self.insecure;
        let remedy = "is required to listen to other machines; give it, or --insecure to go without";
        require(is_local || self.token.is_some(), "--token-file", remedy);
        require(is_local || self.tls.is_some(), "--tls-cert", remedy);
        let is_long = self.token.as_ref().is_none_or(|token| token.len() >= LEAST_TOKEN);
        require(is_long, "--token-file", "has fewer than 16 bytes, which can be guessed; write a longer one");
        let is_sendable = self.token.as_ref().is_none_or(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        require(is_sendable, "--token-file", "must have letters, digits and signs of ASCII alone");
        require(self.max_message_bytes >= 1 << 10, "--max-message-bytes", "must be at least 1024");
        require(self.max_connections > 0, "--max-connections", "must be at least 1");
        require(!self.max_idle.is_zero(), "--max-idle-seconds", "must be at least 1");
        require(self.window > 0, "--window", "must be at least 1");
        Faults::none_or(Faults::COMMAND_LINE, faults).map_err(Error::from)
    }
}

/// The fewest bytes of a token.
const LEAST_TOKEN: usize = 16;
