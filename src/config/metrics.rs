use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::check::{Check, Checker};

/// `[metrics]`: where a run can be watched while it goes on, by people and by Prometheus.
///
/// Needs the cargo feature `metrics`, which `cli` and the Python package have. `docs/metrics.md` lists what is told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetricsConfig {
    /// An address and a port, such as `"127.0.0.1:9100"`; port 0 is any free one, which the log names. Rank r of a run
    /// with several processes takes the port r above it. Whoever reaches the address can read the counts, without a
    /// token, but no data. Default: none, and nothing listens.
    #[serde(deserialize_with = "address")]
    pub address: Option<SocketAddr>,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let refused = || D::Error::custom(format!("`{text}` is no address with a port; write \"127.0.0.1:9100\""));
    text.parse().map(Some).map_err(|_| refused())
}

impl MetricsConfig {
    /// The address of one process of several.
    pub(crate) fn of_rank(&self, rank: usize) -> Option<SocketAddr> {
        let mut address = self.address?;
        let port = usize::from(address.port());
        if port > 0 {
            // Checked when settings were.
            address.set_port(u16::try_from(port + rank).unwrap_or(u16::MAX));
        }
        Some(address)
    }
}

impl Check for MetricsConfig {
    const SECTION: &'static str = "metrics";

    fn check(&self, check: &mut Checker<'_>) {
        let is_there = cfg!(feature = "metrics") || self.address.is_none();
        check.require(is_there, "address", "needs the cargo feature `metrics`; build with it, or leave the key out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_ports_of_their_own() {
        let config = |text: &str| MetricsConfig { address: Some(text.parse().unwrap()) };
        assert_eq!(config("127.0.0.1:9100").of_rank(3), Some("127.0.0.1:9103".parse().unwrap()));
        assert_eq!(config("127.0.0.1:0").of_rank(3), Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!(MetricsConfig::default().of_rank(3), None);
    }
}
