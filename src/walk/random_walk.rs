use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

use super::filling::Filling;
use super::guards::Admission;
use super::path::Path;
use super::reverse::ReverseEdges;
use crate::graph::ProximityGraph;

/// Fills a mini-batch by random walk with restart (arXiv 2306.03355).
///
/// 1. Start at the first member if there is one, else at a random remaining sample; with reverse edges, at that of
///    `START_CHOICES` random ones which the fewest of these edges lead to.
/// 2. With probability α move from the start, otherwise from the current sample, to a uniform neighbor of rank `skip`
///    or above. With reverse edges, most moves go backwards instead, to a remaining sample that has the current one
///    among its first neighbors, and the others stay within the same ranks. A remaining sample on the way joins if it
///    may, unless it sits out since others like it are [ahead](super::balance::Balance); others are passed through.
/// 3. After `MAX_IDLE_MOVES` moves without a new member, start again at a random member, whose surroundings may not be
///    used up yet; after `MAX_MEMBER_STARTS` such starts in vain, at a random remaining sample.
/// 4. After `MAX_MOVES_PER_SAMPLE` × B moves, draw the rest uniformly, so that the walk ends on every graph.
///
/// In the paper a restart is a step of its own that adds nothing. Several in a row do what one does, so the samples
/// found have the same distribution here.
pub(super) fn draw<A: Admission>(
    graph: &ProximityGraph,
    reverse: Option<&ReverseEdges>,
    skip: usize,
    filling: &mut Filling<'_, A>,
    restart_probability: f64,
    generator: &mut impl Rng,
) {
    let moves = (filling.size() as u64).saturating_mul(MAX_MOVES_PER_SAMPLE);
    let start = filling.ids.first().copied().or_else(|| match reverse {
        // Samples that are hardly anybody's neighbor would be left for the end of the epoch: start there.
        Some(reverse) => filling.join_least(START_CHOICES, |id| reverse.count(id), generator),
        None => filling.join_any(generator),
    });
    let Some(start) = start else { return };
    let sitting_out = reverse.map(|reverse| reverse.balance().sitting_out(generator));
    if skip < graph.degree() {
        // The path has a generator of its own, so that looking ahead changes nothing but its speed.
        let numbers = ChaCha8Rng::from_rng(generator);
        let mut path = Path::new(graph, reverse, skip, start, restart_probability, numbers);
        let mut idle_moves = 0;
        let mut member_starts = 0;
        while !filling.is_full() && filling.counts.moves < moves {
            if idle_moves == MAX_IDLE_MOVES {
                let start = if member_starts < MAX_MEMBER_STARTS {
                    member_starts += 1;
                    filling.ids[generator.random_range(0..filling.ids.len())]
                } else {
                    member_starts = 0;
                    let Some(remaining) = filling.join_any(generator) else { break };
                    remaining
                };
                filling.counts.new_starts += 1;
                path.begin(start);
                idle_moves = 0;
                continue;
            }
            let step = path.next();
            filling.counts.moves += 1;
            filling.counts.restarts += u64::from(step.restarted);
            idle_moves += 1;
            if !sitting_out.is_some_and(|some| some.contains(step.to)) && filling.offer(step.to) {
                idle_moves = 0;
                member_starts = 0;
            }
        }
    }
    filling.counts.uniform_top_ups += filling.top_up(generator);
}

/// How many random samples a walk chooses its start from; the figures behind it are in docs/sampling.md.
const START_CHOICES: usize = 4;

/// How many moves without a new member a walk makes before it starts elsewhere.
const MAX_IDLE_MOVES: u32 = 1024;

/// At how many members a walk starts again in vain before it leaves this part of the graph.
const MAX_MEMBER_STARTS: u32 = 8;

/// How many moves a walk makes for each sample of the mini-batch.
const MAX_MOVES_PER_SAMPLE: u64 = 256;
