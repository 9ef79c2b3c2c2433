use super::clusters::Clustering;
use super::descent::{self, Descent};
use super::recall::RecallProbe;
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::params::Size;
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// What became of a graph over new embeddings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Refined {
    /// The kNN graph over them, nearly exact.
    pub graph: ProximityGraph,
    /// The share of exact neighbors that the old graph still had, 0 to 1, by 512 of its rows. Below f32 precision these
    /// neighbors are found by rough scores, which misses few.
    pub kept: f64,
    /// The same of the new graph, by the same rows.
    pub recall: f64,
    /// Whether too few were kept, or other samples were skipped, and the graph was built anew.
    pub rebuilt: bool,
}

/// Carries a kNN graph over to new embeddings of the same samples, and of samples that have come since, which stand
/// behind them: the limit M → N of the paper's graph, for less than building it.
///
/// First the old neighbors of each sample are scored anew, with one more of the spares behind them than a gauge finds
/// necessary for `config.recall`; while embeddings drift little, a few suffice. Where all of them do not, or where samples
/// have come, samples meet in the cells of near ones, in those that it takes for what is missing, and then, where that is
/// not enough, among their neighbors' neighbors, until few lists change. Where the old graph kept fewer than two fifths of
/// the neighbors, they would save nothing: the graph is built from nothing, which telemetry says. Of `config`, K, the
/// precision and the recall count. The graph does not depend on the number of threads, and needs the memory that
/// [`build`](crate::graph::build()) does.
///
/// Measured (d = 384, K = 16, AVX-512, two threads, gauges included): of N = 100,000, where all pairs take 6.0 s, with
/// 95 % kept 0.23 s to a recall of 0.997, with 86 % 0.25 s to 0.982, with 70 % 0.87 s to 0.974. Of N = 1,000,000 with
/// d = 128, where all pairs take 236 s, with 95 % kept 2.1 s to 0.991, with 85 % 2.1 s to 0.982, with 70 % 6.3 s to 0.989.
///
/// Not for moderate M: there the paper's candidates must be drawn anew, or each refresh would raise M; that is what
/// [`build`](crate::graph::build()) does at less cost.
///
/// # Panics
/// As [`build`](crate::graph::build()), and where the old graph has more samples than there are embeddings.
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
    let clustering = Clustering::new(table, config, seed, version);
    let mut probes = vec![RecallProbe::new(clustering, 0..old.len(), size.neighbors)];
    let kept = probes[0].recall(old);
    let mut ids = (0..old.len()).map(SampleId::new);
    let as_before = ids.all(|id| old.is_skipped(id) == table.is_skipped(id));
    let rebuilt = !as_before || kept < MIN_KEPT_TO_REFINE;
    let graph = if rebuilt {
        telemetry::rebuilt(kept);
        descent::build(table, config, size, seed, version)
    } else {
        let have_come = (old.len()..table.len()).any(|id| !table.is_skipped(SampleId::new(id)));
        if have_come {
            probes.push(RecallProbe::new(clustering, old.len()..table.len(), size.neighbors));
        }
        let mut descent = Descent::new(clustering, size);
        // How many spares it takes is known before anything is scored: one more than by the gauge, which errs a little.
        let least = size.neighbors.saturating_sub(old.degree());
        let enough = |spares: &usize| probes[0].recall_with_reserve(old, *spares) >= config.recall;
        let spares = (least..old.reserve_len()).find(enough).filter(|_| !have_come);
        descent.carry_over(old, spares.map_or(old.reserve_len(), |spares| spares + 1));
        if probes.iter().any(|probe| descent.recall(probe) < config.recall) {
            descent.reach(config.recall, &probes);
        }
        descent.into_graph(version)
    };
    let recall = probes[0].recall(&graph);
    Refined { graph, kept, recall, rebuilt }
}

/// Below this share of kept neighbors, they save nothing.
const MIN_KEPT_TO_REFINE: f64 = 0.4;
