use serde::{Deserialize, Serialize};

use super::check::{Check, Checker};

/// `[pairs]`: rows that are an anchor and its positive, such as a question and its answer.
///
/// Both are embedded by the encoder of `[encode]`, whose `column` is then not needed.
///
/// No mini-batch holds two rows with the same anchor or the same positive, since the positive of one would be a false
/// negative of the other. If both columns have one type (all layouts of texts and bytes count as one), it holds no two
/// rows of which one's anchor is the other's positive, either. The same holds for explicit negatives. Rows that this
/// keeps out are counted as refused with the same value. Costs 8 to 24 bytes a sample. A column with fewer values than
/// `walk.batch_size` is an error.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct PairsConfig {
    /// The column of the anchors. Default: none, and rows are not pairs.
    pub anchor: Option<String>,
    /// The column of their positives, a text or a list of texts in each row; required with `anchor`.
    pub positive: Option<String>,
    /// What a row with several positives, a list in the column `positive`, gives a mini-batch. Default `one`.
    pub several: Several,
    /// Which vectors the graph is built over. Default `mean`.
    pub graph_over: GraphOver,
}

/// What a row with several positives gives a mini-batch.
///
/// The vector of its positives is the mean of theirs, and no two rows of a mini-batch share one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Several {
    /// One of them, drawn at random for each epoch, in place of the list.
    #[default]
    One,
    /// The list.
    All,
}

/// Which vectors the graph of a data set of pairs is built over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphOver {
    /// The anchors': rows with similar questions come together.
    Anchors,
    /// The positives': rows with similar answers come together.
    Positives,
    /// The means of both, each of unit length first.
    #[default]
    Mean,
}

impl PairsConfig {
    /// Both columns, if rows are pairs.
    pub(crate) fn columns(&self) -> Option<[&String; 2]> {
        self.anchor.as_ref().zip(self.positive.as_ref()).map(|(anchor, positive)| [anchor, positive])
    }
}

impl Check for PairsConfig {
    const SECTION: &'static str = "pairs";

    fn check(&self, check: &mut Checker<'_>) {
        let (anchor, positive) = (self.anchor.is_some(), self.positive.is_some());
        check.require(anchor || !positive, "anchor", "is required with pairs.positive; name the anchors' column");
        check.require(positive || !anchor, "positive", "is required with pairs.anchor; name the positives' column");
        let differ = self.columns().is_none_or(|[anchor, positive]| anchor != positive);
        check.require(differ, "positive", "is the anchors' column; name another");
    }
}
