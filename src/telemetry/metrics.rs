//! Events of watching.

use std::fmt::Display;

use tracing::{info, warn};

pub(crate) fn watchable(address: &dyn Display) {
    info!(%address, "the run can be watched, at /, /status and /metrics");
}

pub(crate) fn not_watchable(reason: &dyn Display) {
    warn!(%reason, "the run cannot be watched any more");
}
