//! Rows that are pairs, and their similarities by plain loops in f64.

use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use prosampler::config::{GraphOver, PairsConfig, WalkConfig};
use prosampler::encode::{Encoder, PairEncoder};
use prosampler::source::MemorySource;
use prosampler::{Pipeline, PipelineBuilder};

use super::{DIMENSION, TestEncoder, graph_config, vectors, walk_config};

/// Unit vectors of anchor and positive of each row.
pub struct PairOracle(Vec<[Vec<f64>; 2]>);

impl PairOracle {
    pub fn new(vectors: &[f32], d: usize) -> Self {
        let unit = |half: &[f32]| -> Vec<f64> {
            let length = half.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            half.iter().map(|&x| f64::from(x) / length).collect()
        };
        Self(vectors.chunks_exact(2 * d).map(|row| [unit(&row[..d]), unit(&row[d..])]).collect())
    }

    /// The cosine of one row's anchor and another's positive.
    pub fn cosine(&self, anchor: usize, positive: usize) -> f64 {
        self.0[anchor][0].iter().zip(&self.0[positive][1]).map(|(x, y)| x * y).sum()
    }

    /// The mean of both directions.
    pub fn similarity(&self, a: usize, b: usize) -> f64 {
        (self.cosine(a, b) + self.cosine(b, a)) / 2.0
    }

    /// The similarities of a row with all others, highest first.
    pub fn sorted(&self, a: usize) -> Vec<f64> {
        let mut all: Vec<_> = (0..self.0.len()).filter(|&b| b != a).map(|b| self.similarity(a, b)).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        all
    }
}

/// How many rows [`pair_rows`] has.
pub const PAIRS: usize = 600;

/// Three anchors have one positive.
pub fn positive_of(row: usize) -> usize {
    PAIRS + row / 30 * 10 + row % 10
}

pub fn pair_rows() -> RecordBatch {
    let column = |of: fn(usize) -> usize| Arc::new(UInt32Array::from_iter_values((0..PAIRS).map(|row| of(row) as u32)));
    let columns = [("question", column(|row| row) as ArrayRef), ("answer", column(positive_of) as ArrayRef)];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub fn pair_encoder(over: GraphOver) -> PairEncoder {
    let side = |column: &str| Arc::new(TestEncoder::new(2 * PAIRS).reading(column)) as Arc<dyn Encoder>;
    PairEncoder::new(side("question"), side("answer"), over).unwrap()
}

/// A pipeline of these pairs, compared crosswise.
pub fn pair_pipeline() -> PipelineBuilder {
    let over = GraphOver::Cross;
    Pipeline::builder()
        .source(MemorySource::new(vec![pair_rows()]).unwrap())
        .encoder(pair_encoder(over))
        .pairs(PairsConfig {
            anchor: Some("question".into()),
            positive: Some("answer".into()),
            graph_over: over,
            ..PairsConfig::default()
        })
        .graph(graph_config(60, 12))
        .walk(WalkConfig { negatives: 1, ..walk_config(12) })
        .seed(3)
}

/// The vectors of these pairs, anchor first, and their similarities.
pub fn pair_vectors() -> (Vec<f32>, PairOracle) {
    let all = vectors(2 * PAIRS, DIMENSION, 10, 3);
    let of = |n: usize| &all[n * DIMENSION..][..DIMENSION];
    let vectors: Vec<f32> = (0..PAIRS).flat_map(|row| [of(row), of(positive_of(row))].concat()).collect();
    let oracle = PairOracle::new(&vectors, DIMENSION);
    (vectors, oracle)
}
