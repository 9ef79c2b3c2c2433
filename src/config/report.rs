use serde::Deserialize;

use super::check::{Check, Checker};

/// `[report]`: what the summary of `prosampler run` looks at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReportConfig {
    /// A column of class labels: the summary counts the pairs of a mini-batch that share one, a measure of false
    /// negatives. Never used to choose mini-batches. Default: none.
    pub label: Option<String>,
}

impl Check for ReportConfig {
    const SECTION: &'static str = "report";

    fn check(&self, check: &mut Checker<'_>) {
        let given = self.label.as_ref().is_none_or(|l| !l.is_empty());
        check.require(given, "label", "is empty; name a column, or leave the key out");
    }
}
