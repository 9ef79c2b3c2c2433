//! Where a walk goes, found out ahead of it.
//!
//! A move waits for memory: the neighbors of the place it leaves from, about 100 ns. But whether it leaves from the
//! start or from where the move before arrived is a matter of the random number alone, so the path falls into segments
//! that begin at the start and know nothing of each other. [`Path`] draws the numbers of many moves, walks several
//! segments at the same time, each while the memory of the others is on its way, and hands the moves out in their order:
//! the path is move for move that of one walker. Without restarts there is one segment, and every move waits.

use rand::{Rng, RngExt};

use crate::graph::ProximityGraph;
use crate::sample::SampleId;
use crate::store::prefetch;

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
    generator: R,
    degree: u64,
    /// A move restarts below it.
    threshold: u32,
    start: SampleId,
    /// The numbers and arrivals of moves, each at its position modulo `WINDOW`.
    numbers: [u32; WINDOW],
    arrivals: [SampleId; WINDOW],
    /// Moves handed out; those found out; those with a number.
    taken: usize,
    known: usize,
    numbered: usize,
    /// The next move of every segment on its way, in the segments' order.
    segments: [usize; SEGMENTS],
    open: usize,
    /// Moves of all segments begun.
    begun: usize,
}

impl<'a, R: Rng> Path<'a, R> {
    /// A path from `start` with restart probability `alpha`, 0 up to but not including 1.
    pub fn new(graph: &'a ProximityGraph, start: SampleId, alpha: f64, generator: R) -> Self {
        let mut path = Self {
            graph,
            generator,
            degree: graph.degree() as u64,
            threshold: (alpha * 2f64.powi(32)) as u32,
            start,
            numbers: [0; WINDOW],
            arrivals: [start; WINDOW],
            taken: 0,
            known: 0,
            numbered: 0,
            segments: [0; SEGMENTS],
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
        self.segments[0] = self.taken;
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

    /// One move of every segment on its way.
    fn advance(&mut self) {
        self.draw();
        while self.open < SEGMENTS && self.begun < self.numbered {
            // The last segment may only have run out of numbers.
            if self.restarts(self.begun) {
                self.segments[self.open] = self.begun;
                self.open += 1;
                self.begun += 1;
            }
            self.begun = self.end_of_segment(self.begun);
        }
        let mut open = 0;
        for segment in 0..self.open {
            let mut at = self.segments[segment];
            if at < self.numbered {
                self.arrivals[at % WINDOW] = *self.step(at);
                at += 1;
                if at < self.numbered {
                    if self.restarts(at) {
                        continue;
                    }
                    prefetch(std::slice::from_ref(self.step(at)));
                }
            }
            self.segments[open] = at;
            open += 1;
        }
        self.open = open;
        self.known = if open == 0 { self.begun } else { self.segments[0] };
    }

    /// The neighbor that a move goes to, as it lies in the graph.
    #[inline]
    fn step(&self, at: usize) -> &'a SampleId {
        let from = if self.restarts(at) { self.start } else { self.arrivals[at.wrapping_sub(1) % WINDOW] };
        &self.graph.neighbors(from)[(self.scaled(at) >> 32) as usize]
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
            self.numbered += DRAW;
        }
    }
}

/// Segments walked at the same time: about as many cache lines as a core fetches at once.
const SEGMENTS: usize = 24;

/// How far ahead, in moves: a power of two. Some hundred moves are found out in vain when a walk ends.
const WINDOW: usize = 1024;

/// Numbers drawn at once.
const DRAW: usize = 64;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;
    use crate::sample::GraphVersion;

    /// Many segments at the same time go where one walker goes that takes number after number.
    #[test]
    fn is_the_path_of_one_walker() {
        const LEN: usize = 400;
        const DEGREE: usize = 5;
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        let neighbors = (0..LEN * DEGREE).map(|_| SampleId::new(generator.random_range(0..LEN))).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.0; LEN * DEGREE], DEGREE, GraphVersion(1)).unwrap();
        for alpha in [0.0, 0.003, 0.1, 0.5, 0.999_999] {
            let mut numbers = ChaCha8Rng::seed_from_u64(7);
            let mut start = SampleId(3);
            let mut path = Path::new(&graph, start, alpha, ChaCha8Rng::seed_from_u64(7));
            let mut place = start;
            for step in 1..20_000 {
                let scaled = u64::from(numbers.random::<u32>()) * DEGREE as u64;
                let restarted = (scaled % (1 << 32)) as f64 / 2f64.powi(32) < alpha;
                let from = if restarted { start } else { place };
                place = graph.neighbors(from)[(scaled >> 32) as usize];
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
