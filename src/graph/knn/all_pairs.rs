//! The exact kNN graph through the same kernels: each pair of samples is scored once, for both.

use rayon::prelude::*;

use super::product::Product;
use crate::config::Precision;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::Kernel;
use crate::graph::params::Size;
use crate::graph::params::with_margin;
use crate::graph::topk::lists::{Lists, with_reserve};
use crate::sample::GraphVersion;

/// Each sample's K most similar of all others. Costs N² d / 2 multiplications; a few MB a thread beside the lists.
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
    // Large enough that packing a part is little beside multiplying it; small enough for all threads to have work.
    let part = (samples / (16 * rayon::current_num_threads())).clamp(MIN_PART, MAX_PART);
    let parts: Vec<Vec<u32>> = ids.chunks(part).map(<[_]>::to_vec).collect();
    // First, as it collects what it offers: then all lists are full, and take little more.
    parts.par_iter().for_each_init(|| Product::new(kernel), |product, part| product.join_within(table, part, &stripes));
    let pairs: Vec<_> = (0..parts.len()).flat_map(|i| (i + 1..parts.len()).map(move |j| (i, j))).collect();
    pairs.into_par_iter().for_each_init(
        || Product::new(kernel),
        |product, (i, j)| {
            let (rows, columns) = (&parts[i], &parts[j]);
            product.pack_rows(table, rows);
            product.pack_columns(table, columns);
            product.join_across(rows, columns, &stripes);
        },
    );
    drop(stripes);
    if !kernel.is_exact() {
        lists.score_again(table, &parts.concat(), with_margin(size.neighbors));
    }
    lists.into_graph(size.neighbors, version)
}

const MIN_PART: usize = 512;
const MAX_PART: usize = 2048;
