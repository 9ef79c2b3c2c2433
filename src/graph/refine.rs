use rayon::prelude::*;

use super::descent::{self, Descent};
use super::lists::{EMPTY, Lists};
use super::recall::Gauge;
use super::{ProximityGraph, Size};
use crate::config::{GraphBuilder, GraphConfig};
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;
use crate::telemetry;

/// What became of a graph over new embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Refined {
    /// The kNN graph over them, nearly exact.
    pub graph: ProximityGraph,
    /// The share of exact neighbors that the old graph still had, 0 to 1, by a sample of 192 rows.
    pub kept: f64,
    /// The same of the new graph, by the same rows.
    pub recall: f64,
    /// Whether too few were kept, or other samples were skipped, and the graph was built anew.
    pub rebuilt: bool,
}

/// Carries a kNN graph over to new embeddings of the same samples, and of samples that have come since, which stand
/// behind them: the limit M → N of the paper's graph, for less than building it.
///
/// First the old neighbors and spares of each sample are scored anew; while embeddings drift little, the new neighbors
/// are nearly all among them. Where a gauge says otherwise, likely ones are looked at: each sample, its old neighbors and
/// those that it was one of among themselves, and a few random groups of near samples; there samples that have come
/// find their place, too. Where the old graph kept fewer than two thirds of the neighbors, that would not pay: the graph
/// is built by NN-descent from nothing, which telemetry says. Of `config`, K and the precision count. The graph does not
/// depend on the number of threads, and needs the memory that [`build`](super::build()) does.
///
/// Measured (d = 384, K = 16, AVX-512, two threads, gauges included): of N = 100,000, where all pairs take 5.9 s, with
/// 95 % kept 0.37 s to a recall of 1.000, with 86 % 0.36 s to 0.987, with 68 % 1.9 s to 0.978. Of N = 1,000,000 with
/// d = 128, where all pairs take 207 s, with 95 % kept 3.2 s to 1.000, with 85 % 3.0 s to 0.994.
///
/// Not for moderate M: there the paper's candidates must be drawn anew, or each refresh would raise M; that is what
/// [`build`](super::build()) does at less cost.
///
/// # Panics
/// As [`build`](super::build()), and where the old graph has more samples than there are embeddings.
#[must_use]
pub fn refine(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Refined {
    assert!(old.len() <= table.len(), "samples may come, not go");
    let size = Size::new(table.present(), config);
    let _span = telemetry::graph(table.present(), table.present() - 1, size.neighbors, version).entered();
    let gauge = Gauge::new(table, old.len(), size.neighbors, ROWS, seed, version);
    let kept = gauge.recall(old);
    let mut ids = (0..old.len()).map(SampleId::new);
    if ids.any(|id| old.is_skipped(id) != table.is_skipped(id)) {
        return rebuild(&gauge, kept, table, config, seed, version);
    }
    let mut near = old.clone();
    let knows_more = old.len() == table.len() && old.degree() >= size.neighbors && !old.spares(SampleId(0)).is_empty();
    if knows_more && kept >= MAY_SUFFICE {
        near = score_again(old, table, config, size, seed, version);
        let recall = gauge.recall(&near);
        if recall >= SUFFICES {
            return Refined { graph: near, kept, recall, rebuilt: false };
        }
    }
    if kept < PAYS {
        return rebuild(&gauge, kept, table, config, seed, version);
    }
    let mut descent = Descent::new(table, config.precision, size);
    // The more has changed, the more is looked at.
    descent.join_groups(1 + ((1.0 - kept) * GROUPS_PER_SHARE) as usize, seed, version);
    descent.join_old(&near);
    let graph = descent.into_graph(version);
    let recall = gauge.recall(&graph);
    Refined { graph, kept, recall, rebuilt: false }
}

/// Old neighbors and spares by what they score now.
fn score_again(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    config: &GraphConfig,
    size: Size,
    seed: u64,
    version: GraphVersion,
) -> ProximityGraph {
    let length = old.degree() + old.spares(SampleId(0)).len();
    let mut lists = Lists::new(table.len(), length);
    let order = descent::order(table, config.precision, seed, version);
    let stripes = lists.stripes();
    order.par_iter().with_min_len(TURN).for_each_init(
        || (Vec::new(), Vec::new()),
        |(ids, scores), &sample| {
            let spares = old.spares(SampleId(sample)).iter().map(|id| SampleId(*id)).filter(|id| *id != EMPTY);
            ids.clear();
            ids.extend(old.neighbors(SampleId(sample)).iter().copied().chain(spares));
            scores.clear();
            table.similarities_with(&table.get(SampleId(sample)), ids, scores);
            stripes.with(sample, |mut list| list.replace(scores.iter().copied().zip(ids.iter().map(|id| id.0))));
        },
    );
    drop(stripes);
    lists.into_graph(size.neighbors, version)
}

fn rebuild(
    gauge: &Gauge,
    kept: f64,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Refined {
    telemetry::rebuilt(kept);
    let config = GraphConfig { builder: GraphBuilder::NnDescent, ..config.clone() };
    let graph = super::build(table, &config, seed, version);
    let recall = gauge.recall(&graph);
    Refined { graph, kept, recall, rebuilt: true }
}

/// Rows of the gauge.
const ROWS: usize = 192;

/// Samples that a thread takes at a time.
const TURN: usize = 64;

/// The recall at which the old neighbors and spares are enough.
const SUFFICES: f64 = 0.98;

/// The share of kept neighbors from which that may happen.
const MAY_SUFFICE: f64 = 0.8;

/// Below this share of kept neighbors, building costs no more.
const PAYS: f64 = 0.65;

/// Groups that each sample joins for all its neighbors changed.
const GROUPS_PER_SHARE: f64 = 6.0;
