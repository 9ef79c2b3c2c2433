//! Rows that are pairs, and their similarities by plain loops in f64.

use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use prosampler::config::{GraphOver, PairsConfig, WalkConfig};
use prosampler::encode::{Encoder, PairEncoder};
use prosampler::source::MemorySource;
use prosampler::{Pipeline, PipelineBuilder};

use super::{Cosines, DIMENSION, TestEncoder, graph_config, vectors, walk_config};

/// The cosines of anchors and positives, whose vectors take turns.
pub struct PairOracle(Cosines);

impl PairOracle {
    pub fn new(vectors: &[f32], d: usize) -> Self {
        Self(Cosines::of(vectors, d))
    }

    /// The cosine of one row's anchor and another's positive.
    pub fn cosine(&self, anchor: usize, positive: usize) -> f64 {
        self.0.get(2 * anchor, 2 * positive + 1)
    }

    /// The mean of both directions.
    pub fn similarity(&self, a: usize, b: usize) -> f64 {
        (self.cosine(a, b) + self.cosine(b, a)) / 2.0
    }

    /// The similarities of a row with all others, highest first.
    pub fn sorted(&self, a: usize) -> Vec<f64> {
        let mut all: Vec<_> = (0..self.0.len() / 2).filter(|&b| b != a).map(|b| self.similarity(a, b)).collect();
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

/// An encoder of these pairs.
pub fn pair_encoder(over: GraphOver) -> PairEncoder {
    of_both_sides(&TestEncoder::new(2 * PAIRS), over)
}

/// An encoder of questions and answers, each by the same one.
pub fn of_both_sides(side: &TestEncoder, over: GraphOver) -> PairEncoder {
    let reading = |column: &str| Arc::new(side.clone().reading(column)) as Arc<dyn Encoder>;
    PairEncoder::new(reading("question"), reading("answer"), over).unwrap()
}

/// A pipeline of questions and answers, whose numbers lie below twice the rows.
pub fn pipeline_of_pairs(rows: RecordBatch, over: GraphOver) -> PipelineBuilder {
    let [anchor, positive] = ["question", "answer"].map(|column| Some(column.to_owned()));
    Pipeline::builder()
        .encoder(of_both_sides(&TestEncoder::new(2 * rows.num_rows()), over))
        .source(MemorySource::new(vec![rows]).unwrap())
        .pairs(PairsConfig { anchor, positive, graph_over: over, ..PairsConfig::default() })
        .graph(graph_config(60, 12))
}

/// A pipeline of these pairs, compared crosswise.
pub fn pair_pipeline() -> PipelineBuilder {
    let walk = WalkConfig { negatives: 1, ..walk_config(12) };
    pipeline_of_pairs(pair_rows(), GraphOver::Cross).walk(walk).seed(3)
}

/// The vectors of these pairs, anchor first, and their similarities.
pub fn pair_vectors() -> (Vec<f32>, PairOracle) {
    let all = vectors(2 * PAIRS, DIMENSION, 10, 3);
    let of = |n: usize| &all[n * DIMENSION..][..DIMENSION];
    let vectors: Vec<f32> = (0..PAIRS).flat_map(|row| [of(row), of(positive_of(row))].concat()).collect();
    let oracle = PairOracle::new(&vectors, DIMENSION);
    (vectors, oracle)
}
