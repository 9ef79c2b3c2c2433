use rand::seq::index;
use rayon::prelude::*;

use super::top_k::TopK;
use super::{ProximityGraph, Size, generator};
use crate::config::GraphConfig;
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;

/// The paper's graph, candidates drawn for each sample on its own: the reference that the fast path is measured by.
///
/// Some twenty times slower than [`build`](super::build()), since every candidate is a cache miss. Runs on the current
/// rayon pool.
///
/// # Panics
/// As [`build`](super::build()).
#[must_use]
pub fn build_per_row(table: &EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> ProximityGraph {
    let size = Size::new(table.present(), config);
    let present = table.present_ids();
    let row = |row: usize| {
        let mut generator = generator(seed, version, row as u64);
        let Ok(place) = present.binary_search(&(row as u32)) else { return Vec::new() };
        // Among the N − 1 others: from the row's own place on, each stands for the next.
        let others = index::sample(&mut generator, present.len() - 1, size.candidates);
        let ids = others.iter().map(|other| present[other + usize::from(other >= place)] as usize);
        best_of(table, SampleId::new(row), ids, size.neighbors)
    };
    collect((0..table.len()).into_par_iter().map(row), size.neighbors, version)
}

/// The K most similar to `id` among `candidates`.
pub(super) fn best_of(
    table: &EmbeddingTable,
    id: SampleId,
    candidates: impl Iterator<Item = usize>,
    k: usize,
) -> Vec<(SampleId, f32)> {
    let mut best = TopK::new(k);
    for candidate in candidates.map(SampleId::new) {
        let similarity = table.similarity_of(id, candidate);
        if similarity >= best.threshold() {
            best.push(similarity, candidate.0);
        }
    }
    best.drain_sorted().map(|(similarity, id)| (SampleId(id), similarity)).collect()
}

/// Rows in their order to flat arrays.
pub(super) fn collect(
    rows: impl IndexedParallelIterator<Item = Vec<(SampleId, f32)>>,
    degree: usize,
    version: GraphVersion,
) -> ProximityGraph {
    let (mut neighbors, mut similarities) = (Vec::new(), Vec::new());
    for (id, mut row) in rows.collect::<Vec<_>>().into_iter().enumerate() {
        if row.is_empty() {
            // Skipped.
            row.resize(degree, (SampleId::new(id), 0.0));
        }
        neighbors.extend(row.iter().map(|(id, _)| *id));
        similarities.extend(row.iter().map(|(_, similarity)| *similarity));
    }
    ProximityGraph::from_parts(neighbors, similarities, degree, version)
}
