use rand::Rng;

use super::filling::Filling;
use super::guards::Admission;
use crate::graph::ProximityGraph;

/// Fills a mini-batch with samples that cluster: a random one, its fresh neighbors from the most similar on, then theirs
/// in the same order, breadth first. Where no fresh neighbor is left, it begins elsewhere.
pub(super) fn draw<A: Admission>(
    graph: &ProximityGraph,
    skip: usize,
    filling: &mut Filling<'_, A>,
    generator: &mut impl Rng,
) {
    let mut looked = 0;
    while !filling.is_full() {
        let Some(&id) = filling.ids.get(looked) else {
            if filling.any(generator).is_none() {
                return;
            }
            filling.counts.new_starts += u64::from(looked > 0);
            continue;
        };
        looked += 1;
        for &neighbor in graph.neighbors(id).iter().skip(skip) {
            if filling.is_full() {
                break;
            }
            filling.counts.moves += 1;
            filling.offer(neighbor);
        }
    }
}
