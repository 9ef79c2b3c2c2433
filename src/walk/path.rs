//! The moves of a random walk, found ahead of time so that memory is fetched in parallel.
//!
//! A move waits for memory: for the neighbors of the sample that it leaves from. But its random number alone decides
//! whether it leaves from the start or from where the move before arrived. So the path falls into segments that begin
//! at the start and do not depend on each other:
//!
//! 1. Make the random numbers of many moves.
//! 2. Walk several segments at the same time, each while the memory of the others is being fetched.
//! 3. Hand the moves out in their order: the path is, move for move, that of a single walker.
//!
//! Without restarts there is one segment, and every move waits. With [`ReverseEdges`] most moves follow a reverse edge
//! of the sample that they leave from.

use rand::{Rng, RngExt};

use super::balance::FORWARD_OF;
use super::reverse::ReverseEdges;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;
use crate::simd::prefetch;

/// One move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Move {
    /// The sample at which it arrives.
    pub to: SampleId,
    /// Whether it left from the start instead of the current sample.
    pub restarted: bool,
}

/// The endless moves of a random walk with restart.
pub(super) struct Path<'a, R> {
    graph: &'a ProximityGraph,
    reverse: Option<&'a ReverseEdges>,
    generator: R,
    /// With reverse edges, so many moves of `FORWARD_OF` follow an edge forward all the same.
    forward: u32,
    /// How many neighbors of a sample moves go to, and the rank of the first one.
    degree: u64,
    first: usize,
    /// A move restarts if the lower half of its scaled number is below this.
    threshold: u32,
    start: SampleId,
    /// The random number of each move, at its position modulo `WINDOW_MOVES`.
    numbers: [u32; WINDOW_MOVES],
    /// The random numbers that choose reverse edges; empty without these.
    reverse_numbers: Vec<u32>,
    /// Where each move arrives.
    arrivals: [SampleId; WINDOW_MOVES],
    /// How many moves were handed out, how many are known, and how many have a number.
    taken: usize,
    known: usize,
    numbered: usize,
    /// The next move of every open segment, in the segments' order.
    segments: [(usize, MoveStage); MAX_SEGMENTS],
    open: usize,
    /// How many moves the segments that were begun have together.
    begun: usize,
}

/// The memory that a move waits for.
#[derive(Clone, Copy, Debug)]
enum MoveStage {
    /// It waits for the neighbors of the sample that it leaves from, or for where that sample's reverse edges begin.
    From,
    /// It waits for the reverse edge of this index.
    Reverse(u32),
}

impl<'a, R: Rng> Path<'a, R> {
    /// A path from `start` with restart probability `alpha`, which is at least 0 and below 1.
    ///
    /// Moves go to neighbors of rank `skip` or above, with `reverse` to those ranks that it was made of; `skip` is less
    /// than the degree.
    pub fn new(
        graph: &'a ProximityGraph,
        reverse: Option<&'a ReverseEdges>,
        skip: usize,
        start: SampleId,
        alpha: f64,
        generator: R,
    ) -> Self {
        let ranks = reverse.map_or(skip..graph.degree(), ReverseEdges::ranks);
        let mut path = Self {
            graph,
            reverse,
            generator,
            forward: reverse.map_or(FORWARD_OF, |reverse| reverse.balance().forward()),
            degree: ranks.len() as u64,
            first: ranks.start,
            threshold: (alpha * 2f64.powi(32)) as u32,
            start,
            numbers: [0; WINDOW_MOVES],
            reverse_numbers: vec![0; if reverse.is_some() { WINDOW_MOVES } else { 0 }],
            arrivals: [start; WINDOW_MOVES],
            taken: 0,
            known: 0,
            numbered: 0,
            segments: [(0, MoveStage::From); MAX_SEGMENTS],
            open: 0,
            begun: 0,
        };
        path.begin(start);
        path
    }

    /// Goes on from another start. The moves that were not handed out yet are found anew, from the same numbers.
    pub fn begin(&mut self, start: SampleId) {
        self.start = start;
        // The first move leaves from the start, whether or not it restarts.
        self.arrivals[self.taken.wrapping_sub(1) % WINDOW_MOVES] = start;
        self.known = self.taken;
        self.number_moves();
        self.segments[0] = (self.taken, MoveStage::From);
        self.open = 1;
        self.begun = self.end_of_segment(self.taken + 1);
    }

    /// Hands out the next move.
    #[inline]
    pub fn next(&mut self) -> Move {
        while self.taken == self.known {
            self.advance();
        }
        let at = self.taken;
        self.taken += 1;
        Move { to: self.arrivals[at % WINDOW_MOVES], restarted: self.restarts(at) }
    }

    /// Advances every open segment by one stage of one move.
    fn advance(&mut self) {
        self.number_moves();
        while self.open < MAX_SEGMENTS && self.begun < self.numbered {
            // If this is no restart, the last segment had only run out of numbers and is still open.
            if self.restarts(self.begun) {
                self.segments[self.open] = (self.begun, MoveStage::From);
                self.open += 1;
                self.begun += 1;
            }
            self.begun = self.end_of_segment(self.begun);
        }
        let mut open = 0;
        for segment in 0..self.open {
            let (mut at, mut stage) = self.segments[segment];
            if at < self.numbered {
                match self.arrive(at, stage) {
                    Err(next) => stage = next,
                    Ok(to) => {
                        self.arrivals[at % WINDOW_MOVES] = to;
                        at += 1;
                        stage = MoveStage::From;
                        if at < self.numbered {
                            if self.restarts(at) {
                                continue;
                            }
                            self.fetch(at);
                        }
                    }
                }
            }
            self.segments[open] = (at, stage);
            open += 1;
        }
        self.open = open;
        self.known = if open == 0 { self.begun } else { self.segments[0].0 };
    }

    /// Returns where a move arrives, or what it waits for next.
    #[inline]
    fn arrive(&self, at: usize, stage: MoveStage) -> Result<SampleId, MoveStage> {
        match (self.reverse, stage) {
            (Some(reverse), MoveStage::Reverse(edge)) => Ok(reverse.from(edge)),
            // The upper bits choose the edge, the lowest six whether to take it.
            (Some(reverse), MoveStage::From) if self.takes_reverse_edges(at) => reverse
                .choose(self.from(at), self.reverse_numbers[at % WINDOW_MOVES])
                .map_or_else(|| Ok(*self.neighbor(at)), |edge| Err(MoveStage::Reverse(edge))),
            _ => Ok(*self.neighbor(at)),
        }
    }

    /// Prefetches the memory that a move waits for first.
    #[inline]
    fn fetch(&self, at: usize) {
        match self.reverse {
            Some(reverse) if self.takes_reverse_edges(at) => reverse.prefetch_list(self.from(at)),
            _ => prefetch(std::slice::from_ref(self.neighbor(at))),
        }
    }

    /// Whether a move takes a reverse edge, if there is one.
    #[inline]
    fn takes_reverse_edges(&self, at: usize) -> bool {
        self.reverse_numbers[at % WINDOW_MOVES] % FORWARD_OF >= self.forward
    }

    /// The sample that a move leaves from.
    #[inline]
    fn from(&self, at: usize) -> SampleId {
        if self.restarts(at) { self.start } else { self.arrivals[at.wrapping_sub(1) % WINDOW_MOVES] }
    }

    /// The neighbor that a move along an edge goes to, as a reference into the graph.
    #[inline]
    fn neighbor(&self, at: usize) -> &'a SampleId {
        &self.graph.neighbors(self.from(at))[self.first + (self.scaled(at) >> 32) as usize]
    }

    /// Whether a move leaves from the start.
    #[inline]
    fn restarts(&self, at: usize) -> bool {
        (self.scaled(at) as u32) < self.threshold
    }

    /// A move's number times K: the upper half chooses the neighbor, the lower half whether to restart.
    ///
    /// Both probabilities, and each given the other, are off by less than K / 2³².
    #[inline]
    fn scaled(&self, at: usize) -> u64 {
        u64::from(self.numbers[at % WINDOW_MOVES]) * self.degree
    }

    /// The first move from `at` on that begins a segment or has no number yet.
    fn end_of_segment(&self, mut at: usize) -> usize {
        while at < self.numbered && !self.restarts(at) {
            at += 1;
        }
        at
    }

    /// Makes numbers as far as the window reaches; the last move handed out stays in it.
    fn number_moves(&mut self) {
        while self.numbered + NUMBERS_AT_ONCE < self.taken + WINDOW_MOVES {
            let begin = self.numbered % WINDOW_MOVES;
            self.generator.fill(&mut self.numbers[begin..begin + NUMBERS_AT_ONCE]);
            if self.reverse.is_some() {
                self.generator.fill(&mut self.reverse_numbers[begin..begin + NUMBERS_AT_ONCE]);
            }
            self.numbered += NUMBERS_AT_ONCE;
        }
    }
}

/// How many segments are walked at the same time: about as many as a core can fetch cache lines at once.
const MAX_SEGMENTS: usize = 24;

/// How many moves the path looks ahead: a power of two. Those that are known when a walk ends are wasted.
const WINDOW_MOVES: usize = 1024;

/// How many random numbers are made at once.
const NUMBERS_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::super::remaining::Remaining;
    use super::*;
    use crate::sample::GraphVersion;

    /// Many segments at the same time follow the path of one walker, with and without reverse edges.
    #[test]
    fn is_the_path_of_one_walker() {
        const LEN: usize = 400;
        const DEGREE: usize = 11;
        const SKIP: usize = 2;
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        // A hundred samples are nobody's neighbor.
        let neighbors = (0..LEN * DEGREE).map(|_| SampleId::new(generator.random_range(100..LEN))).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.0; LEN * DEGREE], DEGREE, GraphVersion(1)).unwrap();
        let mut remaining = Remaining::all(LEN);
        (0..LEN).filter(|id| id % 3 == 0).for_each(|id| assert!(remaining.take(SampleId::new(id))));
        let mut edges = ReverseEdges::new(&graph, LEN, &remaining, SKIP);
        // Fewer remain now: dropping edges must leave those that would be made anew.
        (0..LEN).filter(|id| id % 5 == 1).for_each(|id| _ = remaining.take(SampleId::new(id)));
        edges.keep_remaining(&remaining);
        let lists: Vec<Vec<SampleId>> = (0..LEN)
            .map(|to| {
                let near = |id: SampleId| &graph.neighbors(id)[SKIP..SKIP + 8];
                let times = |id: SampleId| near(id).iter().filter(|n| n.index() == to).count();
                remaining.iter().flat_map(|id| std::iter::repeat_n(id, times(id))).collect()
            })
            .collect();
        for reverse in [None, Some(&edges)] {
            let degree = if reverse.is_some() { 8 } else { (DEGREE - SKIP) as u64 };
            for alpha in [0.0, 0.003, 0.1, 0.5, 0.999_999] {
                let mut numbers = ChaCha8Rng::seed_from_u64(7);
                // The path makes a block of move numbers, then a block of reverse numbers.
                let mut ahead = std::collections::VecDeque::new();
                let mut start = SampleId(3);
                let mut path = Path::new(&graph, reverse, SKIP, start, alpha, ChaCha8Rng::seed_from_u64(7));
                let mut current = start;
                for count in 1..20_000 {
                    if ahead.is_empty() {
                        let block: Vec<u32> = (0..NUMBERS_AT_ONCE).map(|_| numbers.random()).collect();
                        let reverse_numbers: Vec<u32> =
                            (0..NUMBERS_AT_ONCE).map(|_| reverse.map_or(0, |_| numbers.random())).collect();
                        ahead.extend(block.into_iter().zip(reverse_numbers));
                    }
                    let (number, turn) = ahead.pop_front().unwrap();
                    let scaled = u64::from(number) * degree;
                    let restarted = (scaled % (1 << 32)) as f64 / 2f64.powi(32) < alpha;
                    let from = if restarted { start } else { current };
                    current = graph.neighbors(from)[SKIP + (scaled >> 32) as usize];
                    let list = &lists[from.index()];
                    if reverse.is_some() && turn % FORWARD_OF >= edges.balance().forward() && !list.is_empty() {
                        current = list[((u64::from(turn) * list.len() as u64) >> 32) as usize];
                    }
                    assert_eq!(path.next(), Move { to: current, restarted }, "move {count} at α = {alpha}");
                    if count % 777 == 0 {
                        start = SampleId::new(count % LEN);
                        path.begin(start);
                        current = start;
                    }
                }
            }
        }
    }

    /// The share of visits of each sample is the stationary distribution of the chain, found by power iteration.
    #[test]
    fn visits_are_the_stationary_distribution() {
        const LEN: usize = 40;
        const DEGREE: usize = 10;
        const MOVES: usize = 1_000_000;
        let mut generator = ChaCha8Rng::seed_from_u64(5);
        // Squares of uniform numbers: low ids are hubs.
        let neighbor = |_| SampleId::new((generator.random::<f64>().powi(2) * LEN as f64) as usize);
        let neighbors: Vec<_> = (0..LEN * DEGREE).map(neighbor).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.0; LEN * DEGREE], DEGREE, GraphVersion(1)).unwrap();
        let mut remaining = Remaining::all(LEN);
        (0..LEN).filter(|id| id % 4 == 3).for_each(|id| assert!(remaining.take(SampleId::new(id))));
        let edges = ReverseEdges::new(&graph, LEN, &remaining, 0);
        let forward = f64::from(edges.balance().forward()) / f64::from(FORWARD_OF);
        assert!(forward > 0.0 && forward < 1.0);
        let start = SampleId(7);
        for reverse in [None, Some(&edges)] {
            // The probabilities of a move from each sample to each other.
            let ranks = reverse.map_or(0..DEGREE, ReverseEdges::ranks);
            let mut out = vec![[0f64; LEN]; LEN];
            for (from, out) in out.iter_mut().enumerate() {
                let near =
                    |id: SampleId| graph.neighbors(id)[ranks.clone()].iter().filter(|n| n.index() == from).count();
                let list: Vec<_> = remaining.iter().flat_map(|id| std::iter::repeat_n(id, near(id))).collect();
                let onward = if reverse.is_some() && !list.is_empty() { forward } else { 1.0 };
                for to in &graph.neighbors(SampleId::new(from))[ranks.clone()] {
                    out[to.index()] += onward / ranks.len() as f64;
                }
                for id in &list {
                    out[id.index()] += (1.0 - onward) / list.len() as f64;
                }
            }
            for alpha in [0.05, 0.3, 0.9] {
                let mut expected = [1.0 / LEN as f64; LEN];
                for _ in 0..2_000 {
                    let mut next = [0f64; LEN];
                    for from in 0..LEN {
                        for to in 0..LEN {
                            let arrives = alpha * out[start.index()][to] + (1.0 - alpha) * out[from][to];
                            next[to] += expected[from] * arrives;
                        }
                    }
                    expected = next;
                }
                let mut path = Path::new(&graph, reverse, 0, start, alpha, ChaCha8Rng::seed_from_u64(11));
                let mut visits = [0u32; LEN];
                (0..MOVES).for_each(|_| visits[path.next().to.index()] += 1);
                for (id, (&visits, expected)) in visits.iter().zip(expected).enumerate() {
                    let share = f64::from(visits) / MOVES as f64;
                    // Visits in a row are not independent: moves between restarts count as one.
                    let deviation = (expected * (1.0 - expected) / (MOVES as f64 * alpha)).sqrt();
                    assert!(
                        (share - expected).abs() <= 5.0 * deviation,
                        "{id} at α = {alpha}: {share}, not {expected}"
                    );
                }
            }
        }
    }
}
