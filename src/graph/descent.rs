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
}

impl<'a> Descent<'a> {
    pub fn new(table: &'a EmbeddingTable, neighbors: usize) -> Self {
        let length = neighbors.max(MEMBERS).min(table.len() - 1);
        Self { table, lists: Lists::new(table.len(), length) }
    }

    /// Scores the samples of each leaf of some trees among themselves.
    pub fn join_leaves(&mut self, trees: u64, seed: u64, version: GraphVersion) {
        let stripes = self.lists.stripes();
        for tree in 0..trees {
            let leaves = tree::leaves(self.table, LEAF, seed, version, tree);
            leaves.groups.par_iter().with_max_len(1).for_each_init(product, |product, group| {
                product.join_within(self.table, &leaves.ids[group.clone()], &stripes);
            });
        }
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
            let members = MEMBERS.min(self.lists.length());
            let best = self.lists.best(members);
            self.join_neighbors(|sample| changed[sample].then(|| &best[sample * members..][..members]));
        }
        share
    }

    /// Scores each sample and those that `of` gives for it among themselves.
    pub fn join_neighbors<'b>(&mut self, of: impl Fn(usize) -> Option<&'b [SampleId]> + Sync) {
        let stripes = self.lists.stripes();
        let init = || (product(), Vec::new());
        (0..self.table.len()).into_par_iter().with_min_len(64).for_each_init(init, |(product, ids), sample| {
            let Some(members) = of(sample) else { return };
            ids.clear();
            ids.push(sample as u32);
            ids.extend(members.iter().filter(|id| **id != EMPTY).map(|id| id.0));
            product.join_within(self.table, ids, &stripes);
        });
    }
}

fn product() -> Product {
    Product::new(Kernel::new(Format::F32))
}

/// Trees before the first pass.
const TREES: u64 = 4;

/// Samples of a leaf, at most.
const LEAF: usize = 768;

/// Neighbors that are joined with each other: with the sample itself they fill a panel.
const MEMBERS: usize = 15;

/// Passes at most.
const PASSES: usize = 6;

/// The share of changed lists at which another pass is not worth its time.
const DONE: f64 = 0.05;
