use rayon::prelude::*;

use super::per_row::best_of;
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph::ProximityGraph;
use crate::graph::params::Size;
use crate::graph::proximity_graph::collect;
use crate::sample::{GraphVersion, SampleId};

/// Builds the exact kNN graph by brute force: all N (N − 1) similarities, one by one.
///
/// It is meant for tests and small data. [`build`](crate::graph::build()) with M ≥ N − 1 gives the same neighbors
/// several times as fast, up to the rounding of similarities. Runs on the current rayon pool.
///
/// # Errors
/// Those of [`build`](crate::graph::build()).
pub fn exact(table: &EmbeddingTable, neighbors: usize, version: GraphVersion) -> Result<ProximityGraph> {
    let candidates = neighbors.max(table.len()).into();
    let config = GraphConfig { candidates, neighbors: Some(neighbors), ..GraphConfig::default() };
    let size = Size::new(table.present(), &config)?;
    let row = |row: usize| {
        let is_skipped = |row: usize| table.is_skipped(SampleId::new(row));
        let others = (0..table.len()).filter(|&other| other != row && !is_skipped(other) && !is_skipped(row));
        best_of(table, SampleId::new(row), others, size.neighbors)
    };
    Ok(collect((0..table.len()).into_par_iter().map(row), size.neighbors, version))
}
