//! Who chooses from whom: the candidates of every sample, whatever scores them.

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::assignment::Assignment;
use crate::embeddings::EmbeddingTable;
use crate::graph::kernel::{COLUMNS, ROWS};
use crate::graph::params::{Size, generator};
use crate::sample::GraphVersion;

/// All draws of one build.
pub(in crate::graph) struct Draws {
    /// Candidates in the order in which parts and panels take them.
    order: Vec<u32>,
    /// Rows in the order in which blocks take them.
    pub rows: Vec<u32>,
    size: Size,
    generator: ChaCha8Rng,
}

/// One part of the candidates, dealt to all blocks of rows.
pub(in crate::graph) struct Part<'a> {
    /// The samples behind the columns.
    pub ids: &'a [u32],
    deal: Assignment,
    /// Candidates that each block draws of this part.
    pub wanted: usize,
    /// Rows that share them.
    pub block_rows: usize,
    /// No earlier part has left anything.
    pub is_first: bool,
    /// Of all parts' candidates together, the last one is the spare.
    pub is_last: bool,
}

impl Draws {
    pub fn new(table: &EmbeddingTable, size: Size, seed: u64, version: GraphVersion) -> Self {
        let mut generator = generator(seed, version, u64::MAX);
        let mut order = table.present_ids();
        order.shuffle(&mut generator);
        let mut rows = order.clone();
        rows.shuffle(&mut generator);
        Self { order, rows, size, generator }
    }

    /// Gives the candidates in parts of `len` samples, a multiple of [`COLUMNS`], each with its share of the draws.
    pub fn in_parts<E>(&mut self, len: usize, mut take: impl FnMut(&Part<'_>) -> Result<(), E>) -> Result<(), E> {
        let Self { order, rows, size, generator } = self;
        let samples = order.len();
        let block_rows = block_rows(*size);
        let share = |end: usize| (end as u128 * (size.candidates as u128 + 1) / samples as u128) as usize;
        for start in (0..samples).step_by(len) {
            let end = samples.min(start + len);
            let wanted = share(end) - share(start);
            if wanted == 0 {
                continue;
            }
            let ids = &order[start..end];
            let panel_len = |panel: usize| COLUMNS.min(ids.len() - panel * COLUMNS);
            let deal = Assignment::new(
                ids.len().div_ceil(COLUMNS),
                panel_len,
                wanted,
                rows.len().div_ceil(block_rows),
                generator,
            );
            let (is_first, is_last) = (share(start) == 0, share(end) == share(samples));
            take(&Part { ids, deal, wanted, block_rows, is_first, is_last })?;
            if is_last {
                break;
            }
        }
        Ok(())
    }
}

/// Rows that share their candidates: few enough that the in-degrees stay those of candidates drawn row by row. Where a
/// hand is weak, all rows of a block choose the same ones, which adds to the in-degrees' variance, and the more the
/// larger K / M is. With M = 1000, on data with few hubs, 192 rows add 6 % at K = 16 and would add 33 % at K = 100.
fn block_rows(size: Size) -> usize {
    match (8 * size.candidates / size.neighbors).min(size.candidates / 5) {
        rows @ 0..ROWS => rows.max(1),
        rows => (rows / ROWS * ROWS).min(16 * ROWS),
    }
}

/// Words of marks by which rows are told from others.
const MARKS: usize = 128;

impl Part<'_> {
    /// The panels dealt to a block, and the samples of each that count.
    pub fn draw(&self, block: usize) -> Vec<(usize, &[u32])> {
        let mut left = self.wanted;
        let take = |&panel: &u32| {
            let ids = &self.ids[panel as usize * COLUMNS..];
            let ids = &ids[..ids.len().min(COLUMNS).min(left)];
            left -= ids.len();
            (panel as usize, ids)
        };
        self.deal.hand(block).iter().map(take).collect()
    }

    /// Notes whose own sample is in the draw, and names the spare: a block draws M + 1 samples in all parts together,
    /// and the last of them replaces a row's own sample where that is among the others, and is refused by the rest. So
    /// every row has exactly M candidates, and each set of M others is as likely as any.
    pub fn spare(&self, draw: &[(usize, &[u32])], rows: &[u32], own_seen: &mut [bool]) -> Option<u32> {
        let mut places: Vec<_> = rows.iter().copied().zip(0..).collect();
        places.sort_unstable();
        // Few ids leave the same mark as a row.
        let mark = |id: u32| (id as usize / 64 % MARKS, 1u64 << (id % 64));
        let mut marks = [0u64; MARKS];
        rows.iter().for_each(|&row| marks[mark(row).0] |= mark(row).1);
        for (_, ids) in draw {
            for drawn in *ids {
                if marks[mark(*drawn).0] & mark(*drawn).1 != 0
                    && let Ok(found) = places.binary_search_by_key(drawn, |(row, _)| *row)
                {
                    own_seen[places[found].1] = true;
                }
            }
        }
        draw.last().and_then(|(_, ids)| ids.last().copied()).filter(|_| self.is_last)
    }
}
