use super::clusters::Clustering;
use super::descent::{self, Descent};
use super::recall::RecallProbe;
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph::ProximityGraph;
use crate::graph::params::Size;
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// A graph that was carried over to new embeddings, and how well that went.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Refined {
    /// The kNN graph over the new embeddings, nearly exact.
    pub graph: ProximityGraph,
    /// The share of exact neighbors that the old graph still had, 0 to 1, estimated by 512 of its samples.
    ///
    /// Below f32 precision these neighbors are found by rough scores, which misses few.
    pub kept: f64,
    /// The same share for the new graph, by the same samples.
    pub recall: f64,
    /// Whether the graph was built anew, since too few neighbors survived or other samples were skipped.
    pub rebuilt: bool,
}

/// Carries a kNN graph over to new embeddings of its samples, for less than building it.
///
/// Samples that were added since come behind the old ones. Of `config`, K, the precision and the recall count.
///
/// 1. Estimate by a recall probe how many neighbors survived. If fewer than 40 % did, rebuild from scratch (logged).
/// 2. Re-score each sample's old neighbors, plus as many ids of its reserve as the probe asks for and one more.
/// 3. If the probe stays below `config.recall`, or samples were added, compare samples that share a cell of the
///    clusters.
/// 4. If that is still not enough, run NN-descent until few lists change.
///
/// The graph does not depend on the number of threads. Memory is that of [`build`](crate::graph::build()); times and
/// recalls are in docs/graph.md.
///
/// Do not refine graphs of moderate M: the paper's candidates must be drawn anew, or each refresh would raise M. That
/// is what [`build`](crate::graph::build()) does, at less cost.
///
/// # Errors
/// Those of [`build`](crate::graph::build()).
///
/// # Panics
/// Panics if the old graph has more samples than there are embeddings.
pub fn refine(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    config: &GraphConfig,
    seed: u64,
    version: GraphVersion,
) -> Result<Refined> {
    assert!(old.len() <= table.len(), "the old graph has more samples than there are embeddings");
    let size = Size::new(table.present(), config)?;
    let _span = telemetry::graph(table.present(), table.present() - 1, size.neighbors, version).entered();
    let clustering = Clustering::new(table, config, seed, version);
    let mut probes = vec![RecallProbe::new(clustering, 0..old.len(), size.neighbors)];
    let kept = probes[0].recall(old);
    let mut ids = (0..old.len()).map(SampleId::new);
    let as_before = ids.all(|id| old.is_skipped(id) == table.is_skipped(id));
    let rebuilt = !as_before || kept < MIN_KEPT_SHARE;
    let graph = if rebuilt {
        telemetry::rebuilt(kept);
        descent::build(table, config, size, seed, version)
    } else {
        let were_added = (old.len()..table.len()).any(|id| !table.is_skipped(SampleId::new(id)));
        if were_added {
            probes.push(RecallProbe::new(clustering, old.len()..table.len(), size.neighbors));
        }
        let mut descent = Descent::new(clustering, size);
        // The probe says how much of the reserve is needed before anything is scored; it errs a little, so one more.
        let least = size.neighbors.saturating_sub(old.degree());
        let suffices = |reserved: &usize| probes[0].recall_with_reserve(old, *reserved) >= config.recall;
        let reserved = (least..old.reserve_len()).find(suffices).filter(|_| !were_added);
        descent.carry_over(old, reserved.map_or(old.reserve_len(), |reserved| reserved + 1));
        if probes.iter().any(|probe| descent.recall(probe) < config.recall) {
            descent.reach(config.recall, &probes);
        }
        descent.into_graph(version)
    };
    let recall = probes[0].recall(&graph);
    Ok(Refined { graph, kept, recall, rebuilt })
}

/// If a smaller share of neighbors survived, they save nothing and the graph is rebuilt.
const MIN_KEPT_SHARE: f64 = 0.4;
