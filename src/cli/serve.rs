//! `prosampler serve`: gives a pipeline's mini-batches to trainers elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::ending::{Ending, early_end};
use super::progress::StageBars;
use super::watch::Watch;
use crate::config::PipelineConfig;
use crate::serve::{ServeOptions, Server, TlsFiles};
use crate::{Error, Pipeline, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The pipeline file.
    pipeline: PathBuf,

    /// Where to listen. Other machines can reach it only if this is an address of theirs, which needs a token and TLS.
    #[arg(long, default_value_t = ServeOptions::default().address)]
    address: SocketAddr,

    /// A file with the token that clients must send. Whoever can read it can take mini-batches.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The server's certificate, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Listens to other machines without a token or TLS, as inside of a cluster that nobody else can reach.
    #[arg(long)]
    insecure: bool,

    /// The most bytes of one message: a mini-batch, or vectors that a trainer pushes.
    #[arg(long, value_name = "BYTES", default_value_t = ServeOptions::default().max_message_bytes)]
    max_message_bytes: usize,

    /// The most connections at a time.
    #[arg(long, value_name = "N", default_value_t = ServeOptions::default().max_connections)]
    max_connections: usize,

    /// How long a client may be silent while the server waits for it.
    #[arg(long, value_name = "SECONDS", default_value_t = ServeOptions::default().max_idle.as_secs())]
    max_idle_seconds: u64,

    /// How many mini-batches the fastest rank may be ahead of the slowest.
    #[arg(long, value_name = "N", default_value_t = ServeOptions::default().window)]
    window: usize,

    /// Another setting than the file's, for example stream.world_size=4. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    #[command(flatten)]
    watch: Watch,
}

impl Serve {
    pub async fn run(self) -> Result<Ending> {
        let mut config = PipelineConfig::from_file_with(&self.pipeline, &self.set)?;
        self.watch.apply(&mut config, false);
        let options = self.options()?;
        let make = move || {
            let mut bars = StageBars::new();
            Pipeline::from_config(config.clone()).on_progress(move |progress| bars.show(progress))
        };
        let server = Server::start(make, options).await?;
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        note!("serving at {scheme}://{}", server.address());
        let (ended, end) = tokio::sync::oneshot::channel();
        let ending = async {
            let ending = early_end().await;
            // If the server has ended, there is nothing to end.
            let _ = ended.send(());
            ending
        };
        let end = async {
            // An early end that cannot be listened for ends the server, too.
            let _ = end.await;
        };
        let (served, ending) = tokio::join!(server.run(end), ending);
        served?;
        ending
    }

    fn options(&self) -> Result<ServeOptions> {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Ok(ServeOptions {
            address: self.address,
            token: self.token_file.as_deref().map(token).transpose()?.map(Into::into),
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            insecure: self.insecure,
            max_message_bytes: self.max_message_bytes,
            max_connections: self.max_connections,
            max_idle: Duration::from_secs(self.max_idle_seconds),
            window: self.window,
        })
    }
}

/// The token in a file, without white space around it.
fn token(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|cause| Error::Io { action: "read", path: path.to_owned(), cause })?;
    Ok(text.trim().to_owned())
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler serve pipelines/text.toml
  prosampler serve pipelines/text.toml --set stream.world_size=4 --address 127.0.0.1:7890";
