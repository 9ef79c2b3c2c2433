use super::balance::Balance;
use super::remaining::Remaining;
use crate::graph::ProximityGraph;
use crate::memory::huge;
use crate::sample::{GraphVersion, SampleId};
use crate::simd::prefetch;

/// Reverse edges: for each sample the remaining samples that have it among their first neighbors.
///
/// Edges of the graph lead to hubs, which an epoch draws early, and never to samples that are nobody's neighbor, which
/// remain. Taken backwards, they lead to every remaining sample, since every sample has neighbors. One reverse edge is
/// as near as any edge; two moves, to samples that share a neighbor, would be less near.
///
/// Takes 4 bytes a sample and 4 bytes for each of its first neighbors. A reverse edge is named by its index, a `u32`.
#[derive(Clone, Debug)]
pub(super) struct ReverseEdges {
    /// Where in `from` the edges to each sample begin, and where the last ones end.
    starts: Vec<u32>,
    from: Vec<SampleId>,
    /// The ranks of the neighbors that count: the first, and one after the last.
    first: usize,
    last: usize,
    graph_version: GraphVersion,
    /// How many samples remained when edges were last made or dropped.
    remaining: usize,
    /// What walks over these edges have brought so far.
    balance: Balance,
}

impl ReverseEdges {
    /// Makes the edges of the remaining ones of `samples`, without those to their `skip` nearest, in O(N).
    pub fn new(graph: &ProximityGraph, samples: usize, remaining: &Remaining, skip: usize) -> Self {
        // Before the edges, since it takes memory for a moment.
        let balance = Balance::new(graph, samples, remaining);
        let first = skip.min(graph.degree());
        // Indices are 32 bits wide.
        let ranks = MAX_RANKS.min(u32::MAX as usize / remaining.len().max(1));
        let last = (first + ranks).min(graph.degree());
        let edges = || remaining.iter().flat_map(|id| graph.neighbors(id)[first..last].iter().map(move |to| (id, to)));
        // Counted two places further on, the starts come out right once the lists are filled.
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
            let next = &mut starts[to.index() + 1];
            from[*next as usize] = id;
            *next += 1;
        }
        starts.pop();
        Self { starts, from, first, last, graph_version: graph.version(), remaining: remaining.len(), balance }
    }

    /// Whether these are edges of this graph.
    pub fn are_of(&self, graph: &ProximityGraph) -> bool {
        self.graph_version == graph.version() && self.starts.len() == graph.len() + 1
    }

    /// Drops the edges of samples that were drawn, as soon as these are an eighth of all.
    ///
    /// Over an epoch that takes less time than making the edges once.
    pub fn keep_remaining(&mut self, remaining: &Remaining) {
        if 8 * remaining.len() > 7 * self.remaining {
            return;
        }
        let mut begin = 0;
        let mut kept = 0;
        for to in 0..self.starts.len() - 1 {
            let end = self.starts[to + 1] as usize;
            self.starts[to] = kept as u32;
            for index in begin..end {
                let id = self.from[index];
                self.from[kept] = id;
                kept += usize::from(remaining.contains(id));
            }
            begin = end;
        }
        if let Some(last) = self.starts.last_mut() {
            *last = kept as u32;
        }
        self.from.truncate(kept);
        self.remaining = remaining.len();
    }

    /// Counts these samples as drawn; their edges stay until [`keep_remaining`](Self::keep_remaining).
    pub fn count_drawn(&mut self, ids: &[SampleId]) {
        self.balance.count_drawn(ids);
    }

    /// How the epoch's tails have come so far.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The ranks of the neighbors that have reverse edges.
    pub fn ranks(&self) -> std::ops::Range<usize> {
        self.first..self.last
    }

    /// Prefetches where the edges to `to` begin and end.
    #[inline]
    pub fn prefetch_list(&self, to: SampleId) {
        prefetch(&self.starts[to.index()..to.index() + 2]);
    }

    /// Chooses an edge to `to` by a random `number` and prefetches it; `None` if no edge leads there.
    #[inline]
    pub fn choose(&self, to: SampleId, number: u32) -> Option<u32> {
        let (start, end) = (self.starts[to.index()], self.starts[to.index() + 1]);
        let len = u64::from(end - start);
        let index = start + ((u64::from(number) * len) >> 32) as u32;
        (len > 0).then(|| {
            prefetch(&self.from[index as usize..=index as usize]);
            index
        })
    }

    /// How many edges lead to `to`; some may be of samples that were drawn since.
    pub fn count(&self, to: SampleId) -> usize {
        (self.starts[to.index() + 1] - self.starts[to.index()]) as usize
    }

    /// The remaining sample that an edge leads back to.
    #[inline]
    pub fn from(&self, index: u32) -> SampleId {
        self.from[index as usize]
    }
}

/// How many neighbors of a sample have reverse edges. With more, hubs lead to samples that are not very near them; with
/// fewer, too many samples have no reverse edge.
const MAX_RANKS: usize = 8;
