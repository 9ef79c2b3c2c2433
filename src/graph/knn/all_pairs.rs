//! The exact kNN graph, through the kernels: each pair of samples is scored once, for both.

use rayon::prelude::*;

use super::product::Product;
use crate::config::Precision;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::Kernel;
use crate::graph::params::{Size, with_margin};
use crate::graph::topk::lists::{Lists, with_reserve};
use crate::sample::GraphVersion;

/// Builds the graph of each sample's K most similar of all others.
///
/// Costs N² d / 2 multiplications, and a few MB a thread beside the lists.
pub(in crate::graph) fn build(
    table: &EmbeddingTable,
    precision: Precision,
    size: Size,
    version: GraphVersion,
) -> ProximityGraph {
    let ids = table.present_ids();
    let samples = ids.len();
    let kernel = Kernel::choose(precision, table.dimension(), size.neighbors, samples - 1);
    let mut lists = Lists::new(table.len(), with_reserve(size.neighbors).min(samples - 1));
    let stripes = lists.stripes();
    // Large enough that packing a chunk takes little beside multiplying it; small enough for all threads to have work.
    let chunk_len = (samples / (16 * rayon::current_num_threads())).clamp(MIN_CHUNK_SAMPLES, MAX_CHUNK_SAMPLES);
    let chunks: Vec<Vec<u32>> = ids.chunks(chunk_len).map(<[_]>::to_vec).collect();
    // Chunks with themselves come first, as that collects its offers: all lists are full then, and take little more.
    chunks
        .par_iter()
        .for_each_init(|| Product::new(kernel), |product, chunk| product.join_within(table, chunk, &stripes));
    let pairs: Vec<_> = (0..chunks.len()).flat_map(|i| (i + 1..chunks.len()).map(move |j| (i, j))).collect();
    pairs.into_par_iter().for_each_init(
        || Product::new(kernel),
        |product, (i, j)| {
            let (rows, columns) = (&chunks[i], &chunks[j]);
            product.pack_rows(table, rows);
            product.pack_columns(table, columns);
            product.join_across(rows, columns, &stripes);
        },
    );
    drop(stripes);
    if !kernel.is_exact() {
        lists.score_again(table, &chunks.concat(), with_margin(size.neighbors));
    }
    lists.into_graph(size.neighbors, version)
}

/// The bounds of the number of samples in a chunk.
const MIN_CHUNK_SAMPLES: usize = 512;
const MAX_CHUNK_SAMPLES: usize = 2048;
