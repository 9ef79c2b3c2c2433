//! The settings by which object stores are reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::config::SourceConfig;

/// How to reach object stores, and how many requests to them have failed so far.
#[derive(Clone)]
pub(in crate::source) struct Access {
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "there are no object stores then"))]
    pub options: BTreeMap<String, String>,
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "there are no object stores then"))]
    pub retries: usize,
    /// Requests that failed for a passing reason; shared with the source's counts.
    pub failed_requests: Arc<AtomicUsize>,
}

impl Access {
    pub fn new(config: &SourceConfig) -> Self {
        Self { options: config.options.clone(), retries: config.retries, failed_requests: Arc::default() }
    }
}
