use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::epoch::Fresh;
use super::path::Path;
use super::{Draw, WalkCounts};
use crate::graph::ProximityGraph;

/// `size` fresh samples by random walk with restart (arXiv 2306.03355).
///
/// The walk begins at a random fresh sample. Each move goes to a uniform neighbor, with probability α of the start and
/// otherwise of where the walk stands: in the paper a restart is a step of its own that adds nothing, so several in a
/// row do what one does, and the samples found are distributed alike. Fresh samples on the way are collected; those
/// drawn before are only passed through. After `PATIENCE` moves without a fresh one the walk begins anew elsewhere, and
/// after `MOVES_PER_SAMPLE` moves for each sample the rest is drawn uniformly, so that it ends on every graph.
pub(super) fn draw(
    graph: &ProximityGraph,
    fresh: &mut Fresh,
    size: usize,
    restart_probability: f64,
    generator: &mut impl Rng,
) -> Draw {
    let mut counts = WalkCounts::default();
    let mut ids = Vec::with_capacity(size);
    let moves = u32::try_from(size).unwrap_or(u32::MAX).saturating_mul(MOVES_PER_SAMPLE);
    ids.push(fresh.take_any(generator));
    // Numbers of its own: how far a path looks ahead then changes nothing but its speed.
    let mut path = Path::new(graph, ids[0], restart_probability, ChaCha8Rng::from_rng(generator));
    let mut idle = 0;
    while ids.len() < size && counts.moves < moves {
        if idle == PATIENCE {
            counts.new_starts += 1;
            let start = fresh.take_any(generator);
            ids.push(start);
            path.begin(start);
            idle = 0;
            continue;
        }
        let step = path.next();
        counts.moves += 1;
        counts.restarts += u32::from(step.restarted);
        idle += 1;
        if fresh.take(step.to) {
            ids.push(step.to);
            idle = 0;
        }
    }
    while ids.len() < size {
        counts.uniform_top_ups += 1;
        ids.push(fresh.take_any(generator));
    }
    Draw { ids, counts }
}

/// Moves without a fresh sample before the walk begins elsewhere.
const PATIENCE: u32 = 512;

/// Moves in all, for each sample of the mini-batch.
const MOVES_PER_SAMPLE: u32 = 256;
