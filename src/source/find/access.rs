//! How object stores are reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::config::SourceConfig;

/// How to reach object stores, and what went wrong there so far.
#[derive(Clone)]
pub(in crate::source) struct Access {
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "nothing is far away then"))]
    pub options: BTreeMap<String, String>,
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "nothing is far away then"))]
    pub retries: usize,
    pub faults: Arc<AtomicUsize>,
}

impl Access {
    pub fn new(config: &SourceConfig) -> Self {
        Self { options: config.options.clone(), retries: config.retries, faults: Arc::default() }
    }
}
