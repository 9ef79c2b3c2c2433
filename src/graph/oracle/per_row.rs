use rand::seq::index;
use rayon::prelude::*;

use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph::ProximityGraph;
use crate::graph::params::{Size, generator};
use crate::graph::proximity_graph::collect;
use crate::graph::topk::buffer::TopK;
use crate::sample::{GraphVersion, SampleId};

/// Builds the paper's graph with candidates drawn for each sample on its own.
///
/// It is the oracle of the fast path, and much slower than [`build`](crate::graph::build()), since every candidate is a
/// cache miss. Runs on the current rayon pool.
///
/// # Errors
/// Those of [`build`](crate::graph::build()).
pub fn build_per_row(
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Result<ProximityGraph> {
    let size = Size::new(table.present(), config)?;
    let present = table.present_ids();
    let row = |row: usize| {
        let mut generator = generator(seed, version, row as u64);
        let Ok(own) = present.binary_search(&(row as u32)) else { return Vec::new() };
        // The N − 1 others are numbered without the row itself.
        let others = index::sample(&mut generator, present.len() - 1, size.candidates);
        let ids = others.iter().map(|other| present[other + usize::from(other >= own)] as usize);
        best_of(table, SampleId::new(row), ids, size.neighbors)
    };
    Ok(collect((0..table.len()).into_par_iter().map(row), size.neighbors, version))
}

/// The `k` candidates that are most similar to `id`, most similar first.
pub(in crate::graph) fn best_of(
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
