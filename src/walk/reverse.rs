use super::remaining::Remaining;
use crate::graph::ProximityGraph;
use crate::memory::huge;
use crate::sample::{GraphVersion, SampleId};
use crate::simd::prefetch;

/// The fresh samples that have a sample among their first neighbors: edges to go back along.
///
/// Out-edges lead to hubs, which an epoch has delivered early, and never to samples that are nobody's neighbor, which
/// remain. Back along an edge leads to all of them: every sample has neighbors. One such move is as near as any edge:
/// two, out and back to samples that share a neighbor, made mini-batches less similar on WordNet, whatever M and α.
///
/// Takes 4 bytes a sample, and 4 for each of the edges at that.
#[derive(Clone, Debug)]
pub(super) struct ReverseEdges {
    /// Where in `from` those of each sample begin; one more than there are samples.
    starts: Vec<u32>,
    from: Vec<SampleId>,
    /// Ranks of neighbors: the first, and one after the last.
    first: usize,
    last: usize,
    graph_version: GraphVersion,
    /// Samples that were fresh when last looked at.
    fresh: usize,
}

impl ReverseEdges {
    /// Edges of the samples fresh by now, without their `skip` nearest; O(N + fresh).
    pub fn new(graph: &ProximityGraph, fresh: &Remaining, skip: usize) -> Self {
        let first = skip.min(graph.degree());
        // Places are 32 bits wide.
        let reach = REACH.min(u32::MAX as usize / fresh.len().max(1));
        let last = (first + reach).min(graph.degree());
        let edges = || fresh.iter().flat_map(|id| graph.neighbors(id)[first..last].iter().map(move |to| (id, to)));
        // Counted at the place after the next, the starts come out right when the lists are filled.
        let mut starts = huge(graph.len() + 2);
        starts.resize(graph.len() + 2, 0u32);
        edges().for_each(|(_, to)| starts[to.index() + 2] += 1);
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut from = huge(sum as usize);
        from.resize(sum as usize, SampleId(0));
        for (id, to) in edges() {
            let place = &mut starts[to.index() + 1];
            from[*place as usize] = id;
            *place += 1;
        }
        starts.pop();
        Self { starts, from, first, last, graph_version: graph.version(), fresh: fresh.len() }
    }

    /// Whether they are of this graph.
    pub fn are_of(&self, graph: &ProximityGraph) -> bool {
        self.graph_version == graph.version() && self.starts.len() == graph.len() + 1
    }

    /// Forgets those of samples that are not fresh any more, where these are an eighth: over an epoch that takes a
    /// fraction of the time of making them.
    pub fn keep_fresh(&mut self, fresh: &Remaining) {
        if 8 * fresh.len() > 7 * self.fresh {
            return;
        }
        let (mut begin, mut kept) = (0, 0);
        for to in 0..self.starts.len() - 1 {
            let end = self.starts[to + 1] as usize;
            self.starts[to] = kept as u32;
            for place in begin..end {
                let id = self.from[place];
                self.from[kept] = id;
                kept += usize::from(fresh.contains(id));
            }
            begin = end;
        }
        if let Some(last) = self.starts.last_mut() {
            *last = kept as u32;
        }
        self.from.truncate(kept);
        self.fresh = fresh.len();
    }

    /// The neighbors that have back edges, by rank.
    pub fn ranks(&self) -> std::ops::Range<usize> {
        self.first..self.last
    }

    #[inline]
    pub fn prefetch_list(&self, to: SampleId) {
        prefetch(&self.starts[to.index()..to.index() + 2]);
    }

    /// The place of an edge to `to`, as `number` says; none where there is no such edge.
    #[inline]
    pub fn choose(&self, to: SampleId, number: u32) -> Option<u32> {
        let (start, end) = (self.starts[to.index()], self.starts[to.index() + 1]);
        let len = u64::from(end - start);
        let place = start + ((u64::from(number) * len) >> 32) as u32;
        (len > 0).then(|| {
            prefetch(&self.from[place as usize..=place as usize]);
            place
        })
    }

    /// Edges to `to`: about as many as there are fresh samples that have it as a near neighbor.
    pub fn count(&self, to: SampleId) -> usize {
        (self.starts[to.index() + 1] - self.starts[to.index()]) as usize
    }

    #[inline]
    pub fn from(&self, place: u32) -> SampleId {
        self.from[place as usize]
    }
}

/// Neighbors of a sample that count. With all 32, hubs have long lists of samples that are not very near them; with 4,
/// too many places have none.
const REACH: usize = 8;
