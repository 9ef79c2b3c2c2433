use rand::Rng;

use super::epoch::Fresh;
use super::{Draw, WalkCounts};
use crate::graph::ProximityGraph;

/// `size` fresh samples that cluster: a random one, its fresh neighbors from the most similar on, then theirs in the same
/// order, breadth first. Where no fresh neighbor is left, it begins elsewhere.
pub(super) fn draw(graph: &ProximityGraph, fresh: &mut Fresh, size: usize, generator: &mut impl Rng) -> Draw {
    let mut counts = WalkCounts::default();
    let mut ids = vec![fresh.take_any(generator)];
    let mut looked = 0;
    while ids.len() < size {
        let Some(&id) = ids.get(looked) else {
            counts.new_starts += 1;
            ids.push(fresh.take_any(generator));
            continue;
        };
        looked += 1;
        for &neighbor in graph.neighbors(id) {
            if ids.len() == size {
                break;
            }
            counts.moves += 1;
            if fresh.take(neighbor) {
                ids.push(neighbor);
            }
        }
    }
    Draw { ids, counts }
}
