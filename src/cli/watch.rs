//! `--metrics`: where a run can be watched.

use std::net::SocketAddr;

use clap::Args;

use crate::config::PipelineConfig;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Watch {
    /// Lets people and Prometheus watch the run at this address, for example 127.0.0.1:9100: a page at /, numbers at
    /// /metrics and /status. Whoever reaches the address can read them. Port 0 is any free one, which -v tells.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    metrics: Option<SocketAddr>,
}

impl Watch {
    /// Puts the address in the place of the pipeline file's, and says where to look.
    pub fn apply(self, config: &mut PipelineConfig, is_quiet: bool) {
        config.metrics.address = self.metrics.or(config.metrics.address);
        if let Some(address) = config.metrics.address.filter(|address| address.port() > 0 && !is_quiet) {
            note!("http://{address}/ shows how the run goes");
        }
    }
}

fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address with a port, such as 127.0.0.1:9100".to_owned())
}
