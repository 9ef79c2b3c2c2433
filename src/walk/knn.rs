use rand::Rng;

use super::filling::Filling;
use super::guards::Admission;
use crate::graph::ProximityGraph;

/// Fills a mini-batch nearest first, breadth first from a random sample.
///
/// 1. Start at the first member, or else at a random remaining sample.
/// 2. Take the remaining neighbors of each member, from the most similar on, from rank `skip` on.
/// 3. If all members are done, start again at a random remaining sample.
pub(super) fn draw<A: Admission>(
    graph: &ProximityGraph,
    skip: usize,
    filling: &mut Filling<'_, A>,
    generator: &mut impl Rng,
) {
    let mut looked = 0;
    while !filling.is_full() {
        let Some(&id) = filling.ids.get(looked) else {
            if filling.join_any(generator).is_none() {
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
