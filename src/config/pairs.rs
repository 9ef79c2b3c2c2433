use serde::{Deserialize, Serialize, Serializer};

use super::check::{Check, Checker};
use super::source::one_or_many;

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
    /// Leaves out pairs whose positive is not among the so many positives most similar to its anchor, of all samples:
    /// the consistency filter of E5 (arXiv 2212.03533), which takes 2, as do Nomic's embeddings. 1 or more; default:
    /// none are left out.
    ///
    /// It is decided with each table of embeddings, so also with each refresh that makes one: an epoch begins without
    /// the pairs that are inconsistent then, and they may come back in a later one. They are counted, keep their ids,
    /// and stay in the graph; their positives may still be explicit negatives of others. Copies of a positive do not
    /// count against it. A warm-up without embeddings leaves nothing out. Needs `graph_over = "cross"`, which keeps
    /// the vectors of both sides, and `walk.coverage = "exact"`. Costs N² · d multiplications in f32 on the processor,
    /// about three times as long as the exact graph takes in i8, and a bit a sample.
    pub within: Option<usize>,
    /// A uri of more positives, as [`source.uri`](super::SourceConfig::uri) takes it: texts that are nobody's positive,
    /// such as all passages that a search would look at. They are explicit negatives alone, so `walk.negatives` must be
    /// 1 or more, and are in no epoch; walks pass through them. Default: none.
    ///
    /// Its files have a column of the name and type of `positive`, which anchors must have, too. Other columns that
    /// rows have may be missing there; `source.filter` does not look at it. A text of the corpus that is the positive
    /// of a pair is never a negative of that pair, or of others in its mini-batch. Needs `walk.coverage = "exact"`, and
    /// no weights of sources or `walk.same`. Every text takes the memory of a sample and is embedded with them, once,
    /// as a positive; with many more texts than pairs, fewer of the neighbors that a walk meets are pairs, so
    /// mini-batches themselves become less similar.
    #[serde(deserialize_with = "one_or_many", serialize_with = "is_some")]
    pub corpus: Vec<String>,
}

/// A state knows whether there is a corpus, and where it is no more than where the other rows are.
fn is_some<S: Serializer>(corpus: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(!corpus.is_empty())
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
    /// Both, side by side, compared crosswise: rows come together if the question of one is near the answer of the
    /// other. That is what a loss with in-batch negatives sees.
    ///
    /// The similarity of two rows is the mean of the cosines of each one's anchor with the other's positive, −1 to 1:
    /// [`Similarity::Cross`](super::Similarity::Cross). Bounds of `[guards]` and `[mask]`, `walk.target_similarity`
    /// and the similarities of mini-batches are in terms of it. Copies of a row are as similar as its own pair, so
    /// `guards.duplicate_similarity` says nothing; `max_relative_to_positive` finds them. Needs `graph.similarity =
    /// "cosine"`. Vectors have 2 d numbers, anchor first, those that a trainer pushes too: twice the memory and
    /// multiplications. `nn_descent`, which also is the default beyond 50,000 pairs, and `hnsw` assume that neighbors
    /// of neighbors are near; that holds as far as anchors resemble their positives, and `graph.recall` is watched.
    Cross,
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
        check.require(self.within != Some(0), "within", "must be at least 1; leave it out to keep all pairs");
        let keeps_both = self.columns().is_some() && self.graph_over == GraphOver::Cross;
        let message = "needs the vectors of both sides; set pairs.graph_over = \"cross\", or leave it out";
        check.require(self.within.is_none() || keeps_both, "within", message);
        let message = "needs pairs; name pairs.anchor and pairs.positive, or leave it out";
        check.require(self.corpus.is_empty() || self.columns().is_some(), "corpus", message);
        let given = self.corpus.iter().all(|uri| !uri.trim().is_empty());
        check.require(given, "corpus", "has an empty uri; give files, or leave the key out");
    }
}
