//! Where a walk goes, found out ahead of it.
//!
//! A move waits for memory: the neighbors of the place it leaves from, about 100 ns. But whether it leaves from the
//! start or from where the move before arrived is a matter of the random number alone, so the path falls into segments
//! that begin at the start and know nothing of each other. [`Path`] draws the numbers of many moves, walks several
//! segments at the same time, each while the memory of the others is on its way, and hands the moves out in their order:
//! the path is move for move that of one walker. Without restarts there is one segment, and every move waits.
//!
//! With [`ReverseEdges`] a move mostly goes back along an edge that leads to the place it leaves from; see there.

use rand::{Rng, RngExt};

use super::reverse::ReverseEdges;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;
use crate::simd::prefetch;

/// One move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Move {
    /// Where it arrives.
    pub to: SampleId,
    /// Whether it left from the start again instead of going on.
    pub restarted: bool,
}

/// The moves of a random walk with restart, without end.
pub(super) struct Path<'a, R> {
    graph: &'a ProximityGraph,
    back: Option<&'a ReverseEdges>,
    generator: R,
    /// Neighbors that moves go to, and the rank of the first.
    degree: u64,
    first: usize,
    /// A move restarts below it.
    threshold: u32,
    start: SampleId,
    /// The numbers and arrivals of moves, each at its position modulo `WINDOW`.
    numbers: [u32; WINDOW],
    /// More numbers, which say whether and where a move goes back; empty without back edges.
    returns: Vec<u32>,
    arrivals: [SampleId; WINDOW],
    /// Moves handed out; those found out; those with a number.
    taken: usize,
    known: usize,
    numbered: usize,
    /// The next move of every segment on its way, in the segments' order.
    segments: [(usize, Stage); SEGMENTS],
    open: usize,
    /// Moves of all segments begun.
    begun: usize,
}

/// How far a move has come: what it waits for.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The neighbors of the place it leaves from, or where the edges that lead there lie.
    From,
    /// The edge that it goes back along.
    Back(u32),
}

impl<'a, R: Rng> Path<'a, R> {
    /// A path from `start` with restart probability `alpha`, 0 up to but not including 1. It goes to neighbors from rank
    /// `skip` on, below the degree.
    pub fn new(
        graph: &'a ProximityGraph,
        back: Option<&'a ReverseEdges>,
        skip: usize,
        start: SampleId,
        alpha: f64,
        generator: R,
    ) -> Self {
        let ranks = back.map_or(skip..graph.degree(), ReverseEdges::ranks);
        let mut path = Self {
            graph,
            back,
            generator,
            degree: ranks.len() as u64,
            first: ranks.start,
            threshold: (alpha * 2f64.powi(32)) as u32,
            start,
            numbers: [0; WINDOW],
            returns: vec![0; if back.is_some() { WINDOW } else { 0 }],
            arrivals: [start; WINDOW],
            taken: 0,
            known: 0,
            numbered: 0,
            segments: [(0, Stage::From); SEGMENTS],
            open: 0,
            begun: 0,
        };
        path.begin(start);
        path
    }

    /// Goes on from another start: the moves not yet handed out are found out anew, from the same numbers.
    pub fn begin(&mut self, start: SampleId) {
        self.start = start;
        // Whether or not it restarts, the first move leaves from the start.
        self.arrivals[self.taken.wrapping_sub(1) % WINDOW] = start;
        self.known = self.taken;
        self.draw();
        self.segments[0] = (self.taken, Stage::From);
        self.open = 1;
        self.begun = self.end_of_segment(self.taken + 1);
    }

    #[inline]
    pub fn next(&mut self) -> Move {
        while self.taken == self.known {
            self.advance();
        }
        let at = self.taken;
        self.taken += 1;
        Move { to: self.arrivals[at % WINDOW], restarted: self.restarts(at) }
    }

    /// One stage of one move of every segment on its way.
    fn advance(&mut self) {
        self.draw();
        while self.open < SEGMENTS && self.begun < self.numbered {
            // The last segment may only have run out of numbers.
            if self.restarts(self.begun) {
                self.segments[self.open] = (self.begun, Stage::From);
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
                        self.arrivals[at % WINDOW] = to;
                        at += 1;
                        stage = Stage::From;
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

    /// Where a move arrives, or what it waits for next.
    #[inline]
    fn arrive(&self, at: usize, stage: Stage) -> Result<SampleId, Stage> {
        match (self.back, stage) {
            (Some(back), Stage::Back(place)) => Ok(back.from(place)),
            // Which edge is a matter of the upper bits, whether to go back one of the lowest three.
            (Some(back), Stage::From) if self.takes_reverse_edges(at) => back
                .choose(self.from(at), self.returns[at % WINDOW])
                .map_or_else(|| Ok(*self.step(at)), |place| Err(Stage::Back(place))),
            _ => Ok(*self.step(at)),
        }
    }

    /// Asks for what a move waits for first.
    #[inline]
    fn fetch(&self, at: usize) {
        match self.back {
            Some(back) if self.takes_reverse_edges(at) => back.prefetch_list(self.from(at)),
            _ => prefetch(std::slice::from_ref(self.step(at))),
        }
    }

    #[inline]
    fn takes_reverse_edges(&self, at: usize) -> bool {
        !self.returns[at % WINDOW].is_multiple_of(ONWARD)
    }

    /// The place that a move leaves from.
    #[inline]
    fn from(&self, at: usize) -> SampleId {
        if self.restarts(at) { self.start } else { self.arrivals[at.wrapping_sub(1) % WINDOW] }
    }

    /// The neighbor that a move goes to, as it lies in the graph.
    #[inline]
    fn step(&self, at: usize) -> &'a SampleId {
        &self.graph.neighbors(self.from(at))[self.first + (self.scaled(at) >> 32) as usize]
    }

    #[inline]
    fn restarts(&self, at: usize) -> bool {
        (self.scaled(at) as u32) < self.threshold
    }

    /// A move's number times K: the upper half says which neighbor, the lower half whether to restart. Both
    /// probabilities, and each given the other, are off by less than K / 2³².
    #[inline]
    fn scaled(&self, at: usize) -> u64 {
        u64::from(self.numbers[at % WINDOW]) * self.degree
    }

    /// The first move from `at` on that begins a segment, or has no number yet.
    fn end_of_segment(&self, mut at: usize) -> usize {
        while at < self.numbered && !self.restarts(at) {
            at += 1;
        }
        at
    }

    /// Numbers moves, as far as the window reaches; the last move handed out stays in it.
    fn draw(&mut self) {
        while self.numbered + DRAW < self.taken + WINDOW {
            let begin = self.numbered % WINDOW;
            self.generator.fill(&mut self.numbers[begin..begin + DRAW]);
            if self.back.is_some() {
                self.generator.fill(&mut self.returns[begin..begin + DRAW]);
            }
            self.numbered += DRAW;
        }
    }
}

/// Segments walked at the same time: about as many cache lines as a core fetches at once.
const SEGMENTS: usize = 24;

/// How far ahead, in moves: a power of two. Some hundred moves are found out in vain when a walk ends.
const WINDOW: usize = 1024;

/// With back edges, one move in as many goes to a neighbor all the same.
const ONWARD: u32 = 8;

/// Numbers drawn at once.
const DRAW: usize = 64;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::super::remaining::Remaining;
    use super::*;
    use crate::sample::GraphVersion;

    /// Many segments at the same time go where one walker goes that takes number after number, with back edges and
    /// without.
    #[test]
    fn is_the_path_of_one_walker() {
        const LEN: usize = 400;
        const DEGREE: usize = 11;
        const SKIP: usize = 2;
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        // A hundred samples are nobody's neighbor.
        let neighbors = (0..LEN * DEGREE).map(|_| SampleId::new(generator.random_range(100..LEN))).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.0; LEN * DEGREE], DEGREE, GraphVersion(1)).unwrap();
        let mut fresh = Remaining::all(LEN);
        (0..LEN).filter(|id| id % 3 == 0).for_each(|id| assert!(fresh.take(SampleId::new(id))));
        let mut edges = ReverseEdges::new(&graph, &fresh, SKIP);
        // Fewer now: what is forgotten must leave the others as they would be made.
        (0..LEN).filter(|id| id % 5 == 1).for_each(|id| _ = fresh.take(SampleId::new(id)));
        edges.keep_fresh(&fresh);
        let lists: Vec<Vec<SampleId>> = (0..LEN)
            .map(|to| {
                let near = |id: SampleId| &graph.neighbors(id)[SKIP..SKIP + 8];
                let times = |id: SampleId| near(id).iter().filter(|n| n.index() == to).count();
                fresh.iter().flat_map(|id| std::iter::repeat_n(id, times(id))).collect()
            })
            .collect();
        for back in [None, Some(&edges)] {
            let degree = if back.is_some() { 8 } else { (DEGREE - SKIP) as u64 };
            for alpha in [0.0, 0.003, 0.1, 0.5, 0.999_999] {
                let mut numbers = ChaCha8Rng::seed_from_u64(7);
                // In the order in which the path draws them: a block of moves, and a block of returns.
                let mut ahead = std::collections::VecDeque::new();
                let mut start = SampleId(3);
                let mut path = Path::new(&graph, back, SKIP, start, alpha, ChaCha8Rng::seed_from_u64(7));
                let mut place = start;
                for step in 1..20_000 {
                    if ahead.is_empty() {
                        let block: Vec<u32> = (0..DRAW).map(|_| numbers.random()).collect();
                        let returns: Vec<u32> = (0..DRAW).map(|_| back.map_or(0, |_| numbers.random())).collect();
                        ahead.extend(block.into_iter().zip(returns));
                    }
                    let (number, turn) = ahead.pop_front().unwrap();
                    let scaled = u64::from(number) * degree;
                    let restarted = (scaled % (1 << 32)) as f64 / 2f64.powi(32) < alpha;
                    let from = if restarted { start } else { place };
                    place = graph.neighbors(from)[SKIP + (scaled >> 32) as usize];
                    let list = &lists[from.index()];
                    if back.is_some() && !turn.is_multiple_of(ONWARD) && !list.is_empty() {
                        place = list[((u64::from(turn) * list.len() as u64) >> 32) as usize];
                    }
                    assert_eq!(path.next(), Move { to: place, restarted }, "move {step} at α = {alpha}");
                    if step % 777 == 0 {
                        start = SampleId::new(step % LEN);
                        path.begin(start);
                        place = start;
                    }
                }
            }
        }
    }

    /// How often a walk is where, against the stationary distribution of its chain, which power iteration gives.
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
        let mut fresh = Remaining::all(LEN);
        (0..LEN).filter(|id| id % 4 == 1).for_each(|id| assert!(fresh.take(SampleId::new(id))));
        let edges = ReverseEdges::new(&graph, &fresh, 0);
        let start = SampleId(7);
        for back in [None, Some(&edges)] {
            // A move from each place, as probabilities of arriving anywhere.
            let ranks = back.map_or(0..DEGREE, ReverseEdges::ranks);
            let mut out = vec![[0f64; LEN]; LEN];
            for (from, out) in out.iter_mut().enumerate() {
                let near =
                    |id: SampleId| graph.neighbors(id)[ranks.clone()].iter().filter(|n| n.index() == from).count();
                let list: Vec<_> = fresh.iter().flat_map(|id| std::iter::repeat_n(id, near(id))).collect();
                let onward = if back.is_some() && !list.is_empty() { 1.0 / f64::from(ONWARD) } else { 1.0 };
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
                let mut path = Path::new(&graph, back, 0, start, alpha, ChaCha8Rng::seed_from_u64(11));
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
