use rand::Rng;

use super::filling::Filling;
use super::guards::Admission;
use super::parts::{Part, Parts};
use crate::graph::ProximityGraph;

/// Fills the parts of a mini-batch nearest first, breadth first from a random sample each.
///
/// 1. Start at the part's first member, or else at a random remaining sample.
/// 2. Take the remaining neighbors of each member of the part, from the most similar on, from rank `skip` on.
/// 3. If all members are done, start again at a random remaining sample.
pub(super) fn fill_parts<A: Admission>(
    graph: &ProximityGraph,
    skip: usize,
    parts: Parts,
    filling: &mut Filling<'_, A>,
    generator: &mut impl Rng,
) {
    for number in 0..parts.walks() {
        let part = parts.begin(number, filling.ids.len());
        filling.aim_for(part.end());
        fill_part(graph, skip, part, filling, generator);
    }
}

fn fill_part<A: Admission>(
    graph: &ProximityGraph,
    skip: usize,
    part: Part,
    filling: &mut Filling<'_, A>,
    generator: &mut impl Rng,
) {
    let mut looked = 0;
    while !filling.is_full() {
        let Some(id) = part.get(&filling.ids, looked) else {
            if filling.join_start(generator).is_none() {
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
