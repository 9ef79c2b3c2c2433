//! The kNN graph of many samples, nearly exact, without scoring all pairs.
//!
//! Neighbors of a sample are likely neighbors of each other (NN-descent: Dong, Charikar and Li, WWW 2011). So groups
//! of samples that are likely near are scored among themselves, as small matrix products: first the leaves of random
//! projection trees, then each sample with its neighbors so far, again and again until few lists change.
//!
//! Each pass works on the lists as they stood at its begin, and a list keeps the best of what it is offered whatever
//! the order: the graph does not depend on the number of threads.

use rayon::prelude::*;

use super::groups::Grouping;
use super::kernel::{Kernel, Rows};
use super::lists::{EMPTY, Lists, Stripes, with_spares};
use super::product::Product;
use super::{ProximityGraph, Size};
use crate::config::Precision;
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;

/// Each sample's K most similar of all others, but for a few percent.
pub(super) fn build(
    table: &EmbeddingTable,
    precision: Precision,
    size: Size,
    seed: u64,
    version: GraphVersion,
) -> ProximityGraph {
    let mut descent = Descent::new(table, precision, size);
    descent.join_groups(MEMBERSHIPS, seed, version);
    descent.converge(PASSES);
    descent.into_graph(version)
}

/// Lists on their way to the kNN graph.
pub(super) struct Descent<'a> {
    table: &'a EmbeddingTable,
    kernel: Kernel,
    lists: Lists,
    neighbors: usize,
    /// All samples but those that were skipped, near ones near each other: what is gathered for one is still in the caches for the next.
    order: Vec<u32>,
}

impl<'a> Descent<'a> {
    pub fn new(table: &'a EmbeddingTable, precision: Precision, size: Size) -> Self {
        let others = table.present() - 1;
        let kernel = Kernel::choose(precision, table.dimension(), 1, I8_ALWAYS);
        let lists = Lists::new(table.len(), with_spares(size.neighbors).min(others));
        Self { table, kernel, lists, neighbors: size.neighbors, order: table.present_ids() }
    }

    /// Scores the samples of each group among themselves; each sample joins some.
    pub fn join_groups(&mut self, memberships: usize, seed: u64, version: GraphVersion) {
        let (table, kernel) = (self.table, self.kernel);
        let groups = Grouping { table, kernel, seed, version, typical: GROUP, memberships }.groups();
        let stripes = self.lists.stripes();
        groups
            .par_iter()
            .with_max_len(1)
            .for_each_init(|| Product::new(kernel), |product, group| product.join_within(table, group, &stripes));
        self.order = in_order(groups, Grouping { table, kernel, seed, version, typical: TOGETHER / 4, memberships: 1 });
    }

    /// Scores each sample, its old neighbors and some that it was one of among themselves; of more neighbors than are
    /// joined, the others with the sample alone.
    pub fn join_old(&mut self, old: &ProximityGraph) {
        let forward = FORWARD.min(old.degree());
        let near = |sample| &old.neighbors(SampleId::new(sample))[..forward];
        let reverse = reverse((0..old.len()).map(near), forward, self.table.len());
        let of = |sample: usize| if sample < old.len() { near(sample) } else { &[] };
        let joins = Joins { table: self.table, kernel: self.kernel, stripes: self.lists.stripes() };
        joins.run(&self.order, |sample, ids| members(sample, of(sample as usize), &reverse, ids));
        if forward < old.degree() {
            self.order.par_iter().filter(|sample| (**sample as usize) < old.len()).for_each_init(
                || (Product::new(self.kernel), Vec::new()),
                |(product, ids), &sample| {
                    ids.clear();
                    ids.extend(old.neighbors(SampleId(sample))[forward..].iter().map(|id| id.0));
                    product.pack_rows(self.table, &[sample]);
                    product.pack_columns(self.table, ids);
                    product.join_across(&[sample], ids, &joins.stripes);
                },
            );
        }
    }

    /// Joins each sample's neighbors until a pass changes few lists, or `passes` times.
    pub fn converge(&mut self, passes: usize) {
        for _ in 0..passes {
            let changed = self.lists.take_changed();
            let share = changed.iter().filter(|changed| **changed).count() as f64 / changed.len() as f64;
            if share < DONE {
                break;
            }
            let forward = FORWARD.min(self.lists.length());
            let best = self.lists.best(forward);
            let reverse = reverse(best.chunks_exact(forward), forward, self.table.len());
            let joins = Joins { table: self.table, kernel: self.kernel, stripes: self.lists.stripes() };
            joins.run(&self.order, |sample, ids| {
                members(sample, &best[sample as usize * forward..][..forward], &reverse, ids);
                if !ids.iter().any(|&id| changed[id as usize]) {
                    ids.clear();
                }
            });
        }
    }

    pub fn into_graph(mut self, version: GraphVersion) -> ProximityGraph {
        if !self.kernel.is_exact() {
            self.lists.score_again(self.table, &self.order);
        }
        self.lists.into_graph(self.neighbors, version)
    }
}

/// All samples but those that were skipped, near ones near each other.
pub(super) fn order(table: &EmbeddingTable, precision: Precision, seed: u64, version: GraphVersion) -> Vec<u32> {
    let kernel = Kernel::choose(precision, table.dimension(), 1, I8_ALWAYS);
    // As many leaders as samples of a group, so that both splits together cost least.
    let typical = (table.len() * TOGETHER / 4).isqrt().max(GROUP);
    let coarse = Grouping { table, kernel, seed, version, typical, memberships: 1 };
    in_order(coarse.groups(), Grouping { typical: TOGETHER / 4, ..coarse })
}

/// The samples of groups of near ones, once each, those of a finer group together.
fn in_order(groups: Vec<Vec<u32>>, finer: Grouping<'_>) -> Vec<u32> {
    let mut seen = vec![false; finer.table.len()];
    let once = |group: Vec<u32>| -> Vec<u32> {
        group.into_iter().filter(|id| !std::mem::replace(&mut seen[*id as usize], true)).collect()
    };
    let groups: Vec<_> = groups.into_iter().map(once).collect();
    let parts = groups.into_par_iter().enumerate().flat_map_iter(|(number, group)| finer.part(group, number as u64));
    parts.collect::<Vec<_>>().concat()
}

/// A sample, its neighbors and some that it is one of.
fn members(sample: u32, neighbors: &[SampleId], reverse: &[SampleId], ids: &mut Vec<u32>) {
    ids.clear();
    ids.push(sample);
    let reverse = &reverse[sample as usize * REVERSE..][..REVERSE];
    for id in neighbors.iter().chain(reverse).filter(|id| **id != EMPTY) {
        if !ids.contains(&id.0) {
            ids.push(id.0);
        }
    }
}

/// Many small products.
struct Joins<'a, 's> {
    table: &'a EmbeddingTable,
    kernel: Kernel,
    stripes: Stripes<'s>,
}

impl Joins<'_, '_> {
    /// Scores the `members` of each sample among themselves. Near samples have many in common, so these are packed once
    /// for some samples together.
    fn run(&self, order: &[u32], members: impl Fn(u32, &mut Vec<u32>) + Sync) {
        let init = || (Product::new(self.kernel), Rows::default(), Near::default());
        order.par_chunks(TOGETHER).for_each_init(init, |(product, packed, near), samples| {
            near.gather(samples, &members);
            packed.pack(self.kernel, self.table, &near.union);
            for group in near.groups.chunk_by(|_, id| *id != END) {
                let ids = &group[1..];
                if ids.is_empty() {
                    continue;
                }
                near.places.clear();
                near.places.extend(ids.iter().map(|id| near.union.binary_search(id).expect("one of the union") as u32));
                product.join_packed_within(packed, &near.places, ids, &self.stripes);
            }
        });
    }
}

/// The members of some samples.
#[derive(Default)]
struct Near {
    /// One sample's after another's, each behind an [`END`].
    groups: Vec<u32>,
    /// All of them, once each, in order.
    union: Vec<u32>,
    places: Vec<u32>,
    members: Vec<u32>,
}

impl Near {
    fn gather(&mut self, samples: &[u32], members: impl Fn(u32, &mut Vec<u32>)) {
        self.groups.clear();
        for &sample in samples {
            members(sample, &mut self.members);
            self.groups.push(END);
            self.groups.extend_from_slice(&self.members);
        }
        self.union.clear();
        self.union.extend(self.groups.iter().filter(|id| **id != END));
        self.union.sort_unstable();
        self.union.dedup();
    }
}

/// No sample.
const END: u32 = EMPTY.0;

/// Of each sample, those that have it among their neighbors, by sample: the first ones that do, in an order of no
/// meaning.
fn reverse<'a>(
    neighbors: impl Iterator<Item = &'a [SampleId]> + Clone,
    forward: usize,
    samples: usize,
) -> Vec<SampleId> {
    let mut reverse = vec![EMPTY; samples * REVERSE];
    let mut counts = vec![0u8; samples];
    for rank in 0..forward {
        for (from, neighbors) in neighbors.clone().enumerate() {
            let to = neighbors[rank];
            if to != EMPTY && usize::from(counts[to.index()]) < REVERSE {
                reverse[to.index() * REVERSE + usize::from(counts[to.index()])] = SampleId::new(from);
                counts[to.index()] += 1;
            }
        }
    }
    reverse
}

/// Samples whose members are packed together.
const TOGETHER: usize = 64;

/// Scoring again is little beside the joins.
const I8_ALWAYS: usize = usize::MAX;

/// Groups that each sample joins before the first pass.
const MEMBERSHIPS: usize = 6;

/// Samples of a group, on average.
const GROUP: usize = 1024;

/// Neighbors of a sample that are joined with each other.
const FORWARD: usize = 15;

/// Samples that have it for a neighbor and are joined with these, at most.
const REVERSE: usize = 16;

/// Passes at most.
const PASSES: usize = 2;

/// The share of changed lists at which another pass is not worth its time.
const DONE: f64 = 0.5;
