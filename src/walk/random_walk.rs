use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

use super::balance::SittingOut;
use super::filling::Filling;
use super::guards::Admission;
use super::parts::{Part, Parts};
use super::path::{Move, Path};
use super::reverse::ReverseEdges;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// Fills a mini-batch by random walks with restart (arXiv 2306.03355); the paper's is one walk.
///
/// Each walk fills its part of the mini-batch:
///
/// 1. Start at the first member of the part if there is one, else at a random remaining sample; with weights, at the
///    heaviest of a few; else with reverse edges, at that of `START_CHOICES` random ones which the fewest of them lead
///    to.
/// 2. With probability α move from the start, otherwise from the current sample, to a uniform neighbor of rank `skip`
///    or above. With reverse edges, most moves go backwards instead, to a remaining sample that has the current one
///    among its first neighbors, and the others stay within the same ranks. A remaining sample on the way joins if it
///    may; others are only passed through.
/// 3. After `MAX_IDLE_MOVES` moves without a new member, start again at a random member of the part, whose surroundings
///    may not be used up yet; after `MAX_MEMBER_STARTS` such starts in vain, at a random remaining sample.
/// 4. Stop after `MAX_MOVES_PER_SAMPLE` moves for each place of the part, so that the walk ends on every graph. What
///    all walks lack is drawn uniformly in the end.
///
/// In the paper a restart is a move of its own that adds nothing. Several in a row do what one does, so the samples
/// found have the same distribution here.
pub(super) struct RandomWalk<'a> {
    pub graph: &'a ProximityGraph,
    pub reverse: Option<&'a ReverseEdges>,
    /// The rank of the nearest neighbor that a move may go to.
    pub skip: usize,
    /// α.
    pub restart_probability: f64,
}

impl<'a> RandomWalk<'a> {
    /// Fills all parts of a mini-batch.
    pub fn fill_parts<A: Admission>(&self, parts: Parts, filling: &mut Filling<'_, A>, generator: &mut impl Rng) {
        let reverse = self.reverse.filter(|_| parts.walks() > 0);
        let sitting_out = reverse.map(|reverse| reverse.balance().sitting_out(generator));
        let mut shared_path: Option<Path<'a, ChaCha8Rng>> = None;
        for number in 0..parts.walks() {
            let part = parts.begin(number, filling.ids.len());
            filling.aim_for(part.end());
            let Some(start) = self.start(part, filling, generator) else { break };
            if self.skip >= self.graph.degree() {
                continue;
            }
            // No two walks use the same random numbers of the path: they are as independent as on their own.
            let path = match &mut shared_path {
                Some(path) => {
                    path.begin(start);
                    path
                }
                none => none.insert(self.path(start, generator)),
            };
            let moves = (parts.size(number) as u64).saturating_mul(MAX_MOVES_PER_SAMPLE);
            let follow = Follow { moves, part, sitting_out };
            follow.fill_part(path, filling, generator);
        }
        filling.aim_for(parts.end());
        filling.counts.uniform_top_ups += filling.top_up(generator);
    }

    /// The sample that a walk begins at: the first of its part.
    fn start<A: Admission>(
        &self,
        part: Part,
        filling: &mut Filling<'_, A>,
        generator: &mut impl Rng,
    ) -> Option<SampleId> {
        part.get(&filling.ids, 0).or_else(|| match self.reverse {
            // Samples that are hardly anybody's neighbor would be left for the end of the epoch: start there.
            Some(reverse) if !filling.has_weights() => {
                filling.join_least(START_CHOICES, |id| reverse.count(id), generator)
            }
            _ => filling.join_start(generator),
        })
    }

    /// A path with a generator of its own, so that looking ahead changes nothing but its speed.
    fn path(&self, start: SampleId, generator: &mut impl Rng) -> Path<'a, ChaCha8Rng> {
        let numbers = ChaCha8Rng::from_rng(generator);
        Path::new(self.graph, self.reverse, self.skip, start, self.restart_probability, numbers)
    }
}

/// How far a path is followed, and for which members.
struct Follow<'a> {
    /// The number of moves after which it stops.
    moves: u64,
    /// The part that it fills.
    part: Part,
    /// The samples that it passes through.
    sitting_out: Option<SittingOut<'a>>,
}

impl Follow<'_> {
    /// Follows a path until the part is full or the moves are used up.
    fn fill_part<A: Admission>(
        &self,
        path: &mut Path<'_, ChaCha8Rng>,
        filling: &mut Filling<'_, A>,
        generator: &mut impl Rng,
    ) {
        let last_move = filling.counts.moves.saturating_add(self.moves);
        let mut idle_moves = 0;
        let mut member_starts = 0;
        while !filling.is_full() && filling.counts.moves < last_move {
            if idle_moves == MAX_IDLE_MOVES {
                let member = if member_starts < MAX_MEMBER_STARTS {
                    let at = generator.random_range(0..self.part.len(&filling.ids));
                    self.part.get(&filling.ids, at)
                } else {
                    None
                };
                member_starts = if member.is_some() { member_starts + 1 } else { 0 };
                let Some(start) = member.or_else(|| filling.join_start(generator)) else { return };
                filling.counts.new_starts += 1;
                path.begin(start);
                idle_moves = 0;
                continue;
            }
            let Move { to, restarted } = path.next();
            filling.counts.moves += 1;
            filling.counts.restarts += u64::from(restarted);
            idle_moves += 1;
            if !self.sits_out(to) && filling.offer(to) {
                idle_moves = 0;
                member_starts = 0;
            }
        }
    }

    #[inline]
    fn sits_out(&self, id: SampleId) -> bool {
        self.sitting_out.is_some_and(|some| some.contains(id))
    }
}

/// How many random samples a walk chooses its start from; the figures behind it are in docs/sampling.md.
const START_CHOICES: usize = 4;

/// How many moves without a new member a walk makes before it starts elsewhere.
const MAX_IDLE_MOVES: u32 = 1024;

/// At how many members a walk starts again in vain before it starts at a random sample.
const MAX_MEMBER_STARTS: u32 = 8;

/// How many moves a walk makes for each place of its part.
const MAX_MOVES_PER_SAMPLE: u64 = 256;
