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

impl Check for MetricsConfig {
    const SECTION: &'static str = "metrics";

    fn check(&self, check: &mut Checker<'_>) {
        let is_there = cfg!(feature = "metrics") || self.address.is_none();
        check.require(is_there, "address", "needs the cargo feature `metrics`; build with it, or leave the key out");
    }
}
