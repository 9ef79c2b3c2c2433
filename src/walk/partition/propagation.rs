//! Label propagation with bounded sizes, on a graph whose edges count both ways (Meyerhenke, Sanders and Schulz, SEA
//! 2014).

use rand::Rng;
use rand::seq::SliceRandom;

use super::super::lists::Lists;
use super::NO_BLOCK;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// A graph whose edges count both ways.
pub(super) trait Undirected {
    /// How many nodes there are.
    fn len(&self) -> usize;

    /// How many samples a node stands for.
    fn size(&self, node: u32) -> u64;

    /// Calls `visit` with the other end and the weight of each edge of a node.
    fn visit_edges(&self, node: u32, visit: impl FnMut(u32, u32));
}

/// A proximity graph with its edges both ways, each of weight 1.
pub(super) struct BothWays<'a> {
    graph: &'a ProximityGraph,
    reverse: Lists,
}

impl<'a> BothWays<'a> {
    /// Turns all edges around, for 4 (N K + N) bytes.
    pub fn new(graph: &'a ProximityGraph) -> Self {
        let edges = |id: u32| graph.neighbors(SampleId(id)).iter().map(move |to| (to.index(), id));
        Self { graph, reverse: Lists::new(graph.len(), || (0..graph.len() as u32).flat_map(edges)) }
    }
}

impl Undirected for BothWays<'_> {
    fn len(&self) -> usize {
        self.graph.len()
    }

    fn size(&self, _: u32) -> u64 {
        1
    }

    fn visit_edges(&self, node: u32, mut visit: impl FnMut(u32, u32)) {
        let to = self.graph.neighbors(SampleId(node)).iter().map(|id| id.0);
        let from = self.reverse.get(node as usize).iter().copied();
        to.chain(from).filter(|&other| other != node).for_each(|other| visit(other, 1));
    }
}

/// A graph with a node for each community of another graph.
pub(super) struct Contracted {
    sizes: Vec<u64>,
    /// The other ends of the edges of each node, and their weights.
    edges: Vec<Vec<(u32, u32)>>,
}

impl Contracted {
    /// Contracts the communities of a graph; `labels` has the community of each node, `members` its inverse.
    pub fn new(graph: &impl Undirected, labels: &[u32], members: &Lists) -> Self {
        let mut votes = Votes::new(members.len());
        let mut contracted = Self { sizes: Vec::new(), edges: Vec::new() };
        for community in 0..members.len() {
            votes.clear();
            let nodes = members.get(community);
            for &node in nodes {
                graph.visit_edges(node, |to, weight| votes.add(labels[to as usize], weight));
            }
            let others = votes.labels.iter().filter(|&&label| label as usize != community);
            contracted.edges.push(others.map(|&label| (label, votes.of(label))).collect());
            contracted.sizes.push(nodes.iter().map(|&node| graph.size(node)).sum());
        }
        contracted
    }
}

impl Undirected for Contracted {
    fn len(&self) -> usize {
        self.sizes.len()
    }

    fn size(&self, node: u32) -> u64 {
        self.sizes[node as usize]
    }

    fn visit_edges(&self, node: u32, mut visit: impl FnMut(u32, u32)) {
        self.edges[node as usize].iter().for_each(|&(to, weight)| visit(to, weight));
    }
}

/// The weight of one node's edges to each label.
pub(super) struct Votes {
    weights: Vec<u32>,
    /// The labels with a weight.
    pub labels: Vec<u32>,
}

impl Votes {
    pub fn new(count: usize) -> Self {
        Self { weights: vec![0; count], labels: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.labels.drain(..).for_each(|label| self.weights[label as usize] = 0);
    }

    pub fn add(&mut self, label: u32, weight: u32) {
        let sum = &mut self.weights[label as usize];
        if *sum == 0 {
            self.labels.push(label);
        }
        *sum = sum.saturating_add(weight);
    }

    pub fn of(&self, label: u32) -> u32 {
        self.weights[label as usize]
    }

    /// Counts the edges of a node by the labels of their other ends, except those to a node of no block.
    pub fn count(&mut self, graph: &impl Undirected, labels: &[u32], node: u32) {
        self.clear();
        graph.visit_edges(node, |to, weight| {
            let label = labels[to as usize];
            if label != NO_BLOCK {
                self.add(label, weight);
            }
        });
    }

    /// The label with more weight than `own` and most of all, if there is one; the first of equal ones.
    pub fn best(&self, own: u32, has_room: impl Fn(u32) -> bool) -> Option<u32> {
        let mut best = None;
        let mut most = self.of(own);
        for &label in &self.labels {
            if self.of(label) > most && has_room(label) {
                best = Some(label);
                most = self.of(label);
            }
        }
        best
    }
}

/// Finds communities of at most `bound` samples, each node's label, and how many labels there are.
///
/// 1. Each node is a community of its own.
/// 2. Each node, in random order, moves to the community with room to which most of its edges lead.
/// 3. This is repeated until few nodes move.
pub(super) fn propagate(graph: &impl Undirected, bound: u64, generator: &mut impl Rng) -> (Vec<u32>, usize) {
    let mut labels: Vec<u32> = (0..graph.len() as u32).collect();
    let mut sizes: Vec<u64> = labels.iter().map(|&node| graph.size(node)).collect();
    let mut order = labels.clone();
    order.shuffle(generator);
    let mut votes = Votes::new(graph.len());
    for _ in 0..MAX_ROUNDS {
        let mut moved = 0;
        for &node in &order {
            let own = labels[node as usize];
            let size = graph.size(node);
            votes.count(graph, &labels, node);
            if let Some(label) = votes.best(own, |label| sizes[label as usize] + size <= bound) {
                sizes[own as usize] -= size;
                sizes[label as usize] += size;
                labels[node as usize] = label;
                moved += 1;
            }
        }
        if moved < graph.len() / LEAST_MOVED_DIVISOR {
            break;
        }
    }
    number(labels)
}

/// Numbers labels anew, from 0 in the order of the nodes, and returns how many there are.
fn number(mut labels: Vec<u32>) -> (Vec<u32>, usize) {
    let mut numbers = vec![None; labels.len()];
    let mut count = 0;
    for label in &mut labels {
        *label = *numbers[*label as usize].get_or_insert_with(|| {
            count += 1;
            count - 1
        });
    }
    (labels, count as usize)
}

/// How often each node may move.
const MAX_ROUNDS: usize = 8;

/// Propagation ends when fewer nodes than this share of all move in a round.
const LEAST_MOVED_DIVISOR: usize = 100;
