//! Cells of near samples, whose members are likely neighbors of each other.
//!
//! As in an inverted file index (Jégou, Douze and Schmid, TPAMI 2011) each cell has a center, but a sample is in the cells
//! of several centers near it, and what meets in a cell is scored: a product that is as fast as that of all pairs. How
//! many cells it takes for enough neighbors to meet is known before anything is scored, from those of a few samples.

use rand::seq::index;
use rayon::prelude::*;

use super::generator;
use super::kernel::Kernel;
use super::product::Product;
use super::top_k::TopK;
use crate::config::Similarity;
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::store::EmbeddingTable;

/// What parts samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parting<'a> {
    pub table: &'a EmbeddingTable,
    pub kernel: Kernel,
    pub seed: u64,
    pub version: GraphVersion,
}

/// The cells of all samples.
pub(super) struct Cells<'a> {
    parting: Parting<'a>,
    /// All samples but those that were skipped.
    ids: Vec<u32>,
    /// Of each of them the numbers of its [`MOST`] nearest cells, or of all cells, nearest first.
    nearest: Vec<u16>,
    most: usize,
    count: usize,
}

impl<'a> Cells<'a> {
    /// About 3 √N of them, for 3 N √N d multiplications: finding cells then costs less than what is done in them. Fewer
    /// where there would not be `least` samples in each, on average.
    pub fn new(parting: Parting<'a>, least: usize) -> Self {
        let ids = parting.table.present_ids();
        let count = ((CELLS * (ids.len() as f64).sqrt()) as usize).min(ids.len() / least).clamp(1, 1 << 16);
        // A few thousand samples are one cell.
        let count = if ids.len() <= SMALL { 1 } else { count };
        let most = MOST.min(count);
        let nearest = parting.nearest(&ids, &parting.centers(&ids, count, 0), most);
        Self { parting, ids, nearest, most, count }
    }

    /// The smallest number of cells for each sample in which at least the `share` of these pairs meet; `None` where all
    /// that are known do not do. `known` of them need not.
    pub fn memberships(&self, pairs: &[(u32, u32)], known: usize, share: f64) -> Option<usize> {
        let mut meet = vec![0; self.most];
        for &(a, b) in pairs {
            let (a, b) = (self.cells_of(a), self.cells_of(b));
            let common =
                a.iter().enumerate().filter_map(|(i, cell)| b.iter().position(|c| c == cell).map(|j| i.max(j)));
            if let Some(first) = common.min() {
                meet[first] += 1;
            }
        }
        let wanted = share * (pairs.len() + known) as f64;
        let mut found = known;
        (1..=self.most).find(|memberships| {
            found += meet[memberships - 1];
            found as f64 >= wanted
        })
    }

    fn cells_of(&self, sample: u32) -> &[u16] {
        let place = self.ids.binary_search(&sample).expect("a sample that was not skipped");
        &self.nearest[place * self.most..][..self.most]
    }

    /// The samples of each cell, where each is in its nearest `memberships`, at most [`MOST`].
    pub fn groups(&self, memberships: usize) -> Vec<Vec<u32>> {
        let memberships = memberships.min(self.most);
        let of_each = || self.nearest.chunks_exact(self.most).map(|cells| &cells[..memberships]);
        let mut sizes = vec![0; self.count];
        of_each().flatten().for_each(|&cell| sizes[usize::from(cell)] += 1);
        let mut groups: Vec<Vec<u32>> = sizes.into_iter().map(Vec::with_capacity).collect();
        for (&id, cells) in self.ids.iter().zip(of_each()) {
            cells.iter().for_each(|&cell| groups[usize::from(cell)].push(id));
        }
        let typical = (self.ids.len() * memberships).div_ceil(self.count);
        let split = |(number, group)| self.parting.split(group, TOO_LARGE * typical, typical, 1 + number as u64);
        groups.into_par_iter().enumerate().flat_map_iter(split).collect()
    }

    /// All samples, near ones near each other.
    pub fn order(&self) -> Vec<u32> {
        self.groups(1).concat()
    }
}

impl Parting<'_> {
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
        let nearest = self.nearest(&ids, &self.centers(&ids, count, node), 1);
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
        let nearest = self.nearest(others, &center_table(sums.clone(), dimension), 1);
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

    /// The numbers of the nearest `most` centers of each sample, nearest first.
    fn nearest(&self, ids: &[u32], centers: &EmbeddingTable, most: usize) -> Vec<u16> {
        let numbers: Vec<u32> = (0..centers.len() as u32).collect();
        let mut nearest = vec![0; ids.len() * most];
        let init = || (Product::new(self.kernel), vec![]);
        nearest.par_chunks_mut(PART * most).zip(ids.par_chunks(PART)).for_each_init(init, |state, (nearest, ids)| {
            let (product, best) = state;
            best.resize_with(ids.len(), || TopK::new(most));
            product.pack_rows(self.table, ids);
            product.pack_columns(centers, &numbers);
            let lowest = ids.iter().map(|_| f32::NEG_INFINITY);
            let unreached = numbers.iter().map(|_| f32::INFINITY);
            product.run(lowest, unreached, false, |thresholds, _, row, center, score| {
                best[row].push(score, center as u32);
                thresholds.rows[row] = best[row].threshold();
            });
            for (nearest, best) in nearest.chunks_exact_mut(most).zip(best) {
                nearest.iter_mut().zip(best.drain_sorted()).for_each(|(nearest, (_, center))| *nearest = center as u16);
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
pub(super) const MOST: usize = 16;

/// Cells for the root of the number of samples.
const CELLS: f64 = 3.0;

/// Samples that are not parted.
const SMALL: usize = 2048;

/// Times the typical size at which a cell is split.
const TOO_LARGE: usize = 8;

/// Samples that make a center, beside its leader, on average.
const AVERAGED: usize = 4;

/// Samples of the groups whose order is that of all, on average.
const ORDERED: usize = 16;

/// A sum of unit vectors that has a direction.
const SHORTEST: f32 = 1e-3;

/// Samples that find their centers at a time.
const PART: usize = 2048;
