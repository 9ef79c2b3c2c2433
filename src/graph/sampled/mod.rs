//! The paper's graph at the speed of a matrix product.
//!
//! 1. Shuffle the samples and pack them into panels, once for the build.
//! 2. Shuffle them again, as rows, and cut these into blocks.
//! 3. Assign panels to each block: all its rows choose from the same M candidates.
//! 4. Score the rows of a block with its panels, and keep the K best of each row.
//!
//! By the first shuffle the panels of a block are a uniform subset of the samples, so every sample still chooses from M
//! uniform others. Only within a block are the choices alike, which is why blocks are small against M.
//!
//! If the packed samples would take more memory than a tenth of embeddings and graph, they are packed and assigned in
//! [chunks](CandidateChunk). Each gives its share of every sample's candidates, so that all M are still uniform.

mod assignment;
pub(super) mod draws;

use std::convert::Infallible;

use aligned_vec::avec;
use rayon::prelude::*;

use self::draws::{CandidateChunk, Draws};
use crate::config::{GraphConfig, Storage};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::{Columns, Kernel, PANEL_COLUMNS, ROW_MULTIPLE, Rows, Scores};
use crate::graph::params::{Size, with_margin};
use crate::graph::topk::lists::{Lists, Stripes};
use crate::graph::topk::shortlist::Shortlists;
use crate::memory::Aligned;
use crate::sample::{GraphVersion, SampleId};
use crate::simd::dots;

/// Builds the graph of each sample's K most similar of M uniform others, for N M d multiplications.
pub(in crate::graph) fn build(
    table: &EmbeddingTable,
    config: &GraphConfig,
    size: Size,
    seed: u64,
    version: GraphVersion,
) -> ProximityGraph {
    let kernel = Kernel::choose(config.precision, table.dimension(), size.neighbors, size.candidates);
    build_in_chunks(table, kernel, size, seed, version, chunk_len(table, size, kernel))
}

/// The same, with `chunk_len` samples packed at a time, a multiple of [`PANEL_COLUMNS`].
fn build_in_chunks(
    table: &EmbeddingTable,
    kernel: Kernel,
    size: Size,
    seed: u64,
    version: GraphVersion,
    chunk_len: usize,
) -> ProximityGraph {
    let mut draws = Draws::new(table, size, seed, version);
    let rows = draws.rows.clone();
    let mut drew_itself = vec![false; rows.len()];
    let mut lists = Lists::new(table.len(), size.neighbors);
    let stripes = lists.stripes();
    let mut columns = Columns::default();
    let Ok(()) = draws.in_chunks(chunk_len, |chunk| {
        columns.pack_parallel(kernel, table, chunk.ids);
        let pass = ChunkPass { table, kernel, columns: &columns, chunk, stripes: &stripes };
        let blocks = rows.par_chunks(chunk.block_rows).zip(drew_itself.par_chunks_mut(chunk.block_rows));
        blocks.enumerate().for_each_init(
            || BlockScratch::new(kernel, size, chunk.block_rows),
            |scratch, (block, (rows, drew_itself))| pass.update_block(block, rows, drew_itself, scratch),
        );
        Ok::<_, Infallible>(())
    });
    drop(stripes);
    lists.into_graph(size.neighbors, version)
}

/// How many samples are packed at a time.
fn chunk_len(table: &EmbeddingTable, size: Size, kernel: Kernel) -> usize {
    let kept = table.len() * (table.bytes_per_sample() + 8 * size.neighbors);
    let packed = 4 * kernel.width(table.dimension());
    let beside = BYTES_PER_SAMPLE_BESIDE_CHUNK * table.len();
    let len = (kept / 10).saturating_sub(beside).max(MIN_CHUNK_BYTES) / packed;
    // Chunks of even length; each gives at least two panels to a block.
    let chunks = table.len().div_ceil(len).min(size.candidates.div_ceil(2 * PANEL_COLUMNS)).max(1);
    table.len().div_ceil(chunks).next_multiple_of(PANEL_COLUMNS)
}

/// The pass of all blocks over one chunk of candidates, which is packed.
struct ChunkPass<'a, 's> {
    table: &'a EmbeddingTable,
    kernel: Kernel,
    columns: &'a Columns,
    chunk: &'a CandidateChunk<'a>,
    stripes: &'a Stripes<'s>,
}

/// The buffers that a thread reuses from block to block.
struct BlockScratch {
    rows: Rows,
    scores: Aligned<Scores>,
    shortlists: Shortlists,
    /// The candidates of the block, which shortlists name by index.
    candidates: Vec<u32>,
    /// The scores and ids that one row chooses from.
    offered: (Vec<f32>, Vec<SampleId>),
    /// Decoded vectors of some candidates, if the table does not keep f32.
    vectors: Aligned<f32>,
    /// The decoded vector of one row.
    row_vector: Vec<f32>,
}

impl BlockScratch {
    fn new(kernel: Kernel, size: Size, block_rows: usize) -> Self {
        let keep = if kernel.is_exact() { size.neighbors } else { with_margin(size.neighbors) };
        Self {
            rows: Rows::default(),
            scores: avec![[0.0; PANEL_COLUMNS]; SCORE_LINES.max(block_rows.next_multiple_of(ROW_MULTIPLE))],
            // One more, since one may be the row itself or the substitute.
            shortlists: Shortlists::new(kernel, block_rows, keep + 1),
            candidates: Vec::new(),
            offered: Default::default(),
            vectors: avec![],
            row_vector: Vec::new(),
        }
    }
}

impl ChunkPass<'_, '_> {
    /// Updates the neighbor lists of a block of rows with this chunk's candidates.
    ///
    /// 1. Draw the block's panels.
    /// 2. Score the rows with them, and keep the best candidates of each row in its shortlist.
    /// 3. If the scores are rough, score the shortlists again.
    /// 4. Update each row's list from its shortlist.
    fn update_block(&self, block: usize, rows: &[u32], drew_itself: &mut [bool], scratch: &mut BlockScratch) {
        let panels = self.chunk.draw(block);
        let substitute = self.chunk.substitute(&panels, rows, drew_itself);
        scratch.rows.pack(self.kernel, self.table, rows);
        scratch.shortlists.restart(rows.iter().map(|&row| self.threshold(row)));
        self.fill_shortlists(&panels, rows.len(), scratch);
        if !self.kernel.is_exact() {
            self.score_again(rows, scratch);
        }
        for ((index, &row), &drew_itself) in rows.iter().enumerate().zip(&*drew_itself) {
            if let Some(&next) = rows.get(index + 1) {
                self.stripes.with(next, |list| list.prefetch());
            }
            // A row that drew itself takes the substitute instead; the others ignore it.
            let refused = if drew_itself { Some(row) } else { substitute };
            self.update_list(index, row, refused, scratch);
        }
    }

    /// Scores a block's `rows` packed rows with its panels, some panels at a time, and fills the shortlists.
    fn fill_shortlists(&self, panels: &[(usize, &[u32])], rows: usize, scratch: &mut BlockScratch) {
        scratch.candidates.clear();
        let padded = rows.next_multiple_of(ROW_MULTIPLE);
        let panels_at_once = scratch.scores.len() / padded;
        let mut following = panels.iter().map(|(panel, _)| *panel).skip(1);
        for panels in panels.chunks(panels_at_once) {
            let first = scratch.candidates.len();
            for (&(panel, ids), scores) in panels.iter().zip(scratch.scores.chunks_mut(padded)) {
                self.score_panel(panel, following.next(), &scratch.rows, scores);
                // The columns that pad a panel are nobody's candidates.
                if ids.len() < PANEL_COLUMNS {
                    scores.iter_mut().for_each(|scores| scores[ids.len()..].fill(f32::NAN));
                }
                scratch.candidates.extend(ids);
                scratch.candidates.resize(scratch.candidates.len().next_multiple_of(PANEL_COLUMNS), ids[0]);
            }
            scratch.shortlists.take(&scratch.scores[..panels.len() * padded], padded, first as u32);
        }
    }

    /// Scores packed rows with a panel, and fetches the panel `next` from memory meanwhile.
    ///
    /// Panels come in random order, which no processor foresees.
    fn score_panel(&self, panel: usize, next: Option<usize>, rows: &Rows, scores: &mut [Scores]) {
        let tiles = scores.len() / ROW_MULTIPLE;
        for (tile, scores) in scores.chunks_mut(ROW_MULTIPLE).enumerate() {
            if let Some(next) = next {
                self.kernel.prefetch(self.columns, next, tile, tiles);
            }
            self.kernel.scores(rows, tile * ROW_MULTIPLE, self.columns, panel, scores);
        }
    }

    /// Keeps the best of a row's list and shortlist in the list. The candidate `refused` is left out.
    ///
    /// `index` is the row's index in the block.
    fn update_list(&self, index: usize, row: u32, refused: Option<u32>, scratch: &mut BlockScratch) {
        let BlockScratch { shortlists, candidates, offered: (scores, ids), .. } = scratch;
        let (row_scores, indices) = shortlists.of(index);
        scores.clear();
        scores.extend(row_scores);
        ids.clear();
        ids.extend(indices.iter().map(|&index| SampleId(candidates[index as usize])));
        if let Some(at) = refused.and_then(|refused| ids.iter().position(|id| id.0 == refused)) {
            scores.swap_remove(at);
            ids.swap_remove(at);
        }
        self.stripes.with(row, |mut list| {
            if !self.chunk.is_first {
                for (score, id) in list.candidates() {
                    scores.push(score);
                    ids.push(id);
                }
            }
            list.fill_with_best(scores, ids);
        });
    }

    /// The score that a row's candidates must reach, given those of earlier chunks.
    ///
    /// It is −∞ for rough scores, which cannot be compared with the similarities that earlier chunks left.
    fn threshold(&self, row: u32) -> f32 {
        if self.chunk.is_first || !self.kernel.is_exact() {
            return f32::NEG_INFINITY;
        }
        self.stripes.with(row, |list| list.worst())
    }

    /// Replaces rough scores by similarities. Candidates are read some at a time, each once for all rows.
    fn score_again(&self, rows: &[u32], scratch: &mut BlockScratch) {
        let BlockScratch { shortlists, candidates, vectors, row_vector, .. } = scratch;
        let dimension = self.table.dimension();
        let together = (MAX_NUMBERS_RESCORED / dimension).max(1);
        let prefetch = |ids: &[u32]| ids.iter().for_each(|&id| self.table.prefetch(SampleId(id)));
        prefetch(&candidates[..together.min(candidates.len())]);
        let mut first = 0;
        for ids in candidates.chunks(together) {
            if self.table.storage() != Storage::F32 {
                vectors.resize(together * dimension, 0.0);
                let slots = vectors.chunks_exact_mut(dimension);
                slots.zip(ids).for_each(|(vector, &id)| self.table.read(SampleId(id), vector));
            }
            let next = &candidates[first + ids.len()..];
            let next = &next[..together.min(next.len())];
            shortlists.score_again((first + ids.len()) as u32, |row, indices, scores| {
                // The next candidates are fetched from memory while these are scored.
                prefetch(&next[row * next.len() / rows.len()..(row + 1) * next.len() / rows.len()]);
                let vector = |&index: &u32| {
                    let at = index as usize - first;
                    let read = || &vectors[at * dimension..][..dimension];
                    self.table.f32(SampleId(ids[at])).unwrap_or_else(read)
                };
                dots(self.table.facing(SampleId(rows[row]), row_vector), indices.iter().map(vector), scores);
            });
            first += ids.len();
        }
    }
}

/// How many bytes a sample takes beside the packed chunk: two orders, assignments, flags, thresholds.
const BYTES_PER_SAMPLE_BESIDE_CHUNK: usize = 20;

/// How many lines of scores are kept, one for each row of a block and panel: 288 KiB.
///
/// That is enough for all scores of 1,000 candidates if 72 rows share them.
const SCORE_LINES: usize = 64 * 72;

/// How many numbers of candidates are rescored at a time: 256 KiB.
///
/// As many more are being fetched, which together is half of a second-level cache.
const MAX_NUMBERS_RESCORED: usize = 64 << 10;

/// The memory that a chunk may always take.
const MIN_CHUNK_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::config::{Precision, Similarity};
    use crate::sample::ModelVersion;

    /// With M = K every candidate is kept, so this counts how often each other sample is one.
    #[test]
    fn candidates_are_uniform_in_chunks_and_in_every_format() {
        let (len, candidates, builds) = (150usize, 70usize, 400u64);
        let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(1);
        let vectors = (0..len * 8).map(|_| generator.random_range(-1f32..1.0)).collect();
        let table = EmbeddingTable::new(vectors, 8, Similarity::Cosine, ModelVersion(1)).unwrap();
        let config =
            GraphConfig { candidates: candidates.into(), neighbors: Some(candidates), ..GraphConfig::default() };
        let size = Size::new(len, &config).unwrap();
        for precision in [Precision::F32, Precision::I8, Precision::Bf16] {
            let kernel = Kernel::choose(precision, 8, candidates, candidates);
            let mut counts = vec![0f64; len * len];
            for seed in 0..builds {
                let graph = build_in_chunks(&table, kernel, size, seed, GraphVersion(1), 48);
                for row in 0..len {
                    let mut found = graph.neighbors(SampleId::new(row)).to_vec();
                    found.iter().for_each(|id| counts[row * len + id.index()] += 1.0);
                    found.sort_unstable();
                    found.dedup();
                    assert_eq!(found.len(), candidates, "a candidate twice");
                }
            }
            let p = candidates as f64 / (len - 1) as f64;
            let (mean, variance) = (builds as f64 * p, builds as f64 * p * (1.0 - p));
            let others = (0..len * len).filter(|at| at / len != at % len);
            let deviations: Vec<f64> = others.map(|at| (counts[at] - mean).powi(2) / variance).collect();
            assert!((0..len).all(|row| counts[row * len + row] == 0.0), "a sample neighbors itself");
            let spread = deviations.iter().sum::<f64>() / deviations.len() as f64;
            assert!((0.9..1.1).contains(&spread), "{precision:?}: {spread}");
            assert!(deviations.iter().all(|d| *d < 36.0), "{precision:?}: a sample is preferred");
        }
    }
}
