//! Scores two groups of samples with each other, or one with itself, and looks at the few best scores only.
//!
//! To score the samples of a group among themselves is the local join of NN-descent.

use std::ops::Range;

use aligned_vec::avec;

use crate::embeddings::EmbeddingTable;
use crate::graph::kernel::{Columns, Kernel, PANEL_COLUMNS, ROW_MULTIPLE, Reached, Rows, Scores};
use crate::graph::topk::buffer::TopK;
use crate::graph::topk::lists::Stripes;
use crate::memory::Aligned;

/// A blocked product with its buffers, which a thread reuses.
pub(in crate::graph) struct Product {
    kernel: Kernel,
    rows: Rows,
    columns: Columns,
    scores: Aligned<Scores>,
    reached: Vec<Reached>,
    thresholds: Thresholds,
    best: Vec<TopK>,
}

/// Whether a score has reached the threshold of its row or of its column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Side {
    Row,
    Column,
}

/// The scores that rows and columns must reach to be looked at; padded with ∞.
pub(in crate::graph) struct Thresholds {
    pub rows: Vec<f32>,
    pub columns: Vec<f32>,
}

impl Product {
    /// A product by this kernel.
    pub fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            rows: Rows::default(),
            columns: Columns::default(),
            scores: avec![[0.0; PANEL_COLUMNS]; BLOCK_ROWS],
            reached: vec![Reached::default(); BLOCK_ROWS],
            thresholds: Thresholds { rows: Vec::new(), columns: Vec::new() },
            best: Vec::new(),
        }
    }

    /// Packs these samples as rows.
    pub fn pack_rows(&mut self, table: &EmbeddingTable, ids: &[u32]) {
        self.rows.pack(self.kernel, table, ids);
    }

    /// Packs these samples as columns.
    pub fn pack_columns(&mut self, table: &EmbeddingTable, ids: &[u32]) {
        self.columns.pack(self.kernel, table, ids);
    }

    /// Packs these samples and offers all of them to each other: a local join.
    pub fn join_within(&mut self, table: &EmbeddingTable, ids: &[u32], stripes: &Stripes<'_>) {
        self.pack_rows(table, ids);
        if table.faces_itself() {
            self.columns.pack_rows(self.kernel, &self.rows, ids.len());
        } else {
            self.pack_columns(table, ids);
        }
        self.join_packed(ids, stripes);
    }

    /// Does the same with samples `ids` that are packed already, as the rows of `packed` with these `indices`.
    ///
    /// Their vectors must face themselves.
    pub fn join_packed_within(&mut self, packed: &Rows, indices: &[u32], ids: &[u32], stripes: &Stripes<'_>) {
        self.rows.copy(packed, indices);
        self.columns.pack_rows(self.kernel, &self.rows, ids.len());
        self.join_packed(ids, stripes);
    }

    /// Offers the samples of the packed rows and columns to each other.
    fn join_packed(&mut self, ids: &[u32], stripes: &Stripes<'_>) {
        let start = |id: &u32| stripes.threshold(*id);
        let mut best = std::mem::take(&mut self.best);
        if best.len() < ids.len() {
            best.resize_with(ids.len(), || TopK::new(stripes.length()));
        }
        self.run(ids.iter().map(start), ids.iter().map(start), true, |thresholds, side, r, c, score| {
            let (own, other) = if side == Side::Row { (r, c) } else { (c, r) };
            best[own].push(score, ids[other]);
            let raised = thresholds.rows[own].max(best[own].threshold());
            (thresholds.rows[own], thresholds.columns[own]) = (raised, raised);
        });
        // Offers are collected first, so that each list is locked once.
        for (&id, best) in ids.iter().zip(&mut best).filter(|(_, best)| !best.is_empty()) {
            stripes.offer_all(id, best.drain());
        }
        self.best = best;
    }

    /// Offers packed rows to packed columns, and the other way round. No sample may be in both.
    pub fn join_across(&mut self, rows: &[u32], columns: &[u32], stripes: &Stripes<'_>) {
        let start = |id: &u32| stripes.threshold(*id);
        self.run(
            rows.iter().map(start),
            columns.iter().map(start),
            false,
            |thresholds, side, r, c, score| match side {
                Side::Row => thresholds.rows[r] = stripes.offer(rows[r], score, columns[c]),
                Side::Column => thresholds.columns[c] = stripes.offer(columns[c], score, rows[r]),
            },
        );
    }

    /// Scores packed rows with packed columns, block by block, and looks at the scores that reach a threshold.
    ///
    /// `rows` and `columns` are the thresholds at the start. `look(thresholds, side, r, c, score)` is called for each
    /// score that reaches its row's threshold, and for each that reaches its column's. It may raise thresholds, which
    /// counts from the next block on. `within` says that rows and columns are the same samples; each pair is then
    /// looked at once, with r < c.
    pub fn run(
        &mut self,
        rows: impl ExactSizeIterator<Item = f32>,
        columns: impl ExactSizeIterator<Item = f32>,
        within: bool,
        mut look: impl FnMut(&mut Thresholds, Side, usize, usize, f32),
    ) {
        let (row_count, column_count) = (rows.len(), columns.len());
        fill(&mut self.thresholds.rows, rows, ROW_MULTIPLE);
        fill(&mut self.thresholds.columns, columns, PANEL_COLUMNS);
        for first in (0..row_count).step_by(BLOCK_ROWS) {
            let block = first..row_count.min(first + BLOCK_ROWS);
            for panel in if within { first / PANEL_COLUMNS } else { 0 }..column_count.div_ceil(PANEL_COLUMNS) {
                let count = PANEL_COLUMNS.min(column_count - panel * PANEL_COLUMNS);
                let end = if within { block.end.min((panel + 1) * PANEL_COLUMNS) } else { block.end };
                self.tile(block.start..end, panel, count, within, &mut look);
            }
        }
    }

    /// Scores a block of rows with `count` columns of a panel.
    fn tile(
        &mut self,
        block: Range<usize>,
        panel: usize,
        count: usize,
        within: bool,
        look: &mut impl FnMut(&mut Thresholds, Side, usize, usize, f32),
    ) {
        let padded = block.len().next_multiple_of(ROW_MULTIPLE);
        let (scores, reached) = (&mut self.scores[..padded], &mut self.reached[..padded]);
        self.kernel.scores(&self.rows, block.start, &self.columns, panel, scores);
        let columns =
            self.thresholds.columns[panel * PANEL_COLUMNS..].first_chunk().expect("filled up to whole panels");
        self.kernel.reached(scores, &self.thresholds.rows[block.start..][..padded], columns, reached);
        let all = ((1u32 << count) - 1) as u16;
        let first = panel * PANEL_COLUMNS;
        for (r, (scores, reached)) in block.zip(scores.iter().zip(&*reached)) {
            // Within a group, only the columns behind the row's own count.
            let counts = if within && r >= first { all & (u32::MAX << (r + 1 - first)) as u16 } else { all };
            for (side, bits) in [(Side::Row, reached.row), (Side::Column, reached.column)] {
                let mut bits = bits & counts;
                while bits != 0 {
                    let c = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    look(&mut self.thresholds, side, r, first + c, scores[c]);
                }
            }
        }
    }
}

/// Replaces thresholds by `values`, padded with ∞ to a multiple.
fn fill(thresholds: &mut Vec<f32>, values: impl ExactSizeIterator<Item = f32>, multiple: usize) {
    let len = values.len().next_multiple_of(multiple);
    thresholds.clear();
    thresholds.extend(values);
    thresholds.resize(len, f32::INFINITY);
}

/// How many rows form a block, which stays in the second-level cache while it passes over all panels.
const BLOCK_ROWS: usize = 4 * ROW_MULTIPLE;
