//! The kNN graph of many samples, nearly exact, without scoring all pairs.
//!
//! First the samples of [cells](super::clusters) are scored among themselves, as small matrix products: in as many cells as
//! it takes for the wanted recall. Where those that are known do not suffice, neighbors' neighbors follow (NN-descent:
//! Dong, Charikar and Li, WWW 2011): each sample with its neighbors so far is such a product, again and again until a
//! gauge says that recall suffices, or few lists change.
//!
//! Each pass works on the lists as they stood at its begin, and a list keeps the best of what it is offered whatever
//! the order: the graph does not depend on the number of threads.

use half::bf16;
use rayon::prelude::*;

use super::clusters::{Clustering, Clusters};
use super::product::Product;
use super::recall::{RecallProbe, nearest};
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::{Format, Kernel, Rows};
use crate::graph::params::Size;
use crate::graph::params::with_margin;
use crate::graph::proximity_graph::EMPTY;
use crate::graph::topk::lists::{Lists, Stripes, with_reserve};
use crate::graph::topk::rank::best_first;
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// Each sample's K most similar of all others, but for a few percent.
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

/// Lists on their way to the kNN graph.
pub(in crate::graph) struct Descent<'a> {
    clustering: Clustering<'a>,
    lists: Lists,
    neighbors: usize,
    /// All samples but those that were skipped, near ones near each other: what is gathered for one is still in the
    /// caches for the next.
    order: Vec<u32>,
    /// Whether scores are similarities.
    is_exact: bool,
}

impl<'a> Descent<'a> {
    pub fn new(clustering: Clustering<'a>, size: Size) -> Self {
        let others = clustering.table.present() - 1;
        let lists = Lists::new(clustering.table.len(), with_reserve(size.neighbors).min(others));
        Self { clustering, lists, neighbors: size.neighbors, order: Vec::new(), is_exact: true }
    }

    /// Takes over the neighbors and the first `spares` spares of an old graph by what they score now, and its other
    /// spares as what comes last.
    pub fn carry_over(&mut self, old: &ProximityGraph, spares: usize) {
        let table = self.clustering.table;
        self.order = self.clustering.order();
        let stripes = self.lists.stripes();
        let init = || (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        self.order.par_chunks(TOGETHER).for_each_init(init, |(ids, scores, best_ids, best_scores), samples| {
            for id in samples.iter().map(|id| SampleId(*id)).filter(|id| id.index() < old.len()) {
                ids.clear();
                ids.extend(old.neighbors(id));
                ids.extend(old.spares(id));
                let scored = ids.len().min(old.degree() + spares);
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

    /// The share of each gauge's neighbors that the graph will have.
    pub fn recall(&self, probe: &RecallProbe) -> f64 {
        let kept = if self.is_exact { self.neighbors } else { with_margin(self.neighbors) };
        probe.share(|row, nearest| {
            let near = self.lists.best_of(row, kept);
            nearest.iter().filter(|id| near.contains(id)).count()
        })
    }

    /// Looks for neighbors until every gauge has `recall` of its own, or more would be found too slowly.
    pub fn reach(&mut self, recall: f64, probes: &[RecallProbe]) {
        let cells = Clusters::new(self.clustering, 2 * self.lists.length());
        let costs = probes.iter().map(|probe| {
            let known = |row: u32| self.lists.best_of(row, self.neighbors);
            let (missing, found) = probe.missing(known);
            cells.enough(&missing, found, recall).unwrap_or(bf16::INFINITY)
        });
        let cost = costs.fold(bf16::ZERO, bf16::max);
        self.order = cells.order();
        let groups = cells.groups(cost);
        drop(cells);
        self.is_exact = self.clustering.kernel.is_exact();
        self.join(groups);
        let reached = |descent: &Self| probes.iter().map(|probe| descent.recall(probe)).fold(1.0, f64::min);
        let mut so_far = reached(self);
        // A little less may be chance: the cells were to suffice.
        while so_far < recall - NEARLY && self.descend() {
            so_far = reached(self);
        }
        if so_far < recall - NEARLY {
            telemetry::recall_missed(recall, so_far);
        }
    }

    /// Gives those their nearest of all that have met fewer than K others: a few that are far from all centers, or all
    /// where an old graph had fewer neighbors than are wanted.
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

    /// Scores each sample, its neighbors and some that it is one of among themselves; `false` where too few lists have
    /// changed before for that to find much.
    fn descend(&mut self) -> bool {
        let changed = self.lists.take_changed();
        let share = changed.iter().filter(|changed| **changed).count() as f64 / changed.len() as f64;
        if share < DONE {
            return false;
        }
        let Clustering { table, kernel, .. } = self.clustering;
        let forward = FORWARD.min(self.lists.length());
        let best = self.lists.best(forward);
        let stripes = self.lists.stripes();
        for part in self.order.chunks(self.order.len().div_ceil(PARTS)) {
            let reverse = Reverse::of(part, best.chunks_exact(forward), forward);
            let joins = Joins { table, kernel, stripes: &stripes };
            joins.run(part, |place, sample, ids| {
                members(sample, &best[sample as usize * forward..][..forward], reverse.of_place(place), ids);
                if !ids.iter().any(|&id| changed[id as usize]) {
                    ids.clear();
                }
            });
        }
        true
    }

    pub fn into_graph(mut self, version: GraphVersion) -> ProximityGraph {
        self.complete();
        if !self.is_exact {
            self.lists.score_again(self.clustering.table, &self.order, with_margin(self.neighbors));
        }
        self.lists.into_graph(self.neighbors, version)
    }
}

/// A sample, its neighbors and some that it is one of.
fn members(sample: u32, neighbors: &[SampleId], reverse: &[SampleId], ids: &mut Vec<u32>) {
    ids.clear();
    ids.push(sample);
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
    stripes: &'a Stripes<'s>,
}

impl Joins<'_, '_> {
    /// Scores the `members` of each sample, by its place in the order, among themselves. Near samples have many in common,
    /// so these are packed once for some samples together.
    fn run(&self, order: &[u32], members: impl Fn(usize, u32, &mut Vec<u32>) + Sync) {
        let init = || (Product::new(self.kernel), Rows::default(), Near::default());
        order.par_chunks(TOGETHER).enumerate().for_each_init(init, |(product, packed, near), (turn, samples)| {
            near.gather(samples, |place, sample, ids| members(turn * TOGETHER + place, sample, ids));
            packed.pack(self.kernel, self.table, &near.union);
            for group in near.groups.chunk_by(|_, id| *id != END) {
                let ids = &group[1..];
                if ids.is_empty() {
                    continue;
                }
                near.places.clear();
                near.places.extend(ids.iter().map(|id| near.union.binary_search(id).expect("one of the union") as u32));
                product.join_packed_within(packed, &near.places, ids, self.stripes);
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
    fn gather(&mut self, samples: &[u32], members: impl Fn(usize, u32, &mut Vec<u32>)) {
        self.groups.clear();
        for (place, &sample) in samples.iter().enumerate() {
            members(place, sample, &mut self.members);
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

/// Of some samples, those that have them among their neighbors: the first ones that do, in an order of no meaning.
struct Reverse(Vec<SampleId>);

impl Reverse {
    /// `neighbors`: `forward` of each sample.
    fn of<'a>(part: &[u32], neighbors: impl Iterator<Item = &'a [SampleId]> + Clone, forward: usize) -> Self {
        let mut reverse = vec![EMPTY; part.len() * REVERSE];
        let mut counts = vec![0u8; part.len()];
        let mut places = vec![u32::MAX; neighbors.clone().count()];
        part.iter().zip(0..).for_each(|(&id, place)| places[id as usize] = place);
        for rank in 0..forward {
            for (from, neighbors) in neighbors.clone().enumerate() {
                let to = neighbors[rank];
                let Some(&place) = places.get(to.index()).filter(|place| **place != u32::MAX) else { continue };
                let (place, count) = (place as usize, &mut counts[place as usize]);
                if usize::from(*count) < REVERSE {
                    reverse[place * REVERSE + usize::from(*count)] = SampleId::new(from);
                    *count += 1;
                }
            }
        }
        Self(reverse)
    }

    /// Those of the sample in this place of the part; [`EMPTY`] where there are no more.
    fn of_place(&self, place: usize) -> &[SampleId] {
        &self.0[place * REVERSE..][..REVERSE]
    }
}

/// Samples whose members are packed together.
const TOGETHER: usize = 64;

/// Neighbors of a sample that are joined with each other.
const FORWARD: usize = 15;

/// Samples that have it for a neighbor and are joined with these, at most.
const REVERSE: usize = 16;

/// Parts of the samples for which those are known at a time, for the memory they take.
const PARTS: usize = 4;

/// The share of changed lists at which another pass is not worth its time.
const DONE: f64 = 0.3;

/// What a gauge may be off by.
const NEARLY: f64 = 0.01;
