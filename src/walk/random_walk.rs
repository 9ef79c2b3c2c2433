use rand::{Rng, RngExt};

use super::epoch::Fresh;
use super::{Draw, WalkCounts};
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

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
    while ids.len() < size && counts.moves < moves {
        counts.new_starts += u32::from(!ids.is_empty());
        let start = fresh.take_any(generator);
        ids.push(start);
        let mut place = start;
        let mut idle = 0;
        while ids.len() < size && counts.moves < moves && idle < PATIENCE {
            counts.moves += 1;
            if generator.random_bool(restart_probability) {
                counts.restarts += 1;
                place = start;
            }
            place = any(graph.neighbors(place), generator);
            if fresh.take(place) {
                ids.push(place);
                idle = 0;
            } else {
                idle += 1;
            }
        }
    }
    while ids.len() < size {
        counts.uniform_top_ups += 1;
        ids.push(fresh.take_any(generator));
    }
    Draw { ids, counts }
}

fn any(neighbors: &[SampleId], generator: &mut impl Rng) -> SampleId {
    neighbors[generator.random_range(0..neighbors.len())]
}

/// Moves without a fresh sample before the walk begins elsewhere.
const PATIENCE: u32 = 512;

/// Moves in all, for each sample of the mini-batch.
const MOVES_PER_SAMPLE: u32 = 256;
