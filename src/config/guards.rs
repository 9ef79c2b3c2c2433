use serde::{Deserialize, Serialize, Serializer};

use super::PipelineConfig;
use super::check::{Check, Checker};
use super::views::ViewConfig;
use crate::error::Fault;

/// `[guards]`: what keeps likely false negatives out of mini-batches.
///
/// All guards hold for every two samples of a mini-batch, and for every explicit negative and every sample; none is
/// ever set aside. Samples that a guard keeps out are drawn in a later mini-batch of the epoch.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct GuardsConfig {
    /// Columns whose values no two samples of a mini-batch share; in list columns, no two share an item. A null equals
    /// no other null, NaN equals nothing, and −0 equals 0. Costs 4 to 12 bytes a sample and column. Default none;
    /// `[pairs]` keeps its own columns distinct.
    pub distinct: Vec<String>,
    /// Refuses copies: samples with the same content as a member in all that the encoder reads. Of images in Hugging
    /// Face's `{bytes, path}` it reads the bytes. Default true.
    pub duplicates: bool,
    /// Refuses samples at least as similar as this to a member: near copies, counted apart. Default none; 0.99 is
    /// cautious for cosine.
    pub duplicate_similarity: Option<f64>,
    /// Refuses samples more similar than this to a member, by the embeddings of the graph. Costs B · d multiplications
    /// for each sample looked at. Default none.
    pub max_similarity: Option<f64>,
    /// Refuses a sample whose similarity to a member is at least this share of the similarity of either one's own pair:
    /// NV-Retriever's rule (arXiv 2407.15831), which takes 0.95. Above 0; needs [`[pairs]`](super::PairsConfig). Pairs
    /// whose similarity is not above 0 have no such bound. Default none.
    pub max_relative_to_positive: Option<f64>,
    /// p in B3 (arXiv 2505.11293): no sample comes together with one of its first p neighbors, and no walk steps to
    /// them; below `graph.neighbors`. B3 takes 30 of the exact neighbors. Default 0.
    pub skip_nearest: usize,
    /// `[guards.guide]`: a frozen, better encoder that judges how similar samples are, in place of the embeddings that
    /// are trained. With `max_relative_to_positive = 1.0` that is GISTEmbed's rule (arXiv 2402.16829). What is set here
    /// replaces the setting of `[encode]` with the same name.
    ///
    /// It judges every bound on similarity: those of `[guards]` and `[mask]`, and the margins of `walk.negative_*`.
    /// They hold from the first mini-batch on then, also in a warm-up. All samples are embedded once, when the run
    /// starts or is resumed, with `encode.storage` and the cache of `[encode]`; refreshes embed new rows alone. A
    /// sample that the guide cannot embed is an error, or with `encode.on_bad_sample = "skip"` has no such bound. A
    /// run is resumed with the same model, on the same provider and release of ONNX Runtime, or with
    /// `checkpoint.resume = "latest"`. Costs the memory of a second table of embeddings. Default none.
    #[serde(serialize_with = "is_some")]
    pub guide: Option<ViewConfig>,
}

/// What is wrong with a guide without bounds.
pub(crate) const JUDGES_NOTHING: &str = "judges nothing, since there is no bound on similarity; set \
                                         guards.max_relative_to_positive for pairs, or guards.max_similarity";

/// A state knows whether there is a guide; like the encoder's own, its model may lie elsewhere when a run is resumed.
fn is_some<S: Serializer>(guide: &Option<ViewConfig>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(guide.is_some())
}

impl GuardsConfig {
    /// The bounds on similarity that are set.
    pub(crate) fn bounds(&self) -> Vec<&'static str> {
        let set = [
            (self.duplicate_similarity.is_some(), "guards.duplicate_similarity"),
            (self.max_similarity.is_some(), "guards.max_similarity"),
            (self.max_relative_to_positive.is_some(), "guards.max_relative_to_positive"),
        ];
        set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }

    /// What is wrong with `skip_nearest` if samples have `neighbors`: nothing, unless it skips them all.
    pub(crate) fn skips_all(&self, neighbors: usize) -> Option<String> {
        let skipped = self.skip_nearest;
        (skipped > 0 && skipped >= neighbors).then(|| {
            format!("is {skipped}, but samples have {neighbors} neighbors; skip fewer, or raise graph.neighbors")
        })
    }
}

impl Default for GuardsConfig {
    fn default() -> Self {
        Self {
            distinct: Vec::new(),
            duplicates: true,
            duplicate_similarity: None,
            max_similarity: None,
            max_relative_to_positive: None,
            skip_nearest: 0,
            guide: None,
        }
    }
}

impl PipelineConfig {
    /// All bounds on similarity that are set: what a guide judges, and what waits for embeddings without one.
    pub(crate) fn bounds(&self) -> Vec<&'static str> {
        [self.guards.bounds(), self.mask.bounds(), self.walk.margins()].concat()
    }

    /// What is wrong with `[guards.guide]`.
    pub(super) fn guide_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let Some(guide) = &self.guards.guide else { return faults };
        let mut check = Checker { section: "guards.guide", faults: &mut faults };
        let message = "is the encoder of the run itself; name the model, or the column of vectors, of another one";
        check.require(guide.model.is_some() || guide.column.is_some(), "model", message);
        guide.over(&self.encode).check_feature(&mut check);
        if self.bounds().is_empty() {
            faults.push(Fault::new("guards.guide", JUDGES_NOTHING));
        }
        faults
    }
}

impl Check for GuardsConfig {
    const SECTION: &'static str = "guards";

    fn check(&self, check: &mut Checker<'_>) {
        let given = self.distinct.iter().all(|column| !column.is_empty());
        check.require(given, "distinct", "has an empty name; name columns, or leave the key out");
        let finite = |bound: Option<f64>| bound.is_none_or(f64::is_finite);
        check.require(finite(self.duplicate_similarity), "duplicate_similarity", "must be a finite number");
        check.require(finite(self.max_similarity), "max_similarity", "must be a finite number");
        let share = self.max_relative_to_positive;
        let sound = share.is_none_or(|share| share > 0.0 && share.is_finite());
        check.require(sound, "max_relative_to_positive", "must be a finite number above 0 (0.95 is usual)");
    }
}
