//! How hard a sampler's mini-batches are.

use serde::Serialize;

use super::bound::Bound;
use super::labels::{Labels, is_much};
use super::pair_counts::PairCounts;
use crate::config::WalkConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;
use crate::walk::{EpochSampler, Guards, Left};

/// How hard the mini-batches of a sampler are, and how many of their pairs are likely false negatives.
///
/// Shares are of ordered pairs of a sample and another one of its mini-batch, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hardness {
    /// What chose the mini-batches: `random_walk`, `knn`, `communities`, `clusters` or `uniform`.
    pub sampler: String,
    /// The mean similarity of each mini-batch, in the order in which they came.
    pub similarity: Vec<f32>,
    /// The mean over all mini-batches.
    pub mean_similarity: f64,
    /// How the similarities of pairs are distributed.
    pub pairs: Distribution,
    /// The share of pairs that are likely false negatives: an estimate, see `estimate` of the report.
    pub likely_false: f64,
    /// The share of pairs with a similarity of 0.999 or more.
    pub near_copies: f64,
    /// The share of pairs with the same label; `null` without `report.label`.
    pub same_label: Option<f64>,
}

impl Hardness {
    /// Whether many pairs share their label, clearly more than those of uniform mini-batches.
    pub(crate) fn shares_labels(&self, uniform: &Self) -> bool {
        self.same_label.zip(uniform.same_label).is_some_and(|(share, uniform)| is_much(share, uniform))
    }
}

/// A distribution of similarities, from a few pairs of each mini-batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Distribution {
    /// The similarities that 5, 25, 50, 75 and 95 % of pairs do not exceed; empty without pairs.
    pub percentiles: Vec<f32>,
    /// The ends of equal bins, one more than there are bins.
    pub edges: Vec<f32>,
    /// The share of pairs in each bin.
    pub shares: Vec<f64>,
}

impl Distribution {
    fn of(mut similarities: Vec<f32>) -> Self {
        similarities.sort_by(f32::total_cmp);
        let (Some(&low), Some(&high)) = (similarities.first(), similarities.last()) else { return Self::default() };
        let at = |percent: usize| similarities[percent * (similarities.len() - 1) / 100];
        let edge = |bin: usize| low + (high - low) * bin as f32 / BINS as f32;
        let edges: Vec<f32> = (0..=BINS).map(edge).collect();
        let below: Vec<usize> =
            edges[1..BINS].iter().map(|&edge| similarities.partition_point(|&s| s < edge)).collect();
        let ends = || below.iter().copied().chain([similarities.len()]);
        let counts = ends().zip([0].into_iter().chain(ends())).map(|(end, begin)| end - begin);
        let shares = counts.map(|count| count as f64 / similarities.len() as f64).collect();
        Self { percentiles: [5, 25, 50, 75, 95].map(at).into(), edges, shares }
    }
}

/// What mini-batches are measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    /// The embeddings that say how similar samples are.
    pub table: &'a EmbeddingTable,
    /// The embeddings that say which pairs are likely false negatives: the same, or those of a better model.
    pub guide: &'a EmbeddingTable,
    /// From which similarity on they are, by the guide.
    pub bound: Bound,
    pub labels: Option<&'a Labels>,
    /// A bit for each sample, set if it is in epochs.
    pub in_epochs: &'a [u64],
}

/// Collects mini-batches for a [`Hardness`].
#[derive(Debug)]
pub(crate) struct Measurement<'a> {
    judge: Judge<'a>,
    similarity: Vec<f32>,
    same_label: f64,
    pairs: PairCounts,
}

impl<'a> Measurement<'a> {
    pub fn new(judge: Judge<'a>) -> Self {
        Self { judge, similarity: Vec::new(), same_label: 0.0, pairs: PairCounts::default() }
    }

    /// Adds a mini-batch.
    pub fn add(&mut self, ids: &[SampleId]) {
        let Judge { table, guide, bound, labels, .. } = self.judge;
        self.similarity.push(table.mean_similarity(ids));
        self.same_label += labels.map_or(0.0, |labels| labels.shared(ids));
        self.pairs.add(table, guide, bound, ids);
    }

    /// Draws so many mini-batches, of several epochs if one has fewer.
    pub fn draw(&mut self, graph: &ProximityGraph, guards: &Guards, walk: &WalkConfig, seed: u64, mini_batches: usize) {
        let all = Left::beginning(self.judge.table.len(), self.judge.in_epochs.to_vec());
        let wanted = self.similarity.len() + mini_batches;
        for epoch in 0.. {
            let before = self.similarity.len();
            let mut sampler = EpochSampler::from_left(&all, walk, seed, epoch);
            while self.similarity.len() < wanted
                && let Some(draw) = sampler.next_guarded(graph, guards)
            {
                self.add(&draw.ids);
            }
            if self.similarity.len() >= wanted || self.similarity.len() == before {
                break;
            }
        }
    }

    /// What was collected, under the name of its sampler.
    pub fn finish(self, sampler: &str) -> (Hardness, PairCounts) {
        let mini_batches = self.similarity.len().max(1) as f64;
        let mut pairs = self.pairs;
        let hardness = Hardness {
            sampler: sampler.to_owned(),
            mean_similarity: self.similarity.iter().map(|&s| f64::from(s)).sum::<f64>() / mini_batches,
            similarity: self.similarity,
            pairs: Distribution::of(std::mem::take(&mut pairs.some)),
            likely_false: pairs.share_above(),
            near_copies: pairs.share_of_copies(),
            same_label: self.judge.labels.map(|_| self.same_label / mini_batches),
        };
        (hardness, pairs)
    }
}

/// The number of bins of a distribution.
const BINS: usize = 60;
