//! The kNN graph of many samples, nearly exact, without scoring all pairs.
//!
//! 1. Score the samples of [cells](super::clusters) among themselves, as small matrix products, in as many cells as
//!    `graph.recall` takes.
//! 2. If the known cells do not suffice, run NN-descent (Dong, Charikar and Li, WWW 2011): score each sample, its
//!    neighbors and some samples that it is a neighbor of among themselves, a local join.
//! 3. Repeat the second step until a recall probe says that recall suffices, or few lists change.
//!
//! Each pass works on the lists as they were at its beginning, and a list keeps the best candidates whatever their
//! order, so the graph does not depend on the number of threads.

use half::bf16;
use rayon::prelude::*;

use super::clusters::{Clustering, Clusters};
use super::product::Product;
use super::recall::{RecallProbe, nearest};
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::{Format, Kernel, Rows};
use crate::graph::params::{Size, with_margin};
use crate::graph::proximity_graph::EMPTY;
use crate::graph::topk::lists::{Lists, Stripes, with_reserve};
use crate::graph::topk::rank::best_first;
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// Builds the graph of each sample's K most similar of all others, except for a few that it misses.
pub(in crate::graph) fn build(
    table: &EmbeddingTable,
    config: &GraphConfig,
    size: Size,
    seed: u64,
    version: GraphVersion,
) -> ProximityGraph {
    let clustering = Clustering::new(table, config, seed, version);
    let probe = RecallProbe::new(clustering, 0..table.len(), size.neighbors);
    let mut descent = Descent::new(clustering, size);
    descent.reach(config.recall, &[probe]);
    descent.into_graph(version)
}

/// The lists of a kNN graph while it is built.
pub(in crate::graph) struct Descent<'a> {
    clustering: Clustering<'a>,
    lists: Lists,
    neighbors: usize,
    /// All samples that were not skipped, with near ones near each other, so that what is gathered for one is still in
    /// the caches for the next.
    order: Vec<u32>,
    /// Whether the scores in the lists are similarities.
    is_exact: bool,
}

impl<'a> Descent<'a> {
    /// Starts with empty lists.
    pub fn new(clustering: Clustering<'a>, size: Size) -> Self {
        let others = clustering.table.present() - 1;
        let lists = Lists::new(clustering.table.len(), with_reserve(size.neighbors).min(others));
        Self { clustering, lists, neighbors: size.neighbors, order: Vec::new(), is_exact: true }
    }

    /// Fills the lists from an old graph: its neighbors and `rescored` ids of its reserve, by their similarities now.
    ///
    /// The rest of the reserve comes last, without being scored.
    pub fn carry_over(&mut self, old: &ProximityGraph, rescored: usize) {
        let table = self.clustering.table;
        self.order = self.clustering.order();
        let stripes = self.lists.stripes();
        let init = || (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        self.order.par_chunks(JOINS_TOGETHER).for_each_init(init, |(ids, scores, best_ids, best_scores), samples| {
            for id in samples.iter().map(|id| SampleId(*id)).filter(|id| id.index() < old.len()) {
                ids.clear();
                ids.extend(old.neighbors(id));
                ids.extend(old.reserve(id));
                let scored = ids.len().min(old.degree() + rescored);
                scores.clear();
                table.similarities_with(&table.get(id), &ids[..scored], scores);
                best_ids.resize(scored, EMPTY);
                best_scores.resize(scored, 0.0);
                best_first(scores, &ids[..scored], best_scores, best_ids);
                let best = best_scores.iter().copied().zip(best_ids.iter().copied());
                stripes.start_with(id.0, best, &ids[scored..]);
            }
        });
    }

    /// The share of a probe's neighbors that the graph will have.
    pub fn recall(&self, probe: &RecallProbe) -> f64 {
        let kept = if self.is_exact { self.neighbors } else { with_margin(self.neighbors) };
        probe.share(|row, nearest| {
            let near = self.lists.best_of(row, kept);
            nearest.iter().filter(|id| near.contains(id)).count()
        })
    }

    /// Searches for neighbors until every probe has this `recall`, or another pass would find too little.
    pub fn reach(&mut self, recall: f64, probes: &[RecallProbe]) {
        let cells = Clusters::new(self.clustering, 2 * self.lists.length());
        let costs = probes.iter().map(|probe| {
            let known = |row: u32| self.lists.best_of(row, self.neighbors);
            let (missing, found) = probe.missing(known);
            cells.sufficient_cost(&missing, found, recall).unwrap_or(bf16::INFINITY)
        });
        let cost = costs.fold(bf16::ZERO, bf16::max);
        self.order = cells.order();
        let groups = cells.groups(cost);
        drop(cells);
        self.is_exact = self.clustering.kernel.is_exact();
        self.join(groups);
        let reached = |descent: &Self| probes.iter().map(|probe| descent.recall(probe)).fold(1.0, f64::min);
        let mut so_far = reached(self);
        // The cells should suffice, so that a recall which is slightly too low may be chance.
        while so_far < recall - RECALL_TOLERANCE && self.descend() {
            so_far = reached(self);
        }
        if so_far < recall - RECALL_TOLERANCE {
            telemetry::recall_missed(recall, so_far);
        }
    }

    /// Completes the lists of samples that have met fewer than K others, by scoring them with all samples.
    ///
    /// These are few that are far from all centroids, or all if an old graph had fewer neighbors than are wanted.
    fn complete(&mut self) {
        let table = self.clustering.table;
        let lacks =
            |id: &u32| !self.lists.is_full(*id) && self.lists.best_of(*id, self.neighbors).len() < self.neighbors;
        let few: Vec<u32> = self.order.iter().copied().filter(lacks).collect();
        if few.is_empty() {
            return;
        }
        let all_nearest = nearest(table, Kernel::new(Format::F32), &few, self.neighbors);
        let stripes = self.lists.stripes();
        let mut similarities = Vec::new();
        for (&id, nearest) in few.iter().zip(&all_nearest) {
            similarities.clear();
            table.similarities_with(&table.get(SampleId(id)), nearest, &mut similarities);
            stripes.offer_all(id, similarities.iter().copied().zip(nearest.iter().map(|id| id.0)));
        }
    }

    /// Scores the samples of each group among themselves.
    fn join(&mut self, groups: Vec<Vec<u32>>) {
        let (table, kernel) = (self.clustering.table, self.clustering.kernel);
        let stripes = self.lists.stripes();
        groups
            .into_par_iter()
            .with_max_len(1)
            .for_each_init(|| Product::new(kernel), |product, group| product.join_within(table, &group, &stripes));
    }

    /// Runs one pass of NN-descent; returns `false` without one if too few lists have changed before.
    fn descend(&mut self) -> bool {
        let changed = self.lists.take_changed();
        let share = changed.iter().filter(|changed| **changed).count() as f64 / changed.len() as f64;
        if share < MIN_CHANGED_SHARE {
            return false;
        }
        let Clustering { table, kernel, .. } = self.clustering;
        let forward = MAX_FORWARD.min(self.lists.length());
        let best = self.lists.best(forward);
        let stripes = self.lists.stripes();
        for chunk in self.order.chunks(self.order.len().div_ceil(REVERSE_CHUNKS)) {
            let reverse = ReverseNeighbors::of(chunk, best.chunks_exact(forward), forward);
            let joins = LocalJoins { table, kernel, stripes: &stripes };
            joins.run(chunk, |index, sample, ids| {
                members(sample, &best[sample as usize * forward..][..forward], reverse.of_index(index), ids);
                if !ids.iter().any(|&id| changed[id as usize]) {
                    ids.clear();
                }
            });
        }
        true
    }

    /// Finishes the graph.
    pub fn into_graph(mut self, version: GraphVersion) -> ProximityGraph {
        self.complete();
        if !self.is_exact {
            self.lists.score_again(self.clustering.table, &self.order, with_margin(self.neighbors));
        }
        self.lists.into_graph(self.neighbors, version)
    }
}

/// Writes the members of a local join: a sample, its neighbors and some samples that it is a neighbor of.
fn members(sample: u32, neighbors: &[SampleId], reverse: &[SampleId], ids: &mut Vec<u32>) {
    ids.clear();
    ids.push(sample);
    for id in neighbors.iter().chain(reverse).filter(|id| **id != EMPTY) {
        if !ids.contains(&id.0) {
            ids.push(id.0);
        }
    }
}

/// Runs many local joins.
struct LocalJoins<'a, 's> {
    table: &'a EmbeddingTable,
    kernel: Kernel,
    stripes: &'a Stripes<'s>,
}

impl LocalJoins<'_, '_> {
    /// Scores the `members` of each sample among themselves; `members(index, sample, ids)` gets its index in the order.
    ///
    /// Near samples have many members in common, so members are packed once for some samples together, unless they are
    /// packed in two ways.
    fn run(&self, order: &[u32], members: impl Fn(usize, u32, &mut Vec<u32>) + Sync) {
        let init = || (Product::new(self.kernel), Rows::default(), Neighborhoods::default());
        let batches = order.par_chunks(JOINS_TOGETHER).enumerate();
        batches.for_each_init(init, |(product, packed, near), (batch, samples)| {
            near.gather(samples, |index, sample, ids| members(batch * JOINS_TOGETHER + index, sample, ids));
            let are_shared = self.table.faces_itself();
            if are_shared {
                packed.pack(self.kernel, self.table, &near.union);
            }
            for group in near.groups.chunk_by(|_, id| *id != GROUP_START) {
                let ids = &group[1..];
                if ids.is_empty() {
                    continue;
                }
                if !are_shared {
                    product.join_within(self.table, ids, self.stripes);
                    continue;
                }
                let index = |id| near.union.binary_search(id).expect("the union has every member") as u32;
                near.indices.clear();
                near.indices.extend(ids.iter().map(index));
                product.join_packed_within(packed, &near.indices, ids, self.stripes);
            }
        });
    }
}

/// The members of the local joins of some samples.
#[derive(Default)]
struct Neighborhoods {
    /// The members of one sample after those of another, each group behind a [`GROUP_START`].
    groups: Vec<u32>,
    /// All members, once each, in ascending order.
    union: Vec<u32>,
    /// The indices of one group's members in the union.
    indices: Vec<u32>,
    members: Vec<u32>,
}

impl Neighborhoods {
    /// Gathers the members of these samples.
    fn gather(&mut self, samples: &[u32], members: impl Fn(usize, u32, &mut Vec<u32>)) {
        self.groups.clear();
        for (index, &sample) in samples.iter().enumerate() {
            members(index, sample, &mut self.members);
            self.groups.push(GROUP_START);
            self.groups.extend_from_slice(&self.members);
        }
        self.union.clear();
        self.union.extend(self.groups.iter().filter(|id| **id != GROUP_START));
        self.union.sort_unstable();
        self.union.dedup();
    }
}

/// Starts a group; it is no sample.
const GROUP_START: u32 = EMPTY.0;

/// The reverse neighbors of some samples: those that have a sample among their neighbors, in an arbitrary order.
struct ReverseNeighbors(Vec<SampleId>);

impl ReverseNeighbors {
    /// Finds at most [`MAX_REVERSE`] reverse neighbors of each of `samples`, given the `forward` neighbors of all
    /// samples.
    fn of<'a>(samples: &[u32], neighbors: impl Iterator<Item = &'a [SampleId]> + Clone, forward: usize) -> Self {
        let mut reverse = vec![EMPTY; samples.len() * MAX_REVERSE];
        let mut counts = vec![0u8; samples.len()];
        let mut indices = vec![u32::MAX; neighbors.clone().count()];
        samples.iter().zip(0..).for_each(|(&id, index)| indices[id as usize] = index);
        for rank in 0..forward {
            for (from, neighbors) in neighbors.clone().enumerate() {
                let to = neighbors[rank];
                let Some(&index) = indices.get(to.index()).filter(|index| **index != u32::MAX) else { continue };
                let index = index as usize;
                let count = usize::from(counts[index]);
                if count < MAX_REVERSE {
                    reverse[index * MAX_REVERSE + count] = SampleId::new(from);
                    counts[index] += 1;
                }
            }
        }
        Self(reverse)
    }

    /// The reverse neighbors of the sample with this index, padded with [`EMPTY`].
    fn of_index(&self, index: usize) -> &[SampleId] {
        &self.0[index * MAX_REVERSE..][..MAX_REVERSE]
    }
}

/// How many local joins share one packing of their members.
const JOINS_TOGETHER: usize = 64;

/// How many neighbors of a sample a local join takes at most.
const MAX_FORWARD: usize = 15;

/// How many reverse neighbors of a sample a local join takes at most.
const MAX_REVERSE: usize = 16;

/// In how many chunks reverse neighbors are found, which bounds their memory.
const REVERSE_CHUNKS: usize = 4;

/// If a smaller share of lists has changed, another pass is not worth its time.
const MIN_CHANGED_SHARE: f64 = 0.3;

/// By how much the recall of a probe may fall short of the wanted one.
const RECALL_TOLERANCE: f64 = 0.01;
