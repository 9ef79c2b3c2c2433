//! Which graph the settings ask for, and who builds it.

use super::device::{self, Device};
use super::knn::{self, refine};
use super::params::Size;
use super::{ProximityGraph, hnsw, sampled};
use crate::config::{GraphBuilder, GraphConfig};
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::sample::GraphVersion;
use crate::telemetry;

/// The graph that `config` asks for.
///
/// [`GraphBuilder::Sampled`], the default, is the paper's: each sample's K most similar of M uniform others, without
/// itself and without duplicates, for N M d multiplications. M ≥ N − 1 asks for the kNN graph, which the other builders
/// make too; up to 50,000 samples it is made by [`GraphBuilder::Exact`], beyond by [`GraphBuilder::NnDescent`]. K ≥ N
/// gives all others.
///
/// Memory beside embeddings and graph: `Sampled` needs at most a tenth of these (or 64 MB, where that is more), `Exact`
/// K + 136 bytes a sample, `NnDescent` K + 220, of which 56 bytes or K / 2 + 16 stay as spares, and a few MB a thread
/// each. Runs on the current rayon pool; except with [`GraphBuilder::Hnsw`], the graph does not depend on the number of
/// threads.
///
/// # Panics
/// For fewer than two samples that were not skipped, K = 0 or K > M: [`PipelineConfig`](crate::config::PipelineConfig) and
/// [`Pipeline`](crate::Pipeline) refuse these with an error.
#[must_use]
pub fn build(table: &EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> ProximityGraph {
    let (present, size) = (table.present(), Size::new(table.present(), config));
    let _span = telemetry::graph(present, size.candidates, size.neighbors, version).entered();
    match config.builder {
        GraphBuilder::Sampled if size.candidates < present - 1 => sampled::build(table, config, size, seed, version),
        GraphBuilder::Sampled if present > EXACT_UP_TO => {
            telemetry::nearly_exact(present);
            knn::descent::build(table, config, size, seed, version)
        }
        GraphBuilder::Sampled | GraphBuilder::Exact => knn::all_pairs::build(table, config.precision, size, version),
        GraphBuilder::NnDescent => knn::descent::build(table, config, size, seed, version),
        GraphBuilder::Hnsw => hnsw::build(table, config, seed, version),
    }
}

/// [`build`](build()) on another device: the graphs of the paper and of all pairs, from the same candidates. Neighbors
/// whose similarities differ by less than the rounding of f32 may change places; all else is the same.
///
/// Beside embeddings and graph it needs some hundred MB of this machine's memory for results on their way, and on the
/// device a copy of the embeddings, or of a part of them where they do not fit there, and 0.5 GB.
///
/// # Errors
/// Those of the device. For what it does not serve there are none, the processor builds it: other builders than
/// `sampled` and `exact`, and `sampled` over more samples than it scores all pairs of.
///
/// # Panics
/// As [`build`](build()).
pub fn build_on(
    device: &dyn Device,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Result<ProximityGraph> {
    if !is_for_device(table, config) {
        return Ok(build(table, config, seed, version));
    }
    let (present, size) = (table.present(), Size::new(table.present(), config));
    let _span = telemetry::graph(present, size.candidates, size.neighbors, version).entered();
    let is_exact = config.builder == GraphBuilder::Exact || size.candidates >= present - 1;
    device::build::build(device, table, config, size, is_exact, seed, version)
}

/// Whether a device can build the graph that `config` asks for.
pub(super) fn is_for_device(table: &EmbeddingTable, config: &GraphConfig) -> bool {
    match config.builder {
        GraphBuilder::Sampled => !is_nearly_exact(table, config),
        GraphBuilder::Exact => true,
        GraphBuilder::NnDescent | GraphBuilder::Hnsw => false,
    }
}

/// Whether the kNN graph is asked for, of so many samples that not all pairs are scored.
fn is_nearly_exact(table: &EmbeddingTable, config: &GraphConfig) -> bool {
    match config.builder {
        GraphBuilder::NnDescent => true,
        GraphBuilder::Sampled => config.candidates >= table.present() - 1 && table.present() > EXACT_UP_TO,
        GraphBuilder::Exact | GraphBuilder::Hnsw => false,
    }
}

/// The graph for a refresh: over new embeddings of the samples of `old`, and of any that have come behind them.
///
/// Where `config` asks for the kNN graph of so many samples that [`build`](build()) would not score all pairs, `old` is
/// [refined](refine()); else the graph is built anew.
///
/// # Panics
/// As [`build`](build()) and [`refine`](refine()).
#[must_use]
pub fn renew(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> ProximityGraph {
    if !is_nearly_exact(table, config) {
        return build(table, config, seed, version);
    }
    let refined = refine(old, table, config, seed, version);
    telemetry::refined(refined.kept, refined.recall);
    refined.graph
}

/// NN-descent takes as long as all pairs at 10,000 to 25,000 samples, for d = 128 and 384 and K = 16; here it takes a third
/// as long, 0.7 s instead of 1.8 s for d = 384 (AVX-512, two threads), and what it saves begins to be worth more than
/// the last two of 100 neighbors.
const EXACT_UP_TO: usize = 50_000;
