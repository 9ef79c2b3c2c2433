//! The paper's graph at the speed of a matrix product.
//!
//! Samples are shuffled and packed into panels once a build. Blocks of rows, from a second shuffle, share the panels
//! that are dealt to them. By the first shuffle those are a uniform subset of the samples, so every sample still
//! chooses from M uniform others; only within a block are the choices alike, which is why blocks are small against M.

use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::deal::Deal;
use super::kernel::{COLUMNS, Kernel, ROWS};
use super::top_k::TopK;
use super::{ProximityGraph, Size, generator};
use crate::config::GraphConfig;
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;
use crate::telemetry;

/// The paper's graph: each sample's K most similar of M uniform others, without itself and without duplicates.
///
/// M ≥ N − 1 gives the exact kNN graph; K ≥ N gives all others. Costs N M d multiplications and a second copy of the
/// embeddings while it runs. Runs on the current rayon pool; the graph does not depend on the number of threads.
///
/// # Panics
/// For fewer than two samples, K = 0 or K > M: [`PipelineConfig`](crate::config::PipelineConfig) and
/// [`Pipeline`](crate::Pipeline) refuse these with an error.
#[must_use]
pub fn build(table: &EmbeddingTable, config: &GraphConfig, seed: u64, version: GraphVersion) -> ProximityGraph {
    let size = Size::new(table.len(), config);
    let _span = telemetry::graph(table.len(), size.candidates, size.neighbors, version).entered();
    let mut rows: Vec<u32> = (0..table.len() as u32).collect();
    let mut generator = generator(seed, version, u64::MAX);
    rows.shuffle(&mut generator);
    let panels = Panels::pack(table, rows.clone());
    rows.shuffle(&mut generator);

    let block_rows = block_rows(size.candidates, table.len());
    let (wanted, blocks) = (size.candidates + 1, rows.len().div_ceil(block_rows));
    let deal = Deal::new(panels.len(), |panel| panels.ids(panel).len(), wanted, blocks, &mut generator);
    let builder = Builder { table, panels, deal, size, kernel: Kernel::detect() };
    let blocks: Vec<_> =
        rows.par_chunks(block_rows).enumerate().map(|(number, rows)| builder.block(number, rows)).collect();
    drop(builder);

    let k = size.neighbors;
    let mut neighbors = vec![SampleId::default(); table.len() * k];
    let mut similarities = vec![0f32; table.len() * k];
    let found = blocks.iter().flat_map(|block| block.chunks_exact(k));
    for (&row, found) in rows.iter().zip(found) {
        let start = row as usize * k;
        for (offset, &(similarity, id)) in found.iter().enumerate() {
            neighbors[start + offset] = SampleId(id);
            similarities[start + offset] = similarity;
        }
    }
    ProximityGraph::from_parts(neighbors, similarities, k, version)
}

/// Rows that share their candidates. With M / block at least 20 the in-degrees stay those of candidates drawn row by
/// row; when all others are candidates, sharing changes nothing and larger blocks spare memory traffic.
fn block_rows(candidates: usize, samples: usize) -> usize {
    if candidates >= samples - 1 {
        return 32 * ROWS;
    }
    match candidates / 20 {
        rows @ 0..ROWS => rows.max(1),
        rows => (rows / ROWS * ROWS).min(4 * ROWS),
    }
}

/// All samples in shuffled order, packed for the kernel.
struct Panels {
    /// Panel after panel: `dimension` × [`COLUMNS`] numbers, the last one filled up with zeros.
    vectors: Vec<f32>,
    /// The samples behind the columns.
    ids: Vec<u32>,
    dimension: usize,
}

impl Panels {
    fn pack(table: &EmbeddingTable, ids: Vec<u32>) -> Self {
        let dimension = table.dimension();
        let mut vectors = vec![0f32; ids.len().div_ceil(COLUMNS) * COLUMNS * dimension];
        vectors.par_chunks_exact_mut(COLUMNS * dimension).zip(ids.par_chunks(COLUMNS)).for_each(|(panel, ids)| {
            for (c, &id) in ids.iter().enumerate() {
                for (k, &x) in table.get(SampleId(id)).iter().enumerate() {
                    panel[k * COLUMNS + c] = x;
                }
            }
        });
        Self { vectors, ids, dimension }
    }

    fn len(&self) -> usize {
        self.ids.len().div_ceil(COLUMNS)
    }

    fn vectors(&self, panel: usize) -> &[f32] {
        &self.vectors[panel * COLUMNS * self.dimension..][..COLUMNS * self.dimension]
    }

    fn ids(&self, panel: usize) -> &[u32] {
        let start = panel * COLUMNS;
        &self.ids[start..self.ids.len().min(start + COLUMNS)]
    }
}

struct Builder<'a> {
    table: &'a EmbeddingTable,
    panels: Panels,
    deal: Deal,
    size: Size,
    kernel: Kernel,
}

impl Builder<'_> {
    /// The neighbors of these rows, K after K.
    fn block(&self, number: usize, rows: &[u32]) -> Vec<(f32, u32)> {
        let draw = self.draw(number);
        let spare = Spare::of(&draw, rows);
        let dimension = self.panels.dimension;
        let mut vectors = vec![0f32; rows.len().next_multiple_of(ROWS) * dimension];
        for (vector, &row) in vectors.chunks_exact_mut(dimension).zip(rows) {
            vector.copy_from_slice(self.table.get(SampleId(row)));
        }
        let mut best: Vec<_> = rows.iter().map(|_| TopK::new(self.size.neighbors)).collect();
        let mut scores = [[0f32; COLUMNS]; ROWS];
        for &(panel, ids) in &draw {
            let tiles = vectors.chunks_exact(ROWS * dimension).zip(rows.chunks(ROWS)).zip(best.chunks_mut(ROWS));
            for (tile, ((vectors, rows), best)) in tiles.enumerate() {
                self.kernel.tile(vectors, self.panels.vectors(panel), dimension, &mut scores);
                for (r, ((&row, best), scores)) in rows.iter().zip(best).zip(&scores).enumerate() {
                    offer(best, scores, ids, |id| id != row && !(spare.refused_by(tile * ROWS + r) && id == spare.id));
                }
            }
        }
        let mut neighbors = Vec::with_capacity(rows.len() * self.size.neighbors);
        for best in &mut best {
            best.take(|similarity, id| neighbors.push((similarity, id)));
        }
        neighbors
    }

    /// The panels dealt to a block, and the samples of each that count: M + 1 in all, for rows that are among them
    /// themselves.
    fn draw(&self, block: usize) -> Vec<(usize, &[u32])> {
        let mut left = self.size.candidates + 1;
        let take = |&panel: &u32| {
            let ids = self.panels.ids(panel as usize);
            let ids = &ids[..ids.len().min(left)];
            left -= ids.len();
            (panel as usize, ids)
        };
        self.deal.hand(block).iter().map(take).collect()
    }
}

/// The last of the M + 1 samples of a draw. It replaces a row's own sample where that is among the others, and is
/// refused by the rest; so every row has exactly M candidates, and each set of M others is as likely as any.
struct Spare {
    id: u32,
    /// By row of the block.
    refused: Vec<bool>,
}

impl Spare {
    fn of(draw: &[(usize, &[u32])], rows: &[u32]) -> Self {
        let id = draw.last().and_then(|(_, ids)| ids.last().copied()).expect("at least two samples are drawn");
        let mut places: Vec<_> = rows.iter().copied().zip(0..).collect();
        places.sort_unstable();
        let mut refused = vec![true; rows.len()];
        for drawn in draw.iter().flat_map(|(_, ids)| *ids) {
            if let Ok(found) = places.binary_search_by_key(drawn, |(row, _)| *row) {
                refused[places[found].1] = false;
            }
        }
        Self { id, refused }
    }

    #[inline]
    fn refused_by(&self, row: usize) -> bool {
        self.refused[row]
    }
}

/// Takes over those scores that reach the threshold. Most panels have none, which one comparison of all columns tells.
#[inline]
fn offer(best: &mut TopK, scores: &[f32; COLUMNS], ids: &[u32], wanted: impl Fn(u32) -> bool) {
    let threshold = best.threshold();
    let mut reach = 0u32;
    for (c, &score) in scores.iter().enumerate() {
        reach |= u32::from(score >= threshold) << c;
    }
    if ids.len() < COLUMNS {
        reach &= (1 << ids.len()) - 1;
    }
    while reach != 0 {
        let c = reach.trailing_zeros() as usize;
        reach &= reach - 1;
        if wanted(ids[c]) {
            best.push(scores[c], ids[c]);
        }
    }
}
