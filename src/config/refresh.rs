use serde::Deserialize;

use super::faults::{Check, Checker};
use super::read::layer;

/// `[refresh]`: when the graph is made anew, in the background.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RefreshConfig {
    /// A refresh begins each time this many more mini-batches have been delivered (t in the paper); at least 1.
    /// Default: none, and the first graph stays. Those due while one is under way are one refresh after it.
    pub every_steps: Option<u64>,
}

layer!(RefreshConfig: every_steps);

impl Check for RefreshConfig {
    const SECTION: &'static str = "refresh";

    fn check(&self, check: &mut Checker<'_>) {
        check.require(self.every_steps != Some(0), "every_steps", "must be at least 1; leave it out for no refresh");
    }
}
