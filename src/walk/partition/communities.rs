use std::collections::HashMap;

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::lists::Lists;
use super::propagation::{BothWays, Contracted, Undirected, Votes, propagate};
use super::{NO_BLOCK, Partition};
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// Divides samples into communities of exactly `size` samples, but for a smaller last one.
///
/// Mini-batches of communities are those of B3 (arXiv 2505.11293), which has them from METIS. This is a multilevel
/// method as well:
///
/// 1. Find communities of at most `size` samples by label propagation.
/// 2. Contract each to a node, and find communities of these, of at most twice as many samples; repeat until one
///    may hold all.
/// 3. Cut the samples in the order of this tree into equal pieces.
/// 4. Swap samples of two communities if more edges stay within communities then; a few rounds.
///
/// One thread takes a few passes over all edges, in an order that `seed` decides.
pub(super) fn communities(graph: &ProximityGraph, size: usize, seed: u64) -> Partition {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..17].copy_from_slice(b"partition");
    let mut generator = ChaCha8Rng::from_seed(key);

    let edges = BothWays::new(graph);
    let order = tree_order(&edges, size as u64, &mut generator);
    let mut community_of = vec![NO_BLOCK; graph.len()];
    let present: Vec<u32> = order.into_iter().filter(|&id| !graph.is_skipped(SampleId(id))).collect();
    for (community, members) in (0..).zip(present.chunks(size)) {
        members.iter().for_each(|&id| community_of[id as usize] = community);
    }
    let count = present.len().div_ceil(size);
    swap(&edges, &present, count, &mut community_of, &mut generator);
    Partition::new(community_of, count)
}

/// All nodes, with those of a community near each other, and near communities near each other.
fn tree_order(edges: &BothWays<'_>, size: u64, generator: &mut impl Rng) -> Vec<u32> {
    let mut levels = Vec::new();
    let mut contracted = contract(edges, size, &mut levels, generator);
    let mut bound = size;
    while bound < edges.len() as u64 {
        bound = bound.saturating_mul(2);
        contracted = contract(&contracted, bound, &mut levels, generator);
    }
    let roots = (0..contracted.len() as u32).collect();
    levels.iter().rev().fold(roots, |nodes: Vec<u32>, members| {
        let members = |&node: &u32| members.get(node as usize).iter().copied();
        nodes.iter().flat_map(members).collect()
    })
}

/// Contracts the communities of at most `bound` samples, and adds their members to `levels`.
fn contract(graph: &impl Undirected, bound: u64, levels: &mut Vec<Lists>, generator: &mut impl Rng) -> Contracted {
    let (labels, count) = propagate(graph, bound, generator);
    let members = Lists::new(count, || labels.iter().zip(0..).map(|(&label, node)| (label as usize, node)));
    let contracted = Contracted::new(graph, &labels, &members);
    levels.push(members);
    contracted
}

/// Swaps samples between communities, which keep their sizes.
///
/// A sample that has more edges into another community waits for one of that community that wants to come the other
/// way.
fn swap(edges: &BothWays<'_>, ids: &[u32], count: usize, community_of: &mut [u32], generator: &mut impl Rng) {
    let mut votes = Votes::new(count);
    let mut order = ids.to_vec();
    for _ in 0..SWAP_ROUNDS {
        order.shuffle(generator);
        let mut waiting: HashMap<[u32; 2], Vec<u32>> = HashMap::new();
        for &id in &order {
            let own = community_of[id as usize];
            votes.count(edges, community_of, id);
            let Some(other) = votes.best(own, |_| true) else { continue };
            let gain = i64::from(votes.of(other)) - i64::from(votes.of(own));
            let Some(partner) = waiting.get_mut(&[other, own]).and_then(Vec::pop) else {
                waiting.entry([own, other]).or_default().push(id);
                continue;
            };
            votes.count(edges, community_of, partner);
            let partner_gain = i64::from(votes.of(own)) - i64::from(votes.of(other));
            let mut between = 0;
            edges.visit_edges(partner, |to, weight| between += i64::from(weight) * i64::from(to == id));
            // Edges between the two stay between communities, but both gains count them.
            if gain + partner_gain > 2 * between {
                community_of[id as usize] = other;
                community_of[partner as usize] = own;
            }
        }
    }
}

/// How often each sample may be swapped.
const SWAP_ROUNDS: usize = 4;
