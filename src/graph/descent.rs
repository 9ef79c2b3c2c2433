//! The kNN graph of many samples, nearly exact, without scoring all pairs.
//!
//! Neighbors of a sample are likely neighbors of each other (NN-descent: Dong, Charikar and Li, WWW 2011). So groups
//! of samples that are likely near are scored among themselves, as small matrix products: first the leaves of random
//! projection trees, then each sample with its neighbors so far, again and again until few lists change.
//!
//! Each pass works on the lists as they stood at its begin, and a list keeps the best of what it is offered whatever
//! the order: the graph does not depend on the number of threads.

use rayon::prelude::*;

use super::kernel::{Format, Kernel};
use super::lists::{EMPTY, Lists};
use super::product::Product;
use super::tree;
use super::{ProximityGraph, Size};
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;

/// Each sample's K most similar of all others, but for a few percent.
pub(super) fn build(table: &EmbeddingTable, size: Size, seed: u64, version: GraphVersion) -> ProximityGraph {
    let mut descent = Descent::new(table, size.neighbors);
    descent.join_leaves(TREES, seed, version);
    descent.converge(PASSES);
    descent.lists.into_graph(size.neighbors, version)
}

/// Lists on their way to the kNN graph.
pub(super) struct Descent<'a> {
    table: &'a EmbeddingTable,
    pub lists: Lists,
    /// All samples, near ones near each other: what is gathered for one is still in the caches for the next.
    order: Vec<u32>,
}

impl<'a> Descent<'a> {
    pub fn new(table: &'a EmbeddingTable, neighbors: usize) -> Self {
        let length = neighbors.max(FORWARD).min(table.len() - 1);
        Self { table, lists: Lists::new(table.len(), length), order: (0..table.len() as u32).collect() }
    }

    /// Scores the samples of each leaf of some trees among themselves.
    pub fn join_leaves(&mut self, trees: u64, seed: u64, version: GraphVersion) {
        let stripes = self.lists.stripes();
        for tree in 0..trees {
            let leaves = tree::leaves(self.table, LEAF, seed, version, tree);
            leaves.groups.par_iter().with_max_len(1).for_each_init(product, |product, group| {
                product.join_within(self.table, &leaves.ids[group.clone()], &stripes);
            });
            self.order = leaves.ids;
        }
    }

    /// Scores each sample and its old neighbors among themselves; of more than a panel holds, the others with the sample
    /// alone.
    pub fn join_old(&mut self, old: &ProximityGraph) {
        let stripes = self.lists.stripes();
        let table = self.table;
        let init = || (product(), Vec::new());
        self.order.par_iter().filter(|sample| (**sample as usize) < old.len()).for_each_init(init, |state, &sample| {
            let (product, ids) = state;
            let (near, far) = old.neighbors(SampleId(sample)).split_at(FORWARD.min(old.degree()));
            ids.clear();
            ids.push(sample);
            ids.extend(near.iter().map(|id| id.0));
            product.join_within(table, ids, &stripes);
            if !far.is_empty() {
                ids.clear();
                ids.extend(far.iter().map(|id| id.0));
                product.pack_rows(table, &[sample]);
                product.pack_columns(table, ids);
                product.join_across(&[sample], ids, &stripes);
            }
        });
    }

    /// Joins each sample's neighbors until a pass changes few lists, or `passes` times. Gives the share of lists that the
    /// last pass changed.
    pub fn converge(&mut self, passes: usize) -> f64 {
        let mut share = 1.0;
        for _ in 0..passes {
            let changed = self.lists.take_changed();
            share = changed.iter().filter(|changed| **changed).count() as f64 / changed.len() as f64;
            if share < DONE {
                break;
            }
            let forward = FORWARD.min(self.lists.length());
            let best = self.lists.best(forward);
            let reverse = reverse(&best, forward, self.table.len());
            self.join_neighbors(&best, forward, &reverse, &changed);
        }
        share
    }

    /// Scores each sample, those it has for neighbors and some that have it for one among themselves, where any of their
    /// lists has changed.
    fn join_neighbors(&mut self, best: &[SampleId], forward: usize, reverse: &[SampleId], changed: &[bool]) {
        let stripes = self.lists.stripes();
        let table = self.table;
        let group = |sample: u32, ids: &mut Vec<u32>| {
            let index = sample as usize;
            let members = best[index * forward..][..forward].iter().chain(&reverse[index * REVERSE..][..REVERSE]);
            ids.clear();
            ids.push(sample);
            for id in members.filter(|id| **id != EMPTY) {
                if !ids.contains(&id.0) {
                    ids.push(id.0);
                }
            }
            if !ids.iter().any(|&id| changed[id as usize]) {
                ids.clear();
            }
            ids.iter().for_each(|&id| table.prefetch(SampleId(id)));
        };
        self.order.par_chunks(256).for_each_init(product, |product, samples| {
            let (mut ids, mut next) = (Vec::new(), Vec::new());
            group(samples[0], &mut next);
            for place in 0..samples.len() {
                std::mem::swap(&mut ids, &mut next);
                // The next group's vectors are on their way while this one is scored.
                if let Some(&sample) = samples.get(place + 1) {
                    group(sample, &mut next);
                }
                product.join_within(table, &ids, &stripes);
            }
        });
    }
}

/// Of each sample, those that have it among their best: the first ones that do, in an order of no meaning.
fn reverse(best: &[SampleId], forward: usize, samples: usize) -> Vec<SampleId> {
    let mut reverse = vec![EMPTY; samples * REVERSE];
    let mut counts = vec![0u8; samples];
    for rank in 0..forward {
        for (from, neighbors) in best.chunks_exact(forward).enumerate() {
            let to = neighbors[rank];
            if to != EMPTY && usize::from(counts[to.index()]) < REVERSE {
                reverse[to.index() * REVERSE + usize::from(counts[to.index()])] = SampleId::new(from);
                counts[to.index()] += 1;
            }
        }
    }
    reverse
}

fn product() -> Product {
    Product::new(Kernel::new(Format::F32))
}

/// Trees before the first pass.
const TREES: u64 = 16;

/// Samples of a leaf, at most.
const LEAF: usize = 768;

/// Neighbors of a sample that are joined with each other.
const FORWARD: usize = 15;

/// Samples that have it for a neighbor and are joined with these, at most.
const REVERSE: usize = 16;

/// Passes at most.
const PASSES: usize = 2;

/// The share of changed lists at which another pass is not worth its time.
const DONE: f64 = 0.05;
