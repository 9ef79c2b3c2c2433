//! The random draws of a build: which candidates each row chooses from.

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::assignment::Assignment;
use crate::embeddings::EmbeddingTable;
use crate::graph::kernel::{PANEL_COLUMNS, ROW_MULTIPLE};
use crate::graph::params::{Size, generator};
use crate::sample::GraphVersion;

/// The draws of one build.
pub(in crate::graph) struct Draws {
    /// The candidates in the order in which chunks and panels take them.
    order: Vec<u32>,
    /// The rows in the order in which blocks take them.
    pub rows: Vec<u32>,
    size: Size,
    generator: ChaCha8Rng,
}

/// A chunk of the candidates, with its panels assigned to all blocks of rows.
///
/// Chunks bound the memory of packed candidates. Each gives every row its share of the M candidates.
pub(in crate::graph) struct CandidateChunk<'a> {
    /// The samples of the chunk; each panel is the next [`PANEL_COLUMNS`] of them.
    pub ids: &'a [u32],
    assignment: Assignment,
    /// How many candidates each block draws from this chunk.
    pub wanted: usize,
    /// How many rows form a block, which shares its candidates.
    pub block_rows: usize,
    /// Whether no earlier chunk gave candidates.
    pub is_first: bool,
    /// Whether this chunk has the last candidate of each block, its substitute.
    pub is_last: bool,
}

impl Draws {
    /// Shuffles candidates and rows.
    pub fn new(table: &EmbeddingTable, size: Size, seed: u64, version: GraphVersion) -> Self {
        let mut generator = generator(seed, version, u64::MAX);
        let mut order = table.present_ids();
        order.shuffle(&mut generator);
        let mut rows = order.clone();
        rows.shuffle(&mut generator);
        Self { order, rows, size, generator }
    }

    /// Calls `take` with each chunk of `len` candidates, a multiple of [`PANEL_COLUMNS`].
    pub fn in_chunks<E>(
        &mut self,
        len: usize,
        mut take: impl FnMut(&CandidateChunk<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
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
            let panel_len = |panel: usize| PANEL_COLUMNS.min(ids.len() - panel * PANEL_COLUMNS);
            let assignment = Assignment::new(
                ids.len().div_ceil(PANEL_COLUMNS),
                panel_len,
                wanted,
                rows.len().div_ceil(block_rows),
                generator,
            );
            let is_first = share(start) == 0;
            let is_last = share(end) == share(samples);
            take(&CandidateChunk { ids, assignment, wanted, block_rows, is_first, is_last })?;
            if is_last {
                break;
            }
        }
        Ok(())
    }
}

/// How many rows share their candidates: few enough that in-degrees stay those of candidates drawn row by row.
///
/// The rows of a block choose the same hubs among their candidates, which adds to the variance of in-degrees, the more
/// the larger K / M is. docs/graph.md has figures.
fn block_rows(size: Size) -> usize {
    match (8 * size.candidates / size.neighbors).min(size.candidates / 5) {
        rows @ 0..ROW_MULTIPLE => rows.max(1),
        rows => (rows / ROW_MULTIPLE * ROW_MULTIPLE).min(16 * ROW_MULTIPLE),
    }
}

impl CandidateChunk<'_> {
    /// The panels of a block, each with its samples that are candidates: `wanted` in all.
    pub fn draw(&self, block: usize) -> Vec<(usize, &[u32])> {
        let mut missing = self.wanted;
        let take = |&panel: &u32| {
            let ids = &self.ids[panel as usize * PANEL_COLUMNS..];
            let ids = &ids[..ids.len().min(PANEL_COLUMNS).min(missing)];
            missing -= ids.len();
            (panel as usize, ids)
        };
        self.assignment.panels_of(block).iter().map(take).collect()
    }

    /// Marks the rows that are among their own block's candidates, and returns the block's substitute.
    ///
    /// A block draws M + 1 samples from all chunks together. The last one, the substitute, is a candidate of the rows
    /// that drew themselves, and is ignored by all other rows. So every row has exactly M candidates, and each set of M
    /// others is equally likely.
    pub fn substitute(&self, draw: &[(usize, &[u32])], rows: &[u32], drew_itself: &mut [bool]) -> Option<u32> {
        let mut sorted: Vec<_> = rows.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        // A filter of bits, which few ids pass that are not rows.
        let bit = |id: u32| (id as usize / 64 % FILTER_WORDS, 1u64 << (id % 64));
        let mut filter = [0u64; FILTER_WORDS];
        for &row in rows {
            let (word, mask) = bit(row);
            filter[word] |= mask;
        }
        for (_, ids) in draw {
            for drawn in *ids {
                let (word, mask) = bit(*drawn);
                if filter[word] & mask != 0
                    && let Ok(found) = sorted.binary_search_by_key(drawn, |(row, _)| *row)
                {
                    drew_itself[sorted[found].1] = true;
                }
            }
        }
        draw.last().and_then(|(_, ids)| ids.last().copied()).filter(|_| self.is_last)
    }
}

/// How many words of 64 bits the filter has that tells rows from other candidates.
const FILTER_WORDS: usize = 128;
