use serde::Deserialize;

use super::check::{Check, Checker};

/// `[compute]`: the pool that embedding and graph building run on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ComputeConfig {
    /// Threads, up to 1,024; 0, the default, means one for each core.
    pub threads: usize,
}

impl Check for ComputeConfig {
    const SECTION: &'static str = "compute";

    fn check(&self, check: &mut Checker<'_>) {
        check.require(self.threads <= 1024, "threads", "must lie between 0 (one a core) and 1,024");
    }
}
