use serde::{Deserialize, Serialize};

use super::check::{Check, Checker};
use super::guards::GuardsConfig;

/// `[mask]`: which samples may share a mini-batch without being negatives of each other.
///
/// What `[guards]` keeps apart, a mask lets come together, and marks: mini-batches then carry a column `mask`, for
/// losses that leave marked pairs out. It has a list for each sample of this rank's share, [B(1 + n)] with n =
/// `walk.negatives`: first all B samples of the mini-batch, those of all ranks, then `negative_1` of each of them, and
/// so on, the order of texts that ranks have gathered. True says that it is no negative. A sample's own positive is
/// false, and an explicit negative that is null is true.
///
/// Off unless one of the keys is set. In a warm-up without embeddings the bounds on similarity mark nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct MaskConfig {
    /// Columns: marks samples that have the same value; of list columns, those that share an item. A null equals no
    /// other null. Costs what [`GuardsConfig::distinct`] does. Default none.
    pub same: Vec<String>,
    /// Lets copies come together, and marks them: samples with the same content in all that the encoder reads.
    /// `guards.duplicates` is off then. Default false.
    pub duplicates: bool,
    /// Lets samples that share a text of their pairs come together, and marks them: several positives of an anchor,
    /// several anchors of a positive. Needs [`[pairs]`](super::PairsConfig), which keeps them apart otherwise. Default
    /// false.
    pub positives: bool,
    /// Marks samples more similar than this, by the embeddings of the graph. Costs B · B(1 + n) · d multiplications a
    /// mini-batch, divided by the ranks. Default none.
    pub max_similarity: Option<f64>,
    /// Marks samples whose similarity is at least this share of the similarity of either one's own pair; 0.95 is usual.
    /// Above 0; needs [`[pairs]`](super::PairsConfig). Costs the same. Default none.
    pub max_relative_to_positive: Option<f64>,
}

impl MaskConfig {
    /// Whether any pair may be marked.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self != Self::default()
    }

    /// The guards that would keep the marked samples apart, by similarity.
    pub(crate) fn as_guards(&self) -> GuardsConfig {
        GuardsConfig {
            max_similarity: self.max_similarity,
            max_relative_to_positive: self.max_relative_to_positive,
            ..GuardsConfig::default()
        }
    }

    /// The bounds on similarity that are set.
    pub(crate) fn bounds(&self) -> Vec<&'static str> {
        let set = [
            (self.max_similarity.is_some(), "mask.max_similarity"),
            (self.max_relative_to_positive.is_some(), "mask.max_relative_to_positive"),
        ];
        set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }

    /// What it marks that `guards` keep apart anyway: key and fault.
    pub(crate) fn contradiction(&self, guards: &GuardsConfig) -> Option<(&'static str, String)> {
        if let Some(column) = self.same.iter().find(|column| guards.distinct.contains(column)) {
            let message = format!("names `{column}`, which guards.distinct keeps apart; take it out of one of them");
            return Some(("same", message));
        }
        if self.duplicates && guards.duplicate_similarity.is_some_and(|bound| bound <= 1.0) {
            let message = "marks nothing, since guards.duplicate_similarity keeps copies apart; take one of them out";
            return Some(("duplicates", message.to_owned()));
        }
        let never = |mask: Option<f64>, guard: Option<f64>| mask.zip(guard).is_some_and(|(mask, guard)| guard <= mask);
        let message = |key| format!("marks nothing, since guards.{key} is not above it; lower it, or take one out");
        [
            ("max_similarity", never(self.max_similarity, guards.max_similarity)),
            ("max_relative_to_positive", never(self.max_relative_to_positive, guards.max_relative_to_positive)),
        ]
        .into_iter()
        .find(|(_, never)| *never)
        .map(|(key, _)| (key, message(key)))
    }
}

impl Check for MaskConfig {
    const SECTION: &'static str = "mask";

    fn check(&self, check: &mut Checker<'_>) {
        let given = self.same.iter().all(|column| !column.is_empty());
        check.require(given, "same", "has an empty name; name columns, or leave the key out");
        let finite = self.max_similarity.is_none_or(f64::is_finite);
        check.require(finite, "max_similarity", "must be a finite number");
        let share = self.max_relative_to_positive;
        let sound = share.is_none_or(|share| share > 0.0 && share.is_finite());
        check.require(sound, "max_relative_to_positive", "must be a finite number above 0 (0.95 is usual)");
    }
}
