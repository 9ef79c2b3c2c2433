use std::sync::Arc;

use super::ProximityGraph;
use crate::sample::SampleId;

/// The samples of a graph with the lowest and with the highest in-degrees, a tenth each.
///
/// Samples of equal in-degree are in the same tail: the lower one has all that no more than a tenth lie strictly below,
/// the upper one all that no more than a tenth lie strictly above and that are not in the lower one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InDegreeTails {
    /// A bit for each sample, for the lower and for the upper tail.
    bits: [Vec<u64>; 2],
}

impl InDegreeTails {
    /// Counts the edges to every sample, other than its own, in O(N K); takes 8 bytes a sample meanwhile.
    fn new(graph: &ProximityGraph) -> Self {
        let mut degrees = vec![0u32; graph.len()];
        for id in (0..graph.len()).map(SampleId::new) {
            for to in graph.neighbors(id).iter().filter(|to| **to != id) {
                degrees[to.index()] += 1;
            }
        }
        let mut bits = [0; 2].map(|_| vec![0u64; graph.len().div_ceil(64)]);
        let mut sorted = degrees.clone();
        let tenth = graph.len() / 10;
        if let Some(last) = graph.len().checked_sub(1) {
            let low = *sorted.select_nth_unstable(tenth.min(last)).1;
            let high = *sorted.select_nth_unstable(last - tenth).1;
            for (at, &degree) in degrees.iter().enumerate() {
                if degree <= low || degree >= high {
                    bits[usize::from(degree > low)][at / 64] |= 1 << (at % 64);
                }
            }
        }
        Self { bits }
    }

    /// The tail that a sample is in: 0 for the lower, 1 for the upper one.
    #[inline]
    pub fn of(&self, id: SampleId) -> Option<usize> {
        self.bits
            .iter()
            .position(|bits| bits.get(id.index() / 64).is_some_and(|bits| bits >> (id.index() % 64) & 1 == 1))
    }
}

impl ProximityGraph {
    /// The samples with the lowest and the highest in-degrees; counted at the first call, for all clones.
    pub(crate) fn in_degree_tails(&self) -> Arc<InDegreeTails> {
        self.tails.get_or_init(|| Arc::new(InDegreeTails::new(self))).clone()
    }
}
