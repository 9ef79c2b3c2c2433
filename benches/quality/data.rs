//! A data set with its classes, and epochs of mini-batches over it.

use std::collections::HashMap;
use std::sync::Arc;

use prosampler::arrow::array::AsArray;
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, Schema};
use prosampler::config::{EncodeConfig, GraphConfig, GuardsConfig, StoreConfig, WalkConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::{self, ColumnEncoder, Encoder, PairEncoder, encode_all};
use prosampler::graph::{self, ProximityGraph};
use prosampler::source::{FileSource, Source};
use prosampler::store::Store;
use prosampler::walk::{EpochSampler, Groups, Guards};
use prosampler::{ComputePool, GraphVersion, ModelVersion, PipelineConfig, SampleId};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// A data set, embedded, with a class for each sample.
pub struct Data {
    pub table: EmbeddingTable,
    classes: Vec<u32>,
    guards: Guards,
    pub batch_size: usize,
    pub neighbors: usize,
}

/// An epoch.
pub struct Epoch {
    /// Similarity and share of pairs with the same label of each mini-batch.
    pub mini_batches: Vec<[f64; 2]>,
    /// The mini-batch in which each sample came first.
    first: Vec<usize>,
    /// The samples with the lowest and with the highest in-degree, a tenth each.
    tenths: [Vec<SampleId>; 2],
}

impl Epoch {
    /// The means over the part of the epoch that begins and ends at these shares of its mini-batches.
    pub fn mean(&self, from: f64, to: f64) -> [f64; 2] {
        let at = |share: f64| (share * self.mini_batches.len() as f64).round() as usize;
        let part = &self.mini_batches[at(from)..at(to)];
        [0, 1].map(|i| part.iter().map(|m| m[i]).sum::<f64>() / part.len().max(1) as f64)
    }

    /// The percentages of both tenths that have come by half of the mini-batches.
    pub fn prefix_bias(&self) -> String {
        let half = self.mini_batches.len() / 2;
        let [low, high] = [&self.tenths[0], &self.tenths[1]].map(|tenth| {
            let come = tenth.iter().filter(|id| self.first[id.index()] < half).count();
            100.0 * come as f64 / tenth.len().max(1) as f64
        });
        format!("{low:.0} / {high:.0}")
    }
}

/// The pipeline's, or one that reads a column.
fn encoder(config: &PipelineConfig, vectors: Option<&str>, schema: &Schema) -> prosampler::Result<Arc<dyn Encoder>> {
    if let Some(column) = vectors {
        return Ok(Arc::new(ColumnEncoder::new(schema, column)?));
    }
    let of = |column: &Option<String>| {
        let column = column.clone().or_else(|| config.encode.column.clone());
        encode::open(&EncodeConfig { column, ..config.encode.clone() }, schema)
    };
    let pairs = &config.pairs;
    if pairs.anchor.is_none() {
        return of(&None);
    }
    Ok(Arc::new(PairEncoder::new(of(&pairs.anchor)?, of(&pairs.positive)?, pairs.graph_over)?))
}

impl Data {
    pub fn load(config: &PipelineConfig, vectors: Option<&str>, pool: &ComputePool) -> Self {
        let label = config.report.label.clone().expect("a pipeline with report.label");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let source = runtime.block_on(FileSource::open(&config.source.uri[0])).unwrap_or_else(|e| panic!("{e}"));
        let encoder = encoder(config, vectors, &source.schema()).unwrap_or_else(|e| panic!("{e}"));
        let mut columns = encoder.columns().to_vec();
        if !columns.contains(&label) {
            columns.push(label.clone());
        }
        let store = runtime.block_on(Store::build(&source, &columns, &StoreConfig::default(), &mut |_| {}));
        let store = store.unwrap_or_else(|e| panic!("{e}"));
        let (storage, similarity) = (config.encode.storage, config.graph.similarity);
        let encode = || encode_all(&encoder, &store, storage, similarity, ModelVersion(1), &mut |_| {});
        let table = pool.install(encode).unwrap_or_else(|e| panic!("{e}"));
        let labels = store.select(&[label]).expect("the label");
        let (mut classes, mut numbers) = (Vec::new(), HashMap::new());
        for item in labels.record_batches() {
            let (_, rows) = item.expect("sound rows");
            let texts = cast(rows.column(0), &DataType::Utf8).expect("labels as text");
            for text in texts.as_string::<i32>() {
                let next = numbers.len() as u32;
                classes.push(*numbers.entry(text.unwrap_or_default().to_owned()).or_insert(next));
            }
        }
        let neighbors = config.graph.neighbors.unwrap_or(32);
        // They refuse nothing, and hold the embeddings that some samplers need.
        let idle = GuardsConfig { duplicates: false, ..GuardsConfig::default() };
        let guards = Guards::new(&idle, Groups::default().into(), table.clone().into());
        Self { table, classes, guards, batch_size: config.walk.batch_size, neighbors }
    }

    pub fn graph(&self, candidates: usize, pool: &ComputePool) -> ProximityGraph {
        let config = GraphConfig {
            candidates: candidates.into(),
            neighbors: Some(self.neighbors),
            similarity: self.table.similarity(),
            ..GraphConfig::default()
        };
        pool.install(|| graph::build(&self.table, &config, 1, GraphVersion(1)).expect("settings that fit the data"))
    }

    /// The settings of a walk with this restart probability.
    pub fn walk(&self, alpha: f64) -> WalkConfig {
        WalkConfig { batch_size: self.batch_size, restart_probability: Some(alpha.into()), ..WalkConfig::default() }
    }

    /// An epoch of mini-batches over a graph.
    pub fn epoch(&self, graph: &ProximityGraph, walk: &WalkConfig) -> Epoch {
        let mut sampler = EpochSampler::new(graph.len(), walk, 1, 0);
        let mut epoch = Epoch { mini_batches: Vec::new(), first: vec![usize::MAX; graph.len()], tenths: tenths(graph) };
        while let Some(draw) = sampler.next_guarded(graph, &self.guards) {
            for id in &draw.ids {
                let first = &mut epoch.first[id.index()];
                *first = epoch.mini_batches.len().min(*first);
            }
            // The rest of a division would count as much as a whole one.
            if draw.ids.len() == self.batch_size {
                epoch.mini_batches.push([f64::from(self.table.mean_similarity(&draw.ids)), self.shared(&draw.ids)]);
            }
        }
        epoch
    }

    /// The share of pairs with the same class.
    fn shared(&self, ids: &[SampleId]) -> f64 {
        let mut sizes = HashMap::new();
        ids.iter().for_each(|id| *sizes.entry(self.classes[id.index()]).or_insert(0usize) += 1);
        let pairs = |n: usize| (n * (n - 1) / 2) as f64;
        sizes.into_values().map(pairs).sum::<f64>() / pairs(ids.len())
    }
}

/// The tenths of samples with the lowest and with the highest in-degree; chance decides among equal ones.
fn tenths(graph: &ProximityGraph) -> [Vec<SampleId>; 2] {
    let mut degrees = vec![0u32; graph.len()];
    let mut ids: Vec<_> = (0..graph.len()).map(SampleId::new).collect();
    ids.iter().flat_map(|&id| graph.neighbors(id)).for_each(|to| degrees[to.index()] += 1);
    ids.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    ids.sort_by_key(|id| degrees[id.index()]);
    let tenth = ids.len() / 10;
    [ids[..tenth].to_vec(), ids[ids.len() - tenth..].to_vec()]
}
