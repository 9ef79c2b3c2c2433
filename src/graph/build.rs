//! Builds the graph that the settings ask for.

use super::device::{self, Device};
#[cfg(feature = "cli")]
use super::kernel::{Format, Kernel};
use super::knn::{self, refine};
use super::params::Size;
use super::{ProximityGraph, hnsw, sampled};
use crate::config::{GraphBuilder, GraphConfig};
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::sample::GraphVersion;
use crate::telemetry;

/// Builds the graph that `config` asks for.
///
/// [`GraphBuilder::Sampled`], the default, is the paper's: each sample's K most similar of M uniform others, without
/// itself and without duplicates, for N M d multiplications. M ≥ N − 1 asks for the kNN graph, which the other builders
/// make too: [`GraphBuilder::Exact`] makes it up to 50,000 samples, [`GraphBuilder::NnDescent`] beyond. K ≥ N gives all
/// others.
///
/// Memory beside embeddings and graph is at most a tenth of theirs for `Sampled` (or 64 MB, if that is more), K + 136
/// bytes a sample for `Exact`, and K + 220 for `NnDescent`, of which 56 or K / 2 + 16 stay as the graph's reserve; and
/// a few MB for each thread. It runs on the current rayon pool. Except with [`GraphBuilder::Hnsw`], the graph does not
/// depend on the number of threads.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if K = 0 or K > M, as [`Pipeline`](crate::Pipeline) gives it;
/// [`TooFewError::Samples`](crate::error::TooFewError::Samples) if fewer than two samples have embeddings.
pub fn build(table: &EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> Result<ProximityGraph> {
    let present = table.present();
    let size = Size::new(present, config)?;
    let _span = telemetry::graph(present, size.candidates, size.neighbors, version).entered();
    Ok(match config.builder {
        GraphBuilder::Sampled if size.candidates < present - 1 => sampled::build(table, config, size, seed, version),
        GraphBuilder::Sampled if present > MAX_EXACT_SAMPLES => {
            telemetry::nearly_exact(present);
            knn::descent::build(table, config, size, seed, version)
        }
        GraphBuilder::Sampled | GraphBuilder::Exact => knn::all_pairs::build(table, config.precision, size, version),
        GraphBuilder::NnDescent => knn::descent::build(table, config, size, seed, version),
        GraphBuilder::Hnsw => hnsw::build(table, size.neighbors, seed, version),
    })
}

/// Builds the graph that `config` asks for on a device, from the same candidates as [`build`](build()).
///
/// Neighbors whose similarities differ by less than the rounding of f32 may change places; all else is the same. Only
/// the graph of the paper and that of all pairs are built on the device, others by the processor: those of other
/// builders, and `sampled` over more samples than all pairs are scored of.
///
/// Beside embeddings and graph it needs some hundred MB of this machine's memory for results. On the device it needs
/// 0.5 GB and a copy of the embeddings, or of a part of them if they do not fit.
///
/// # Errors
/// Those of the device, and those of [`build`](build()).
pub fn build_on(
    device: &dyn Device,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Result<ProximityGraph> {
    if !is_for_device(table, config) {
        return build(table, config, seed, version);
    }
    let present = table.present();
    let size = Size::new(present, config)?;
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

/// Whether the kNN graph is asked for, over so many samples that not all pairs are scored.
fn is_nearly_exact(table: &EmbeddingTable, config: &GraphConfig) -> bool {
    match config.builder {
        GraphBuilder::NnDescent => true,
        GraphBuilder::Sampled => table.present() > MAX_EXACT_SAMPLES && takes_all(config, table.present()),
        GraphBuilder::Exact | GraphBuilder::Hnsw => false,
    }
}

/// Whether the candidates of a sample are all others.
pub(super) fn takes_all(config: &GraphConfig, samples: usize) -> bool {
    config.size(samples).candidates >= samples.saturating_sub(1)
}

/// Returns the name of the kernel that scores the candidates of a graph on the processor; `None` if the builder has
/// none of its own.
#[cfg(feature = "cli")]
pub(crate) fn kernel_name(config: &GraphConfig, samples: usize, dimension: usize) -> Option<String> {
    let size = config.size(samples);
    let others = samples.saturating_sub(1);
    let is_descent = match config.builder {
        GraphBuilder::Hnsw => return None,
        GraphBuilder::NnDescent => true,
        GraphBuilder::Sampled => samples > MAX_EXACT_SAMPLES && takes_all(config, samples),
        GraphBuilder::Exact => false,
    };
    let (neighbors, candidates) = match config.builder {
        // Its clusters look for one nearest center.
        _ if is_descent => (1, usize::MAX),
        GraphBuilder::Exact => (size.neighbors, others),
        _ => (size.neighbors, size.candidates.min(others)),
    };
    Some(Kernel::choose(config.precision, dimension, neighbors, candidates).name())
}

/// Returns the names of the fastest kernels of this processor, one for each precision.
#[cfg(feature = "cli")]
pub(crate) fn kernel_names() -> [String; 3] {
    [Format::F32, Format::Bf16, Format::I8].map(|format| Kernel::new(format).name())
}

/// Builds the graph of a refresh, over new embeddings of the samples of `old` and of any that were added behind them.
///
/// If `config` asks for the kNN graph of so many samples that [`build`](build()) would not score all pairs, `old` is
/// [refined](refine()); otherwise the graph is built anew.
///
/// # Errors
/// Those of [`build`](build()).
///
/// # Panics
/// Panics if the old graph has more samples than there are embeddings, and it is refined.
pub fn renew(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Result<ProximityGraph> {
    if !is_nearly_exact(table, config) {
        return build(table, config, seed, version);
    }
    let refined = refine(old, table, config, seed, version)?;
    telemetry::refined(refined.kept, refined.recall);
    Ok(refined.graph)
}

/// How many samples all pairs are scored of at most. Beyond, NN-descent takes much less time, see docs/graph.md.
const MAX_EXACT_SAMPLES: usize = 50_000;
