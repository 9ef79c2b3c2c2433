//! What the pairs of mini-batches are like.

use rayon::prelude::*;

use super::bound::Bound;
use crate::embeddings::{COPY, EmbeddingTable};
use crate::sample::SampleId;

/// Counts over pairs of a sample and one of its in-batch negatives.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairCounts {
    /// Pairs that were looked at: all of a mini-batch, or those of `ANCHORS` of its samples.
    pub pairs: u64,
    /// Those above the [`Bound`], which are likely false negatives.
    pub above: u64,
    /// Those of a similarity of 0.999 and more.
    pub copies: u64,
    /// The similarities of a few pairs of each mini-batch, for their distribution.
    pub some: Vec<f32>,
    /// The most similar pairs, most similar first, each once and at most [`WORST`] of them.
    pub worst: Vec<(f32, SampleId, SampleId)>,
}

impl PairCounts {
    /// Adds the pairs of a mini-batch: their similarities by `table`, and whether they are above the bound by `guide`.
    pub fn add(&mut self, table: &EmbeddingTable, guide: &EmbeddingTable, bound: Bound, ids: &[SampleId]) {
        let step = ids.len().div_ceil(ANCHORS).max(1);
        let anchors: Vec<usize> = (0..ids.len()).step_by(step).collect();
        let similarities = |table: &EmbeddingTable, at: usize| {
            let mut similarities = Vec::new();
            table.similarities_with(&table.get(ids[at]), ids, &mut similarities);
            similarities
        };
        let of_anchor = |&at: &usize| {
            let row = similarities(table, at);
            let least = bound.at(guide, ids[at]);
            let is_above = |(other, &similarity): (usize, &f32)| other != at && similarity > least;
            let count = |row: &[f32]| row.iter().enumerate().filter(|&pair| is_above(pair)).count() as u64;
            let above = if std::ptr::eq(table, guide) { count(&row) } else { count(&similarities(guide, at)) };
            (row, above)
        };
        let rows: Vec<(Vec<f32>, u64)> = anchors.par_iter().map(of_anchor).collect();
        let shown = SHOWN_PAIRS.div_ceil(anchors.len().max(1));
        for (&at, (row, above)) in anchors.iter().zip(&rows) {
            self.above += above;
            let others = row.iter().enumerate().filter(|&(other, _)| other != at);
            for (other, &similarity) in others.clone() {
                self.pairs += 1;
                self.copies += u64::from(similarity >= COPY);
                self.offer(similarity, ids[at], ids[other]);
            }
            // Any stretch of a mini-batch is as good as another one.
            self.some.extend(others.map(|(_, &similarity)| similarity).cycle().skip(at).take(shown.min(row.len())));
        }
    }

    /// The share of pairs above the bound, 0 to 1.
    pub fn share_above(&self) -> f64 {
        share(self.above, self.pairs)
    }

    /// The share of near copies, 0 to 1.
    pub fn share_of_copies(&self) -> f64 {
        share(self.copies, self.pairs)
    }

    /// Keeps a pair if it is among the most similar ones.
    fn offer(&mut self, similarity: f32, a: SampleId, b: SampleId) {
        let is_full = self.worst.len() == WORST;
        if is_full && self.worst.last().is_some_and(|least| least.0 >= similarity) {
            return;
        }
        let (a, b) = (a.min(b), a.max(b));
        if self.worst.iter().any(|&(_, first, second)| (first, second) == (a, b)) {
            return;
        }
        let at = self.worst.partition_point(|known| known.0 >= similarity);
        self.worst.insert(at, (similarity, a, b));
        self.worst.truncate(WORST);
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// How many samples of a mini-batch are compared with all others.
const ANCHORS: usize = 256;

/// How many pairs of a mini-batch are kept for the distribution, about.
const SHOWN_PAIRS: usize = 256;

/// How many of the most similar pairs are kept.
const WORST: usize = 24;
