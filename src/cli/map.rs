//! A map of embeddings in two dimensions, by UMAP.

use ndarray::Array2;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use umap_rs::{GraphParams, Umap, UmapConfig};

use crate::config::{Candidates, GraphConfig};
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph;
use crate::sample::{GraphVersion, SampleId};

/// Where each sample is on the map, near those that are similar to it; skipped samples are at 0, 0.
///
/// Builds the graph of 15 nearest neighbors. The optimizer runs on all threads without locks, so two maps of the same
/// embeddings are alike, not the same.
///
/// # Errors
/// Those of the graph, for fewer than two embeddings.
pub(super) fn positions(table: &EmbeddingTable, seed: u64) -> Result<Vec<[f32; 2]>> {
    let present = table.present_ids();
    let neighbors = NEIGHBORS.min(present.len().saturating_sub(1)).max(1);
    let config = GraphConfig {
        candidates: Candidates::Share(1.0),
        neighbors: Some(neighbors),
        similarity: table.similarity(),
        ..GraphConfig::default()
    };
    let graph = graph::build(table, &config, seed, GraphVersion(1))?;
    let mut row_of = vec![0u32; table.len()];
    for (row, &id) in present.iter().enumerate() {
        row_of[id as usize] = row as u32;
    }
    // UMAP counts a sample as the first of its own neighbors.
    let shape = (present.len(), neighbors + 1);
    let mut rows = Array2::<u32>::zeros(shape);
    let mut distances = Array2::<f32>::zeros(shape);
    for (row, &id) in present.iter().enumerate() {
        rows[(row, 0)] = row as u32;
        let near = graph.neighbors(SampleId(id)).iter().zip(graph.similarities(SampleId(id)));
        for (place, (to, similarity)) in near.enumerate() {
            rows[(row, place + 1)] = row_of[to.index()];
            distances[(row, place + 1)] = (1.0 - similarity).max(0.0);
        }
    }
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let start = Array2::from_shape_fn((present.len(), 2), |_| generator.random_range(-10.0..10.0f32));
    let graph = GraphParams { n_neighbors: neighbors + 1, ..GraphParams::default() };
    let umap = Umap::new(UmapConfig { graph, ..UmapConfig::default() });
    // Only the number of rows counts here, since the neighbors are known.
    let data = Array2::<f32>::zeros((present.len(), 1));
    let map = umap.fit(data.view(), rows.view(), distances.view(), start.view()).into_embedding();
    let mut positions = vec![[0.0; 2]; table.len()];
    for (row, &id) in present.iter().enumerate() {
        positions[id as usize] = [map[(row, 0)], map[(row, 1)]];
    }
    Ok(positions)
}

/// UMAP's usual number of neighbors, without the sample itself.
const NEIGHBORS: usize = 14;
