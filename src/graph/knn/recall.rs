//! Recall probes: the exact nearest of a few samples, which a graph is measured by.

use std::ops::Range;

use rand::seq::index;
use rayon::prelude::*;

use super::clusters::Clustering;
use super::product::Product;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::{Format, Kernel};
use crate::graph::params::{generator, with_margin};
use crate::graph::topk::lists::Lists;
use crate::graph::topk::rank::best_first;
use crate::sample::SampleId;

/// Estimates the recall of a kNN graph: the share of exact nearest neighbors that it has, 0 to 1.
///
/// It compares `rows` samples, drawn from `seed`, and costs `rows` N d multiplications. With 256 rows of 16 neighbors
/// the standard error is below 0.01. Runs on the current rayon pool.
///
/// # Panics
/// Panics if the graph has more samples than there are embeddings.
#[must_use]
pub fn recall(graph: &ProximityGraph, table: &EmbeddingTable, rows: usize, seed: u64) -> f64 {
    assert!(graph.len() <= table.len(), "each sample of a graph has an embedding");
    let exactly = Clustering { table, kernel: Kernel::new(Format::F32), seed, version: graph.version() };
    RecallProbe::of(rows, exactly, 0..graph.len(), graph.degree()).recall(graph)
}

/// A few samples and their nearest neighbors, as the kernel finds them, to measure graphs by.
pub(in crate::graph) struct RecallProbe {
    rows: Vec<u32>,
    nearest: Vec<Vec<SampleId>>,
}

impl RecallProbe {
    /// Finds the `k` nearest of [`PROBE_ROWS`] samples with ids in `among`, of which at least one was not skipped.
    pub fn new(clustering: Clustering<'_>, among: Range<usize>, k: usize) -> Self {
        Self::of(PROBE_ROWS, clustering, among, k)
    }

    /// The same for `rows` samples.
    fn of(rows: usize, clustering: Clustering<'_>, among: Range<usize>, k: usize) -> Self {
        let Clustering { table, kernel, seed, version } = clustering;
        let mut generator = generator(seed, version, u64::MAX - 1);
        let present: Vec<u32> = table.present_ids().into_iter().filter(|&id| among.contains(&(id as usize))).collect();
        let drawn = index::sample(&mut generator, present.len(), rows.min(present.len()));
        let rows: Vec<u32> = drawn.iter().map(|index| present[index]).collect();
        let nearest = nearest(table, kernel, &rows, k);
        Self { rows, nearest }
    }

    /// The share of the nearest neighbors that a graph has.
    pub fn recall(&self, graph: &ProximityGraph) -> f64 {
        self.recall_with_reserve(graph, 0)
    }

    /// The same if the first `reserved` ids of each sample's reserve count as well.
    pub fn recall_with_reserve(&self, graph: &ProximityGraph, reserved: usize) -> f64 {
        self.share(|row, nearest| {
            let (neighbors, next) = (graph.neighbors(SampleId(row)), graph.reserve(SampleId(row)));
            let next = &next[..next.len().min(reserved)];
            nearest.iter().filter(|id| neighbors.contains(id) || next.contains(id)).count()
        })
    }

    /// The share of the nearest neighbors that `found(row, nearest)` counts.
    pub fn share(&self, found: impl Fn(u32, &[SampleId]) -> usize) -> f64 {
        let found: usize = self.rows.iter().zip(&self.nearest).map(|(&row, nearest)| found(row, nearest)).sum();
        let all: usize = self.nearest.iter().map(Vec::len).sum();
        found as f64 / all.max(1) as f64
    }

    /// The pairs of a row and a nearest neighbor that `known` does not have, and the number of other pairs.
    pub fn missing(&self, known: impl Fn(u32) -> Vec<SampleId>) -> (Vec<(u32, u32)>, usize) {
        let mut missing = Vec::new();
        for (&row, nearest) in self.rows.iter().zip(&self.nearest) {
            let known = known(row);
            missing.extend(nearest.iter().filter(|id| !known.contains(id)).map(|id| (row, id.0)));
        }
        let all: usize = self.nearest.iter().map(Vec::len).sum();
        let found = all - missing.len();
        (missing, found)
    }
}

/// The exact `k` nearest others of these samples, most similar first; fewer if there are not so many.
///
/// Costs `rows` × N × d multiplications, on the current rayon pool.
pub(crate) fn nearest_others(table: &EmbeddingTable, rows: &[u32], k: usize) -> Vec<Vec<SampleId>> {
    nearest(table, Kernel::new(Format::F32), rows, k)
}

/// The `k` nearest others of these samples, as the kernel finds them, ordered by their similarities.
pub(in crate::graph) fn nearest(table: &EmbeddingTable, kernel: Kernel, rows: &[u32], k: usize) -> Vec<Vec<SampleId>> {
    let mut lists = Lists::new(rows.len(), if kernel.is_exact() { k } else { with_margin(k) });
    let stripes = lists.stripes();
    let present = table.present_ids();
    present.par_chunks(COLUMNS_AT_ONCE).for_each_init(
        || Product::new(kernel),
        |product, ids| {
            product.pack_rows(table, rows);
            product.pack_columns(table, ids);
            let row_thresholds = (0..rows.len()).map(|row| stripes.threshold(row as u32));
            let column_thresholds = ids.iter().map(|_| f32::INFINITY);
            product.run(row_thresholds, column_thresholds, false, |thresholds, _, r, c, score| {
                if ids[c] != rows[r] {
                    thresholds.rows[r] = stripes.offer(r as u32, score, ids[c]);
                }
            });
        },
    );
    drop(stripes);
    let by_similarity = |(list, &row): (usize, &u32)| {
        let found = lists.best_of(list as u32, lists.length());
        let mut similarities = Vec::new();
        table.similarities_with(&table.get(SampleId(row)), &found, &mut similarities);
        let k = k.min(found.len());
        let (mut nearest, mut scores) = (vec![SampleId(row); k], vec![0.0; k]);
        best_first(&similarities, &found, &mut scores, &mut nearest);
        nearest
    };
    rows.par_iter().enumerate().map(by_similarity).collect()
}

/// How many samples a probe has: enough for the recall of what is built by it to be right within a hundredth.
const PROBE_ROWS: usize = 512;

/// How many samples a thread packs as columns at a time.
const COLUMNS_AT_ONCE: usize = 2048;
