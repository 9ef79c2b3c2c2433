//! Cells of near samples, whose members are likely neighbors of each other.
//!
//! As in an inverted file index (Jégou, Douze and Schmid, TPAMI 2011) each cell has a center, but a sample is in the cells
//! of several centers near it, and what meets in a cell is scored: a product that is as fast as that of all pairs. Which
//! cells it takes for enough neighbors to meet is known before anything is scored, from those of a few samples: the
//! memberships that cost least for what they give.

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

/// What parts samples.
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
    /// All samples but those that were skipped.
    ids: Vec<u32>,
    /// Of each of them the numbers of its [`MOST`] nearest cells, or of all cells, nearest first.
    nearest: Vec<u16>,
    /// What each of these memberships costs for what it gives.
    costs: Vec<bf16>,
    most: usize,
    count: usize,
}

impl<'a> Clusters<'a> {
    /// About 2 √N of them, for 2 N √N d multiplications: finding cells then costs less than what is done in them. Fewer
    /// where there would not be `least` samples in each, on average.
    pub fn new(clustering: Clustering<'a>, least: usize) -> Self {
        let ids = clustering.table.present_ids();
        let count = ((CELLS * (ids.len() as f64).sqrt()) as usize).min(ids.len() / least).clamp(1, 1 << 16);
        // A few thousand samples are one cell.
        let count = if ids.len() <= SMALL { 1 } else { count };
        let most = MOST.min(count);
        let Nearest { centers: nearest, gaps } = clustering.nearest(&ids, &clustering.centers(&ids, count, 0), most);
        let costs = costs(&nearest, gaps, most, count);
        Self { clustering, ids, nearest, costs, most, count }
    }

    /// What memberships may cost at most, so that at least the `share` of these pairs meet in a cell that both are members
    /// of; `None` where all that are known do not do. `known` of the pairs need not meet.
    pub fn enough(&self, pairs: &[(u32, u32)], known: usize, share: f64) -> Option<bf16> {
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

    fn memberships(&self, sample: u32) -> impl Iterator<Item = (u16, bf16)> + Clone {
        let place = self.ids.binary_search(&sample).expect("a sample that was not skipped");
        let cells = place * self.most..(place + 1) * self.most;
        self.nearest[cells.clone()].iter().copied().zip(self.costs[cells].iter().copied())
    }

    /// The samples of each cell, by the memberships that cost no more than this: those of its nearest, at least.
    pub fn groups(&self, cost: bf16) -> Vec<Vec<u32>> {
        let memberships = self.nearest.iter().zip(&self.costs).map(|(&cell, own)| (usize::from(cell), *own <= cost));
        let members = |(cell, counts): (usize, bool)| counts.then_some(cell);
        let mut sizes = vec![0; self.count];
        memberships.clone().filter_map(members).for_each(|cell| sizes[cell] += 1);
        let typical = sizes.iter().sum::<usize>().div_ceil(self.count);
        let mut groups: Vec<Vec<u32>> = sizes.into_iter().map(Vec::with_capacity).collect();
        for (place, (cell, counts)) in memberships.enumerate() {
            if counts {
                groups[cell].push(self.ids[place / self.most]);
            }
        }
        let split = |(number, group)| self.clustering.split(group, TOO_LARGE * typical, typical, 1 + number as u64);
        groups.into_par_iter().enumerate().flat_map_iter(split).collect()
    }

    /// All samples, near ones near each other.
    pub fn order(&self) -> Vec<u32> {
        self.groups(bf16::ZERO).concat()
    }
}

/// What memberships cost: rank × distance × √size. So more for a center that others are nearer than, for one that is far,
/// in mean steps from one center to the next, and for a large cell, where a member is scored with many. A sample's
/// nearest cell costs nothing.
///
/// By the pairs that two data sets needed (WordNet's definitions, and a million in clusters), members of their m nearest
/// cells are scored with 1.3 to 3 times as many others, to the same recall.
fn costs(nearest: &[u16], mut gaps: Vec<bf16>, most: usize, count: usize) -> Vec<bf16> {
    let mut sizes = vec![0f32; count];
    nearest.iter().for_each(|&cell| sizes[usize::from(cell)] += 1.0);
    let last = gaps.iter().skip(most - 1).step_by(most);
    let step = last.map(|gap| f64::from(gap.to_f32())).sum::<f64>() / gaps.len() as f64;
    let step = step.max(f64::from(f32::MIN_POSITIVE)) as f32;
    gaps.par_chunks_exact_mut(most).zip(nearest.par_chunks_exact(most)).for_each(|(gaps, cells)| {
        for (rank, (gap, &cell)) in gaps.iter_mut().zip(cells).enumerate() {
            let distance = gap.to_f32() / step + LEAST_DISTANCE;
            *gap = bf16::from_f32(rank as f32 * distance * sizes[usize::from(cell)].sqrt());
        }
    });
    gaps
}

/// The nearest centers of some samples.
struct Nearest {
    /// Their numbers, nearest first.
    centers: Vec<u16>,
    /// By how much the nearest scores better than they.
    gaps: Vec<bf16>,
}

impl<'a> Clustering<'a> {
    pub fn new(table: &'a EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> Self {
        // Scoring the best again is little beside all the others, so i8 pays where it suits.
        let kernel = Kernel::choose(config.precision, table.dimension(), 1, usize::MAX);
        Self { table, kernel, seed, version }
    }

    /// All samples but those that were skipped, near ones near each other, for less than cells cost.
    pub fn order(&self) -> Vec<u32> {
        let ids = self.table.present_ids();
        // As many centers as samples of a group, so that both splits together cost least.
        let typical = (ids.len() * ORDERED).isqrt().max(ORDERED);
        let groups = self.split(ids, typical, typical, 0);
        let split = |(number, group)| self.split(group, 4 * ORDERED, ORDERED, 1 + number as u64);
        let parts = groups.into_par_iter().enumerate().flat_map_iter(split);
        parts.collect::<Vec<_>>().concat()
    }

    /// Groups of about the `typical` size, near samples together, unless these are fewer than `most`.
    fn split(&self, ids: Vec<u32>, most: usize, typical: usize, node: u64) -> Vec<Vec<u32>> {
        if ids.len() <= most {
            return vec![ids];
        }
        let count = ids.len().div_ceil(typical).clamp(2, 1 << 16);
        let nearest = self.nearest(&ids, &self.centers(&ids, count, node), 1).centers;
        let mut groups = vec![Vec::new(); count];
        ids.iter().zip(nearest).for_each(|(&id, group)| groups[usize::from(group)].push(id));
        // Of those that are so much alike that no center parts them, any may be together.
        let cut = |group: Vec<u32>| group.chunks(most).map(<[_]>::to_vec).collect::<Vec<_>>();
        groups.into_iter().filter(|group| !group.is_empty()).flat_map(cut).collect()
    }

    /// The means of samples drawn at random and of what is nearest to each of them among a few more samples.
    fn centers(&self, ids: &[u32], count: usize, node: u64) -> EmbeddingTable {
        let mut generator = generator(self.seed, self.version, node);
        let drawn = index::sample(&mut generator, ids.len(), ids.len().min(count * (1 + AVERAGED))).into_vec();
        let drawn: Vec<u32> = drawn.into_iter().map(|place| ids[place]).collect();
        let (leaders, others) = drawn.split_at(count);
        let dimension = self.table.dimension();
        let mut sums: Vec<f32> = leaders.iter().flat_map(|&id| self.table.get(SampleId(id)).into_owned()).collect();
        let mut members = vec![1f32; count];
        let nearest = self.nearest(others, &center_table(sums.clone(), dimension), 1).centers;
        for (&id, center) in others.iter().zip(nearest) {
            let sum = &mut sums[usize::from(center) * dimension..][..dimension];
            sum.iter_mut().zip(&*self.table.get(SampleId(id))).for_each(|(sum, x)| *sum += x);
            members[usize::from(center)] += 1.0;
        }
        let means = sums.chunks_exact_mut(dimension).zip(members).zip(leaders);
        means.for_each(|((sum, members), &leader)| self.mean(sum, members, leader));
        center_table(sums, dimension)
    }

    /// Makes a sum of vectors their mean, of unit length for cosine.
    fn mean(&self, sum: &mut [f32], members: f32, leader: u32) {
        let length = match self.table.similarity() {
            Similarity::Cosine => sum.iter().map(|x| x * x).sum::<f32>().sqrt(),
            Similarity::Dot => members,
        };
        if length < SHORTEST {
            // Opposite vectors have no mean direction.
            self.table.read(SampleId(leader), sum);
        } else {
            sum.iter_mut().for_each(|x| *x /= length);
        }
    }

    /// The nearest `most` centers of each sample.
    fn nearest(&self, ids: &[u32], centers: &EmbeddingTable, most: usize) -> Nearest {
        let numbers: Vec<u32> = (0..centers.len() as u32).collect();
        let slots = ids.len() * most;
        let mut nearest = Nearest { centers: vec![0; slots], gaps: vec![bf16::ZERO; slots] };
        let parts = nearest.centers.par_chunks_mut(PART * most).zip(nearest.gaps.par_chunks_mut(PART * most));
        let init = || (Product::new(self.kernel), vec![]);
        parts.zip(ids.par_chunks(PART)).for_each_init(init, |(product, best), ((nearest, gaps), ids)| {
            best.resize_with(ids.len(), || TopK::new(most));
            product.pack_rows(self.table, ids);
            product.pack_columns(centers, &numbers);
            let lowest = ids.iter().map(|_| f32::NEG_INFINITY);
            let unreached = numbers.iter().map(|_| f32::INFINITY);
            product.run(lowest, unreached, false, |thresholds, _, row, center, score| {
                best[row].push(score, center as u32);
                thresholds.rows[row] = best[row].threshold();
            });
            let slots = nearest.chunks_exact_mut(most).zip(gaps.chunks_exact_mut(most));
            for ((nearest, gaps), best) in slots.zip(best) {
                let mut first = None;
                for ((nearest, gap), (score, center)) in nearest.iter_mut().zip(gaps).zip(best.drain_sorted()) {
                    *nearest = center as u16;
                    *gap = bf16::from_f32(*first.get_or_insert(score) - score);
                }
            }
        });
        nearest
    }
}

/// Centers as a table, half as long: what is nearest stays so, and rounding makes none too long.
fn center_table(mut vectors: Vec<f32>, dimension: usize) -> EmbeddingTable {
    vectors.iter_mut().for_each(|x| *x *= 0.5);
    let table = EmbeddingTable::new(vectors, dimension, Similarity::Dot, ModelVersion(0));
    table.expect("halves of means are finite and shorter than the longest vector")
}

/// Cells of each sample that are known, at most.
const MOST: usize = 16;

/// Cells for the root of the number of samples.
const CELLS: f64 = 2.0;

/// The distance of a center that is as near as the nearest one, in mean steps from one center to the next.
const LEAST_DISTANCE: f32 = 2.0;

/// Samples that are not parted.
const SMALL: usize = 2048;

/// Times the typical size at which a cell is split.
const TOO_LARGE: usize = 8;

/// Samples that make a center, beside its leader, on average.
const AVERAGED: usize = 4;

/// Samples of the groups whose order is that of all, on average.
const ORDERED: usize = 32;

/// A sum of unit vectors that has a direction.
const SHORTEST: f32 = 1e-3;

/// Samples that find their centers at a time.
const PART: usize = 2048;
