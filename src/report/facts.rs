//! All that can be said about the mini-batches of a pipeline.

use std::collections::BTreeMap;

#[cfg(feature = "cli")]
use arrow::array::RecordBatch;
use serde::Serialize;

use super::hardness::Hardness;
use crate::graph::GraphStatistics;

/// What a run of a pipeline was like: how hard its mini-batches are, who is in them, what they were drawn from.
///
/// `prosampler report` draws it as a page; its JSON has the fields of this struct. Numbers about mini-batches are
/// measured by the embeddings of the run's last snapshot.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of these fields: 1.
    pub version: u32,
    /// What the run was over.
    pub data: DataFacts,
    /// What a pair must be more similar than, to count as a likely false negative.
    pub estimate: String,
    /// How hard the mini-batches are: of the run first, then of other samplers on the same snapshot.
    pub hardness: Vec<Hardness>,
    /// Who is in them.
    pub audit: Audit,
    /// What they were drawn from.
    pub graph: GraphFacts,
    /// How far the embeddings moved from each snapshot to the next.
    pub drift: Vec<DriftFacts>,
    /// Some mini-batches.
    pub examples: Vec<Example>,
    /// The samples that examples, pairs and hubs name.
    pub samples: BTreeMap<u32, SampleFacts>,
    /// Bytes of what the run keeps.
    pub memory: MemoryFacts,
    /// Their rows, with all columns that the run keeps.
    #[cfg(feature = "cli")]
    #[serde(skip)]
    pub(crate) rows: RecordBatch,
}

/// What a run is over.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DataFacts {
    /// The data's uri.
    pub uri: String,
    /// N: samples, the skipped ones included.
    pub samples: usize,
    /// Samples that could not be encoded.
    pub skipped: usize,
    /// Pairs that `pairs.within` leaves out.
    pub inconsistent: usize,
    /// Samples of `pairs.corpus`, which are explicit negatives alone.
    pub in_corpus: usize,
    /// d: numbers of an embedding.
    pub dimension: usize,
    /// B: samples of a mini-batch.
    pub batch_size: usize,
    /// M: candidates of the graph.
    pub candidates: usize,
    /// K: neighbors of the graph.
    pub neighbors: usize,
}

/// Who is in the mini-batches of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Audit {
    /// How many mini-batches were looked at.
    pub mini_batches: usize,
    /// How many of them belong to the warm-up.
    pub warm_up: u64,
    /// The pairs that were looked at.
    pub pairs: u64,
    /// Those that are likely false negatives.
    pub likely_false: u64,
    /// Those with a similarity of 0.999 or more.
    pub near_copies: u64,
    /// Samples that guards refused, in all.
    pub refused: u64,
    /// Places that stayed empty, since guards let nobody in.
    pub short: u64,
    /// The most similar pairs.
    pub worst: Vec<PairFacts>,
}

/// Two samples of one mini-batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PairFacts {
    /// One sample.
    pub a: u32,
    /// The other.
    pub b: u32,
    /// Their similarity.
    pub similarity: f32,
}

/// What a graph is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GraphFacts {
    /// Degrees, components and the like.
    pub statistics: GraphStatistics,
    /// The share of the exact nearest neighbors that the graph has, by 256 samples; about M / N for the paper's graph.
    pub recall: f64,
    /// How many samples have an in-degree of 0, of 1, of 2 to 3, of 4 to 7 and so on.
    pub in_degrees: Vec<usize>,
    /// The samples with the largest in-degrees.
    pub hubs: Vec<HubFacts>,
}

/// A sample that is a neighbor of many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HubFacts {
    /// The sample.
    pub id: u32,
    /// How many samples it is a neighbor of.
    pub in_degree: u32,
}

/// How far the embeddings moved from a snapshot to the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DriftFacts {
    /// The first mini-batch after the new snapshot was seen.
    pub step: u64,
    /// The version of the new graph.
    pub graph_version: u64,
    /// The version of the model under it.
    pub model_version: u64,
    /// The mean of 1 − cosine between a sample's two embeddings; 0 if they are the same.
    pub cosine_shift: f64,
    /// The share of nearest neighbors within a probe of 512 samples that stayed.
    pub overlap: f64,
}

/// A mini-batch, or as much of it as is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Example {
    /// Why it is shown: `first`, `median` or `hardest`.
    pub why: &'static str,
    /// The number of mini-batches before it.
    pub step: u64,
    /// Its mean similarity.
    pub similarity: f32,
    /// Its first samples.
    pub ids: Vec<u32>,
}

/// A sample in words.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SampleFacts {
    /// Its label, if `report.label` is set.
    pub label: Option<String>,
    /// The texts that are embedded, or a column that names the sample.
    pub texts: Vec<String>,
}

/// Bytes of what a run keeps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryFacts {
    /// All embeddings.
    pub embeddings: u64,
    /// The neighbors and their similarities.
    pub graph: u64,
}
