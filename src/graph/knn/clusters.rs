//! Cells of near samples, whose members are likely neighbors of each other.
//!
//! This is an inverted file index with multi-assignment (Jégou, Douze and Schmid, TPAMI 2011): each cell is an inverted
//! list with a centroid, and a sample is a member of the cells of several near centroids. Scoring the members of a cell
//! among themselves is a product that runs as fast as that of all pairs.
//!
//! 1. Find the centroids, by one round of k-means on a few samples.
//! 2. Find the nearest centroids of each sample, which are its possible memberships, and the cost of each.
//! 3. Find the cost up to which memberships are needed, from the true neighbors of a few samples: so the number of
//!    cells is known before anything is scored.

use half::bf16;
use rand::seq::index;
use rayon::prelude::*;

use super::product::Product;
use crate::config::{GraphConfig, Similarity};
use crate::embeddings::EmbeddingTable;
use crate::graph::kernel::Kernel;
use crate::graph::params::generator;
use crate::graph::topk::buffer::TopK;
use crate::sample::{GraphVersion, ModelVersion, SampleId};

/// What a clustering needs: embeddings, a kernel that scores, and a source of random numbers.
#[derive(Clone, Copy, Debug)]
pub(in crate::graph) struct Clustering<'a> {
    pub table: &'a EmbeddingTable,
    pub kernel: Kernel,
    pub seed: u64,
    pub version: GraphVersion,
}

/// The cells of all samples.
pub(in crate::graph) struct Clusters<'a> {
    clustering: Clustering<'a>,
    /// All samples that were not skipped, in ascending order.
    ids: Vec<u32>,
    /// The numbers of the nearest cells [ids × `per_sample`], nearest first.
    nearest: Vec<u16>,
    /// The cost of each of these memberships.
    costs: Vec<bf16>,
    /// How many memberships of each sample are known: [`MAX_MEMBERSHIPS`], or the number of cells if that is less.
    per_sample: usize,
    /// How many cells there are.
    count: usize,
}

impl<'a> Clusters<'a> {
    /// Makes about 2 √N cells, for 2 N √N d multiplications, so that finding cells costs less than scoring in them.
    ///
    /// It makes fewer if a cell would otherwise have less than `min_members` members on average.
    pub fn new(clustering: Clustering<'a>, min_members: usize) -> Self {
        let ids = clustering.table.present_ids();
        let by_root = (CELLS_PER_ROOT * (ids.len() as f64).sqrt()) as usize;
        let count = match ids.len() {
            0..=MAX_SINGLE_CELL => 1,
            len => by_root.min(len / min_members).clamp(1, 1 << 16),
        };
        let per_sample = MAX_MEMBERSHIPS.min(count);
        let centroids = clustering.centroids(&ids, count, 0);
        let NearestCentroids { numbers: nearest, gaps } = clustering.nearest(&ids, &centroids, per_sample);
        let costs = costs(&nearest, gaps, per_sample, count);
        Self { clustering, ids, nearest, costs, per_sample, count }
    }

    /// The smallest cost threshold at which a fraction `share` of `pairs` fall into a common cell.
    ///
    /// Returns `None` if no threshold suffices. `known` pairs count in addition, as already found.
    pub fn sufficient_cost(&self, pairs: &[(u32, u32)], known: usize, share: f64) -> Option<bf16> {
        let meet = |&(a, b): &(u32, u32)| {
            let (a, b) = (self.memberships(a), self.memberships(b));
            let common = a.flat_map(|(cell, cost)| b.clone().filter(move |b| b.0 == cell).map(move |b| cost.max(b.1)));
            common.reduce(bf16::min)
        };
        let wanted = (share * (pairs.len() + known) as f64).ceil() as usize;
        let Some(last) = wanted.checked_sub(known + 1) else { return Some(bf16::ZERO) };
        let mut meet: Vec<bf16> = pairs.iter().filter_map(meet).collect();
        meet.sort_unstable_by(bf16::total_cmp);
        meet.get(last).copied()
    }

    /// The known memberships of a sample: cell and cost.
    fn memberships(&self, sample: u32) -> impl Iterator<Item = (u16, bf16)> + Clone {
        let index = self.ids.binary_search(&sample).expect("a sample that was not skipped");
        let cells = index * self.per_sample..(index + 1) * self.per_sample;
        self.nearest[cells.clone()].iter().copied().zip(self.costs[cells].iter().copied())
    }

    /// The members of each cell, by the memberships that cost at most `cost`; cells that are too large are split.
    ///
    /// The membership in its nearest cell costs a sample nothing.
    pub fn groups(&self, cost: bf16) -> Vec<Vec<u32>> {
        let memberships = self.nearest.iter().zip(&self.costs).map(|(&cell, own)| (usize::from(cell), *own <= cost));
        let members = |(cell, counts): (usize, bool)| counts.then_some(cell);
        let mut sizes = vec![0; self.count];
        memberships.clone().filter_map(members).for_each(|cell| sizes[cell] += 1);
        let typical = sizes.iter().sum::<usize>().div_ceil(self.count);
        let mut groups: Vec<Vec<u32>> = sizes.into_iter().map(Vec::with_capacity).collect();
        for (index, (cell, counts)) in memberships.enumerate() {
            if counts {
                groups[cell].push(self.ids[index / self.per_sample]);
            }
        }
        let split =
            |(number, group)| self.clustering.split(group, MAX_CELL_FACTOR * typical, typical, 1 + number as u64);
        groups.into_par_iter().enumerate().flat_map_iter(split).collect()
    }

    /// All samples, with near ones near each other.
    pub fn order(&self) -> Vec<u32> {
        self.groups(bf16::ZERO).concat()
    }
}

/// The costs of memberships: assigning a sample to its r-th nearest centroid costs r × distance × √(cell size).
///
/// The distance is in units of the mean spacing of centroids. r counts from 0, so the nearest cell costs nothing. A
/// large cell costs more, since each member is scored with many. docs/graph.md compares this with equal costs.
fn costs(nearest: &[u16], mut gaps: Vec<bf16>, per_sample: usize, count: usize) -> Vec<bf16> {
    let mut sizes = vec![0f32; count];
    nearest.iter().for_each(|&cell| sizes[usize::from(cell)] += 1.0);
    let last = gaps.iter().skip(per_sample - 1).step_by(per_sample);
    let step = last.map(|gap| f64::from(gap.to_f32())).sum::<f64>() / gaps.len() as f64;
    let step = step.max(f64::from(f32::MIN_POSITIVE)) as f32;
    gaps.par_chunks_exact_mut(per_sample).zip(nearest.par_chunks_exact(per_sample)).for_each(|(gaps, cells)| {
        for (rank, (gap, &cell)) in gaps.iter_mut().zip(cells).enumerate() {
            let distance = gap.to_f32() / step + DISTANCE_OFFSET;
            *gap = bf16::from_f32(rank as f32 * distance * sizes[usize::from(cell)].sqrt());
        }
    });
    gaps
}

/// The nearest centroids of some samples.
pub(super) struct NearestCentroids {
    /// The numbers of the centroids, nearest first.
    pub numbers: Vec<u16>,
    /// How much worse each scores than the nearest one.
    gaps: Vec<bf16>,
}

impl<'a> Clustering<'a> {
    /// A clustering with the kernel that `config` asks for.
    pub fn new(table: &'a EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> Self {
        // Few scores are computed again beside all others, so i8 pays whenever the dimension suits.
        let kernel = Kernel::choose(config.precision, table.dimension(), 1, usize::MAX);
        Self { table, kernel, seed, version }
    }

    /// All samples that were not skipped, with near ones near each other, for less than cells cost.
    pub fn order(&self) -> Vec<u32> {
        let ids = self.table.present_ids();
        // About as many groups in the first split as in each second one, so that both together cost least.
        let typical = (ids.len() * ORDERED_GROUP).isqrt().max(ORDERED_GROUP);
        let groups = self.split(ids, typical, typical, 0);
        let split = |(number, group)| self.split(group, 4 * ORDERED_GROUP, ORDERED_GROUP, 1 + number as u64);
        let parts = groups.into_par_iter().enumerate().flat_map_iter(split);
        parts.collect::<Vec<_>>().concat()
    }

    /// Splits samples into groups of near ones of about the `typical` size, unless they are at most `most`.
    fn split(&self, ids: Vec<u32>, most: usize, typical: usize, node: u64) -> Vec<Vec<u32>> {
        if ids.len() <= most {
            return vec![ids];
        }
        let count = ids.len().div_ceil(typical).clamp(2, 1 << 16);
        let nearest = self.nearest(&ids, &self.centroids(&ids, count, node), 1).numbers;
        let mut groups = vec![Vec::new(); count];
        ids.iter().zip(nearest).for_each(|(&id, group)| groups[usize::from(group)].push(id));
        // Samples that are so much alike that no centroid separates them are cut anywhere.
        let cut = |group: Vec<u32>| group.chunks(most).map(<[_]>::to_vec).collect::<Vec<_>>();
        groups.into_iter().filter(|group| !group.is_empty()).flat_map(cut).collect()
    }

    /// Finds `count` centroids by one round of k-means on random samples.
    ///
    /// 1. Draw the centroid seeds, and [`SAMPLES_PER_CENTROID`] more samples for each.
    /// 2. Assign these samples to the nearest seed.
    /// 3. Each centroid is the mean of its seed and of the samples assigned to it.
    pub(super) fn centroids(&self, ids: &[u32], count: usize, node: u64) -> EmbeddingTable {
        let mut generator = generator(self.seed, self.version, node);
        let amount = ids.len().min(count * (1 + SAMPLES_PER_CENTROID));
        let drawn: Vec<u32> = index::sample(&mut generator, ids.len(), amount).iter().map(|index| ids[index]).collect();
        let (seeds, others) = drawn.split_at(count);
        let dimension = self.table.dimension();
        let mut sums: Vec<f32> = seeds.iter().flat_map(|&id| self.table.get(SampleId(id)).into_owned()).collect();
        let mut members = vec![1f32; count];
        let nearest = self.nearest(others, &centroid_table(sums.clone(), dimension), 1).numbers;
        for (&id, centroid) in others.iter().zip(nearest) {
            let sum = &mut sums[usize::from(centroid) * dimension..][..dimension];
            sum.iter_mut().zip(&*self.table.get(SampleId(id))).for_each(|(sum, x)| *sum += x);
            members[usize::from(centroid)] += 1.0;
        }
        for ((sum, members), &seed) in sums.chunks_exact_mut(dimension).zip(members).zip(seeds) {
            self.mean(sum, members, seed);
        }
        centroid_table(sums, dimension)
    }

    /// Turns a sum of vectors into their mean, of unit length for cosine.
    pub(super) fn mean(&self, sum: &mut [f32], members: f32, centroid_seed: u32) {
        let length = match self.table.similarity() {
            Similarity::Cosine | Similarity::Cross => sum.iter().map(|x| x * x).sum::<f32>().sqrt(),
            Similarity::Dot => members,
        };
        if length < MIN_SUM_LENGTH {
            // Opposite vectors have no mean direction.
            self.table.read(SampleId(centroid_seed), sum);
        } else {
            sum.iter_mut().for_each(|x| *x /= length);
        }
    }

    /// Finds the `per_sample` nearest centroids of each sample.
    pub(super) fn nearest(&self, ids: &[u32], centroids: &EmbeddingTable, per_sample: usize) -> NearestCentroids {
        let numbers: Vec<u32> = (0..centroids.len() as u32).collect();
        let slots = ids.len() * per_sample;
        let mut nearest = NearestCentroids { numbers: vec![0; slots], gaps: vec![bf16::ZERO; slots] };
        let chunk_slots = ASSIGNED_AT_ONCE * per_sample;
        let chunks = nearest.numbers.par_chunks_mut(chunk_slots).zip(nearest.gaps.par_chunks_mut(chunk_slots));
        let init = || (Product::new(self.kernel), vec![]);
        chunks.zip(ids.par_chunks(ASSIGNED_AT_ONCE)).for_each_init(init, |(product, best), ((nearest, gaps), ids)| {
            best.resize_with(ids.len(), || TopK::new(per_sample));
            product.pack_rows(self.table, ids);
            product.pack_columns(centroids, &numbers);
            let lowest = ids.iter().map(|_| f32::NEG_INFINITY);
            let unreached = numbers.iter().map(|_| f32::INFINITY);
            product.run(lowest, unreached, false, |thresholds, _, row, centroid, score| {
                best[row].push(score, centroid as u32);
                thresholds.rows[row] = best[row].threshold();
            });
            let slots = nearest.chunks_exact_mut(per_sample).zip(gaps.chunks_exact_mut(per_sample));
            for ((nearest, gaps), best) in slots.zip(best) {
                let mut best_score = None;
                for ((nearest, gap), (score, centroid)) in nearest.iter_mut().zip(gaps).zip(best.drain_sorted()) {
                    *nearest = centroid as u16;
                    *gap = bf16::from_f32(*best_score.get_or_insert(score) - score);
                }
            }
        });
        nearest
    }
}

/// Centroids as a table, at half their length: the order of scores stays, and rounding makes none too long.
pub(super) fn centroid_table(mut vectors: Vec<f32>, dimension: usize) -> EmbeddingTable {
    vectors.iter_mut().for_each(|x| *x *= 0.5);
    let table = EmbeddingTable::new(vectors, dimension, Similarity::Dot, ModelVersion(0));
    table.expect("halves of means are finite and shorter than the longest vector")
}

/// How many cells of each sample are known at most.
const MAX_MEMBERSHIPS: usize = 16;

/// The number of cells, divided by √N.
const CELLS_PER_ROOT: f64 = 2.0;

/// What is added to every distance, in units of the mean spacing of centroids.
const DISTANCE_OFFSET: f32 = 2.0;

/// How many samples are a single cell at most.
const MAX_SINGLE_CELL: usize = 2048;

/// A cell of more than this many times the typical size is split.
const MAX_CELL_FACTOR: usize = 8;

/// How many samples are averaged to a centroid, beside its seed.
const SAMPLES_PER_CENTROID: usize = 4;

/// How many samples the groups of [`Clustering::order`] have on average.
const ORDERED_GROUP: usize = 32;

/// A sum of unit vectors that is shorter than this has no direction.
const MIN_SUM_LENGTH: f32 = 1e-3;

/// How many samples a thread assigns to centroids at a time.
const ASSIGNED_AT_ONCE: usize = 2048;
