//! "Here are mini-batches, tell me how hard they are."
//!
//! An [`Observer`] looks at mini-batches as they are delivered. Its [`Summary`] compares them with what a uniform
//! sampler draws from the same data. A [`Report`] looks closer at what a run has [`Seen`]: pairs that are likely no
//! negatives, the graph and its hubs, how far embeddings moved.

mod bound;
mod facts;
mod hardness;
mod labels;
mod measure;
mod pair_counts;
mod sparkline;
mod summary;

use std::collections::BTreeMap;

pub(crate) use self::bound::Bound;
pub use self::facts::{
    Audit, DataFacts, DriftFacts, Example, GraphFacts, HubFacts, MemoryFacts, PairFacts, Report, SampleFacts,
};
pub use self::hardness::{Distribution, Hardness};
pub(crate) use self::hardness::{Judge, Measurement};
pub(crate) use self::labels::Labels;
pub use self::measure::Seen;
pub use self::summary::{Measure, Summary};
use crate::config::{Coverage, SamplerKind, WalkConfig};
use crate::error::Result;
use crate::refresh::Snapshot;
use crate::sample::GraphVersion;
use crate::stream::MiniBatch;
use crate::walk::WalkCounts;

/// Collects what a [`Summary`] needs. Takes a few numbers for each mini-batch, and 4 bytes a sample for labels.
#[derive(Clone, Debug)]
pub struct Observer {
    walk: WalkConfig,
    seed: u64,
    labels: Option<Labels>,
    similarity: Vec<f32>,
    sizes: Vec<usize>,
    shared: Vec<f64>,
    staleness: u64,
    counts: WalkCounts,
    warm_up: u64,
    graph_versions: BTreeMap<GraphVersion, u64>,
    sources: BTreeMap<String, u64>,
}

impl Observer {
    /// Observes a stream over `samples` samples with these settings.
    ///
    /// With a label, pairs that share its value are counted; the rows must have that column.
    #[must_use]
    pub fn new(samples: usize, walk: &WalkConfig, seed: u64, label: Option<&str>) -> Self {
        Self {
            walk: walk.clone(),
            seed,
            labels: label.map(|column| Labels::new(samples, column)),
            similarity: Vec::new(),
            sizes: Vec::new(),
            shared: Vec::new(),
            staleness: 0,
            counts: WalkCounts::default(),
            warm_up: 0,
            graph_versions: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Adds a mini-batch to the summary.
    ///
    /// # Errors
    /// [`ColumnError::Missing`](crate::error::ColumnError::Missing) if its rows lack the label;
    /// [`ColumnError::Type`](crate::error::ColumnError::Type) if labels cannot be compared.
    pub fn observe(&mut self, mini_batch: &MiniBatch) -> Result<()> {
        if let Some(labels) = &mut self.labels {
            labels.learn(mini_batch)?;
            self.shared.push(labels.shared(&mini_batch.ids));
        }
        self.similarity.extend(mini_batch.similarity);
        self.sizes.push(mini_batch.ids.len());
        self.staleness = self.staleness.max(mini_batch.staleness.unwrap_or(0));
        self.counts += mini_batch.counts;
        self.warm_up += u64::from(mini_batch.is_warm_up);
        if let Some(version) = mini_batch.graph_version {
            *self.graph_versions.entry(version).or_default() += 1;
        }
        for (name, count) in mini_batch.sources() {
            *self.sources.entry(name.to_owned()).or_default() += count as u64;
        }
        Ok(())
    }

    /// Summarises the mini-batches, beside as many of a uniform sampler, measured with the embeddings of `snapshot`.
    ///
    /// Without a snapshot, as in a run that ends within its warm-up, there is nothing to compare them with.
    #[must_use]
    pub fn summary(&self, snapshot: Option<&Snapshot>) -> Summary {
        let uniform = snapshot.map(|snapshot| self.uniform(snapshot)).unwrap_or_default();
        let walked = Measure { similarity: self.similarity.clone(), shared: self.shared.clone() };
        Summary {
            sampler: self.walk.sampler,
            label: self.labels.as_ref().map(|labels| labels.column().to_owned()),
            walked,
            uniform,
            samples: self.sizes.iter().sum(),
            skipped: snapshot.map_or(0, |snapshot| snapshot.embeddings.skipped()),
            skip_reasons: snapshot.map_or_else(Vec::new, |snapshot| snapshot.embeddings.skip_reasons().to_vec()),
            inconsistent: snapshot.map_or(0, |snapshot| snapshot.embeddings.inconsistent()),
            in_corpus: snapshot.map_or(0, |snapshot| snapshot.facts.in_corpus()),
            counts: self.counts,
            warm_up: self.warm_up,
            staleness: self.staleness,
            graph_versions: self.graph_versions.clone(),
            sources: self.sources.clone(),
        }
    }

    /// As many mini-batches of a uniform sampler over the same data.
    fn uniform(&self, snapshot: &Snapshot) -> Measure {
        let config =
            WalkConfig { sampler: SamplerKind::Uniform, coverage: Coverage::Exact, negatives: 0, ..self.walk.clone() };
        let mut measure = Measure::default();
        let mut epochs = (0..).map(|epoch| snapshot.epoch(&config, self.seed, epoch, 0));
        while measure.similarity.len() < self.sizes.len() {
            let Some(mut epoch) = epochs.next() else { break };
            while measure.similarity.len() < self.sizes.len()
                && let Some(draw) = epoch.next(&snapshot.graph)
            {
                measure.similarity.push(snapshot.embeddings.mean_similarity(&draw.ids));
                measure.shared.extend(self.labels.as_ref().map(|labels| labels.shared(&draw.ids)));
            }
        }
        measure
    }
}
