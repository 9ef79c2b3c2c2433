//! Groups of near samples by random projection: a tree of median splits (Dasgupta and Freund, 2008).

use std::cmp::Ordering;
use std::ops::Range;

use rand::RngExt;
use rayon::prelude::*;

use super::generator;
use crate::sample::{GraphVersion, SampleId};
use crate::store::{EmbeddingTable, dot};

/// All samples, group after group.
pub(super) struct Leaves {
    pub ids: Vec<u32>,
    pub groups: Vec<Range<usize>>,
}

/// Splits all samples into groups of at most `largest`, and more than half of that where there are so many. Each
/// split is at the median along the line through two of the samples. Costs N d multiplications a level.
pub(super) fn leaves(table: &EmbeddingTable, largest: usize, seed: u64, version: GraphVersion, tree: u64) -> Leaves {
    let mut ids: Vec<u32> = (0..table.len() as u32).collect();
    let splitter = Splitter { table, largest, seed, version, tree };
    let groups = splitter.split(&mut ids, 0, 1);
    Leaves { ids, groups }
}

struct Splitter<'a> {
    table: &'a EmbeddingTable,
    largest: usize,
    seed: u64,
    version: GraphVersion,
    tree: u64,
}

impl Splitter<'_> {
    fn split(&self, ids: &mut [u32], first: usize, node: u64) -> Vec<Range<usize>> {
        if ids.len() <= self.largest {
            return std::iter::once(first..first + ids.len()).collect();
        }
        let mut generator = generator(self.seed, self.version, self.tree << 40 | node);
        let mut any = || self.table.get(SampleId(ids[generator.random_range(0..ids.len())]));
        let line: Vec<f32> = any().iter().zip(any().iter()).map(|(a, b)| a - b).collect();
        let along = |vector: &mut Vec<f32>, &id: &u32| {
            vector.resize(line.len(), 0.0);
            self.table.read(SampleId(id), vector);
            (dot(&line, vector), id)
        };
        let mut places: Vec<_> = ids.par_iter().with_min_len(1024).map_init(Vec::new, along).collect();
        let middle = places.len() / 2;
        places.select_nth_unstable_by(middle, |a, b| match a.0.total_cmp(&b.0) {
            Ordering::Equal => a.1.cmp(&b.1),
            other => other,
        });
        ids.iter_mut().zip(places).for_each(|(id, (_, sorted))| *id = sorted);
        let (low, high) = ids.split_at_mut(middle);
        let (mut groups, more) =
            rayon::join(|| self.split(low, first, 2 * node), || self.split(high, first + middle, 2 * node + 1));
        groups.extend(more);
        groups
    }
}
