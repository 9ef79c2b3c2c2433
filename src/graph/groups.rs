//! Groups of near samples: each joins the nearest of some leaders, which are samples drawn at random.

use rand::seq::index;
use rayon::prelude::*;

use super::generator;
use super::kernel::Kernel;
use super::product::Product;
use super::top_k::TopK;
use crate::sample::GraphVersion;
use crate::store::EmbeddingTable;

/// How to group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grouping<'a> {
    pub table: &'a EmbeddingTable,
    pub kernel: Kernel,
    pub seed: u64,
    pub version: GraphVersion,
    /// Samples of a group, on average.
    pub typical: usize,
    /// Groups that each sample joins.
    pub memberships: usize,
}

impl Grouping<'_> {
    /// All samples in groups of at most four times the typical size, near ones together. Costs about N² d / `typical`
    /// multiplications, for millions of samples less: they are split twice.
    pub fn groups(&self) -> Vec<Vec<u32>> {
        self.split(self.table.present_ids(), self.memberships, 1)
    }

    /// A group in smaller ones.
    pub fn part(&self, group: Vec<u32>, number: u64) -> Vec<Vec<u32>> {
        self.split(group, 1, number << 32)
    }

    fn split(&self, ids: Vec<u32>, memberships: usize, node: u64) -> Vec<Vec<u32>> {
        if ids.len() <= 4 * self.typical {
            return vec![ids];
        }
        let leaders = (ids.len() * memberships).div_ceil(self.typical).min(LEADERS);
        let mut generator = generator(self.seed, self.version, node);
        let mut leaders: Vec<u32> =
            index::sample(&mut generator, ids.len(), leaders).iter().map(|place| ids[place]).collect();
        leaders.sort_unstable();
        let mut groups = vec![Vec::new(); leaders.len()];
        let nearest = self.nearest(&ids, &leaders, memberships);
        for (&id, nearest) in ids.iter().zip(nearest.chunks_exact(memberships)) {
            nearest.iter().for_each(|&leader| groups[leader as usize].push(id));
        }
        let len = ids.len();
        drop(ids);
        let split = |(number, group): (usize, Vec<u32>)| {
            if group.len() > len / 2 {
                // So many alike that no leader parts them.
                group.chunks(self.typical).map(<[_]>::to_vec).collect()
            } else {
                self.split(group, 1, node.wrapping_mul(LEADERS as u64).wrapping_add(number as u64))
            }
        };
        groups.retain(|group| !group.is_empty());
        groups.into_par_iter().enumerate().flat_map_iter(split).collect()
    }

    /// The places of each sample's nearest leaders.
    fn nearest(&self, ids: &[u32], leaders: &[u32], count: usize) -> Vec<u32> {
        let mut nearest = vec![0; ids.len() * count];
        let init = || (Product::new(self.kernel), vec![]);
        nearest.par_chunks_mut(PART * count).zip(ids.par_chunks(PART)).for_each_init(init, |state, (nearest, ids)| {
            let (product, best) = state;
            best.resize_with(ids.len(), || TopK::new(count));
            product.pack_rows(self.table, ids);
            product.pack_columns(self.table, leaders);
            let lowest = ids.iter().map(|_| f32::NEG_INFINITY);
            let unreached = leaders.iter().map(|_| f32::INFINITY);
            product.run(lowest, unreached, false, |thresholds, row, leader, score| {
                best[row].push(score, leader as u32);
                thresholds.rows[row] = best[row].threshold();
            });
            for (nearest, best) in nearest.chunks_exact_mut(count).zip(best) {
                nearest.iter_mut().zip(best.drain_sorted()).for_each(|(nearest, (_, leader))| *nearest = leader);
            }
        });
        nearest
    }
}

/// Leaders of a split, at most.
const LEADERS: usize = 2048;

/// Samples that find their leaders at a time.
const PART: usize = 2048;
