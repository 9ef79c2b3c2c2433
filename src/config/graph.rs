use serde::{Deserialize, Serialize};

use super::candidates::Candidates;
use super::check::{Check, Checker};

/// `[graph]`: how embeddings become a proximity graph.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct GraphConfig {
    /// What chooses the neighbors. Default `sampled`.
    pub builder: GraphBuilder,
    /// M in the paper: how many others, drawn uniformly, a sample's neighbors are chosen from. A number (K to 2³² − 1),
    /// a share of the samples (`"1 %"`), or `"auto"`, the default, which follows the number of samples, and is larger
    /// if rows are pairs or texts: [`Candidates::Auto`]. The hardness dial: M = K gives random neighbors, M ≥ N − 1 the
    /// nearest ones, with the most false negatives. Building costs N · M · d multiplications. The other builders do not
    /// draw candidates.
    pub candidates: Candidates,
    /// K in the paper: out-neighbors of each sample; 1 to M. Default: M / 8, within 4 to 100, or 32 if rows are pairs
    /// or texts and M is `"auto"`. A share of candidates grows as far as K needs it, see [`size`](Self::size). The
    /// graph takes 8 K bytes a sample.
    pub neighbors: Option<usize>,
    /// What "near" means: `cosine`, the default, or `dot`.
    pub similarity: Similarity,
    /// What candidates are scored in; the neighbors' similarities are f32 in any case. Default `auto`.
    pub precision: Precision,
    /// The share of the nearest that `nn_descent` is to find, 0.5 to 1, default 0.98; refining a graph aims at it, too.
    /// It is estimated from 512 samples, so that the truth may be off by a hundredth. See also
    /// [`GraphBuilder::NnDescent`].
    pub recall: f64,
    /// What multiplies. Default `auto`.
    pub device: GraphDevice,
}

/// What the builders `sampled` and `exact` multiply on; the others always take the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphDevice {
    /// The GPUs of `[encode.cuda]`, if `encode.providers` begins with `cuda` or `tensorrt` and the graph takes 10¹¹
    /// multiplications or more; the processor otherwise, and, with a warning, if the GPU fails.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPUs of `[encode.cuda]`; what fails there is an error.
    Cuda,
}

/// What the builders multiply in. Below f32 more than K neighbors are kept and scored again in f32. On a GPU `auto`
/// means `f32`, and `bf16` and `i8` mean 16 bits: those of f16 for cosine, of bf16 for dot products, whose range is
/// open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// `i8` if vectors have at least 64 components and M is at least 8 K, so that it is safe and pays; `f32` otherwise.
    /// The kNN graph is then exact but for neighbors that i8 cannot tell from the next ones.
    #[default]
    Auto,
    /// 32-bit numbers: exact.
    F32,
    /// Upper halves of 32-bit numbers. Faster than `f32` on processors with AVX-512 BF16 only.
    Bf16,
    /// Whole numbers from −63 to 63, scaled for each vector. Faster than `f32`.
    I8,
}

/// How neighbors are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphBuilder {
    /// The K most similar of M uniform others: the paper's graph.
    #[default]
    Sampled,
    /// The K most similar of all others: the limit M → N. Costs N² · d / 2 multiplications.
    Exact,
    /// About the K most similar of all others, by clusters and NN-descent, for data so large that `exact` takes too
    /// long. It finds the share of them that `recall` says; if vectors have no structure at all, fewer may be found,
    /// and the log says so. See docs/graph.md for its costs.
    NnDescent,
    /// About the K most similar of all others, by a hierarchical navigable small world, instant-distance's. M is
    /// ignored. Slower than the other builders, see docs/graph.md; takes about 340 bytes a sample while it is built.
    /// Reproducible with `compute.threads` = 1 only.
    Hnsw,
}

/// How near two embeddings are; larger is nearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The cosine of the angle between them, −1 to 1. Embeddings are scaled to unit length.
    #[default]
    Cosine,
    /// Their dot product.
    Dot,
    /// For rows that are pairs, what `pairs.graph_over = "cross"` asks for; `graph.similarity` cannot say it.
    ///
    /// A vector has two halves: the anchor's q and, behind it, the positive's p, each scaled to length √½. The
    /// similarity of two rows is the mean of the cosines q · p′ and p · q′, −1 to 1, and that of a row with itself is
    /// the cosine of its own pair.
    #[serde(skip)]
    Cross,
}

impl Similarity {
    /// The setting's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Cross => "cross",
        }
    }
}

impl Default for GraphConfig {
    fn default() -> Self {
        Self {
            builder: GraphBuilder::Sampled,
            candidates: Candidates::Auto,
            neighbors: None,
            similarity: Similarity::Cosine,
            precision: Precision::Auto,
            recall: 0.98,
            device: GraphDevice::Auto,
        }
    }
}

impl Check for GraphConfig {
    const SECTION: &'static str = "graph";

    fn check(&self, check: &mut Checker<'_>) {
        check.require(self.neighbors != Some(0), "neighbors", "must be at least 1; leave it out for M / 8");
        match self.candidates {
            Candidates::Auto | Candidates::AutoNearest => {}
            Candidates::Number(candidates) => {
                let neighbors = self.neighbors.unwrap_or(1);
                let message = format!(
                    "is {neighbors}, but only {candidates} candidates are drawn; lower it or raise graph.candidates"
                );
                check.require(neighbors <= candidates.max(1), "neighbors", message);
                let fits = (1..=u32::MAX as usize).contains(&candidates);
                check.require(fits, "candidates", "must lie between 1 and 4,294,967,295");
            }
            Candidates::Share(share) => {
                let message = format!("is \"{}\"; a share must be above 0 and at most 100 %", self.candidates);
                check.require(share > 0.0 && share <= 1.0, "candidates", message);
            }
        }
        check.require((0.5..=1.0).contains(&self.recall), "recall", "must lie between 0.5 and 1");
        let served = matches!(self.builder, GraphBuilder::Sampled | GraphBuilder::Exact);
        let message = "is `cuda`, which serves the builders `sampled` and `exact`; choose one of these, or `auto`";
        check.require(served || self.device != GraphDevice::Cuda, "device", message);
    }
}
