//! The paper's graph at the speed of a matrix product.
//!
//! Samples are shuffled and packed into panels once a build. Blocks of rows, from a second shuffle, share the panels
//! that are dealt to them. By the first shuffle those are a uniform subset of the samples, so every sample still
//! chooses from M uniform others; only within a block are the choices alike, which is why blocks are small against M.
//!
//! Where the packed samples would take more memory than a tenth of embeddings and graph, they are packed and dealt a
//! part at a time; each part gives its share of every sample's candidates, so that all M are still uniform.

mod assignment;
pub(super) mod draws;

use std::convert::Infallible;

use aligned_vec::avec;
use rayon::prelude::*;

use self::draws::{Draws, Part};
use crate::config::{GraphConfig, Storage};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::kernel::{COLUMNS, Columns, Kernel, ROWS, Rows, Scores};
use crate::graph::params::{Size, with_margin};
use crate::graph::topk::lists::{Lists, Stripes};
use crate::graph::topk::shortlist::Shortlists;
use crate::memory::Aligned;
use crate::sample::{GraphVersion, SampleId};
use crate::simd::dots;

/// Each sample's K most similar of M uniform others. Costs N M d multiplications.
pub(in crate::graph) fn build(
    table: &EmbeddingTable,
    config: &GraphConfig,
    size: Size,
    seed: u64,
    version: GraphVersion,
) -> ProximityGraph {
    let kernel = Kernel::choose(config.precision, table.dimension(), size.neighbors, size.candidates);
    build_by_parts(table, kernel, size, seed, version, part(table, size, kernel))
}

/// The same, with `part` samples packed at a time, a multiple of [`COLUMNS`].
fn build_by_parts(
    table: &EmbeddingTable,
    kernel: Kernel,
    size: Size,
    seed: u64,
    version: GraphVersion,
    part: usize,
) -> ProximityGraph {
    let mut draws = Draws::new(table, size, seed, version);
    let rows = draws.rows.clone();
    let mut own_seen = vec![false; rows.len()];
    let mut lists = Lists::new(table.len(), size.neighbors);
    let stripes = lists.stripes();
    let mut columns = Columns::default();
    let Ok(()) = draws.in_parts(part, |part| {
        columns.pack_parallel(kernel, table, part.ids);
        let round = Round { table, kernel, columns: &columns, part, stripes: &stripes };
        rows.par_chunks(part.block_rows).zip(own_seen.par_chunks_mut(part.block_rows)).enumerate().for_each_init(
            || Scratch::new(kernel, size, part.block_rows),
            |scratch, (block, (rows, own_seen))| round.block(block, rows, own_seen, scratch),
        );
        Ok::<_, Infallible>(())
    });
    drop(stripes);
    lists.into_graph(size.neighbors, version)
}

/// Samples that are packed at a time.
fn part(table: &EmbeddingTable, size: Size, kernel: Kernel) -> usize {
    let kept = table.len() * (table.bytes_per_sample() + 8 * size.neighbors);
    let packed = 4 * kernel.width(table.dimension());
    let part = (kept / 10).saturating_sub(OVERHEAD * table.len()).max(SMALL) / packed;
    // Even parts; each gives at least a panel to a block.
    let parts = table.len().div_ceil(part).min(size.candidates.div_ceil(2 * COLUMNS)).max(1);
    table.len().div_ceil(parts).next_multiple_of(COLUMNS)
}

/// One part of the samples, packed.
struct Round<'a, 's> {
    table: &'a EmbeddingTable,
    kernel: Kernel,
    columns: &'a Columns,
    part: &'a Part<'a>,
    stripes: &'a Stripes<'s>,
}

/// What a thread reuses from block to block.
struct Scratch {
    rows: Rows,
    scores: Aligned<Scores>,
    shortlists: Shortlists,
    /// The candidates by their places.
    candidates: Vec<u32>,
    /// What one row chooses from.
    offered: (Vec<f32>, Vec<SampleId>),
    /// Of some candidates, where the table does not keep f32.
    vectors: Aligned<f32>,
    room: Vec<f32>,
}

impl Scratch {
    fn new(kernel: Kernel, size: Size, block_rows: usize) -> Self {
        let keep = if kernel.is_exact() { size.neighbors } else { with_margin(size.neighbors) };
        Self {
            rows: Rows::default(),
            scores: avec![[0.0; COLUMNS]; LINES.max(block_rows.next_multiple_of(ROWS))],
            // One may be the row itself or the spare.
            shortlists: Shortlists::new(kernel, block_rows, keep + 1),
            candidates: Vec::new(),
            offered: Default::default(),
            vectors: avec![],
            room: Vec::new(),
        }
    }
}

impl Round<'_, '_> {
    /// Offers this part's candidates to a block of rows.
    fn block(&self, block: usize, rows: &[u32], own_seen: &mut [bool], scratch: &mut Scratch) {
        let draw = self.part.draw(block);
        let spare = self.part.spare(&draw, rows, own_seen);
        scratch.rows.pack(self.kernel, self.table, rows);
        scratch.shortlists.restart(rows.iter().map(|&row| self.threshold(row)));
        scratch.candidates.clear();
        let padded = rows.len().next_multiple_of(ROWS);
        let at_once = scratch.scores.len() / padded;
        for (turn, panels) in draw.chunks(at_once).enumerate() {
            let first = scratch.candidates.len();
            for (place, (&(panel, ids), scores)) in panels.iter().zip(scratch.scores.chunks_mut(padded)).enumerate() {
                for (tile, scores) in scores.chunks_mut(ROWS).enumerate() {
                    // Panels are dealt in random order, which no processor foresees.
                    if let Some(&(next, _)) = draw.get(turn * at_once + place + 1) {
                        self.kernel.prefetch(self.columns, next, tile, padded / ROWS);
                    }
                    self.kernel.scores(&scratch.rows, tile * ROWS, self.columns, panel, scores);
                }
                // What fills up a panel is nobody's candidate.
                if ids.len() < COLUMNS {
                    scores.iter_mut().for_each(|scores| scores[ids.len()..].fill(f32::NAN));
                }
                scratch.candidates.extend(ids);
                scratch.candidates.resize(scratch.candidates.len().next_multiple_of(COLUMNS), ids[0]);
            }
            scratch.shortlists.take(&scratch.scores[..panels.len() * padded], padded, first as u32);
        }
        if !self.kernel.is_exact() {
            self.score_again(rows, scratch);
        }
        for ((r, &row), &own_seen) in rows.iter().enumerate().zip(&*own_seen) {
            if let Some(&next) = rows.get(r + 1) {
                self.stripes.with(next, |list| list.prefetch());
            }
            let Scratch { shortlists, candidates, offered: (scores, ids), .. } = &mut *scratch;
            let (row_scores, places) = shortlists.of(r);
            scores.clear();
            scores.extend(row_scores);
            ids.clear();
            ids.extend(places.iter().map(|&place| SampleId(candidates[place as usize])));
            // The spare replaces a row's own sample; the others do not take it.
            let refused = if own_seen { Some(row) } else { spare };
            if let Some(at) = refused.and_then(|refused| ids.iter().position(|id| id.0 == refused)) {
                scores.swap_remove(at);
                ids.swap_remove(at);
            }
            self.stripes.with(row, |mut list| {
                if !self.part.is_first {
                    for (score, id) in list.candidates() {
                        scores.push(score);
                        ids.push(id);
                    }
                }
                list.fill_with_best(scores, ids);
            });
        }
    }

    /// What a row's candidates must reach, by what earlier parts left; nothing for rough scores, which do not compare
    /// with similarities.
    fn threshold(&self, row: u32) -> f32 {
        if self.part.is_first || !self.kernel.is_exact() {
            return f32::NEG_INFINITY;
        }
        self.stripes.with(row, |list| list.worst())
    }

    /// Puts similarities in place of rough scores. Candidates are read some at a time, each once for all rows.
    fn score_again(&self, rows: &[u32], scratch: &mut Scratch) {
        let Scratch { shortlists, candidates, vectors, room, .. } = scratch;
        let dimension = self.table.dimension();
        let together = (TOGETHER / dimension).max(1);
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
            shortlists.score_again((first + ids.len()) as u32, |row, places, scores| {
                // The next ones come from memory while these are in work.
                prefetch(&next[row * next.len() / rows.len()..(row + 1) * next.len() / rows.len()]);
                let vector = |&place: &u32| {
                    let at = place as usize - first;
                    let read = || &vectors[at * dimension..][..dimension];
                    self.table.f32(SampleId(ids[at])).unwrap_or_else(read)
                };
                dots(self.table.vector(SampleId(rows[row]), room), places.iter().map(vector), scores);
            });
            first += ids.len();
        }
    }
}

/// Bytes a sample beside the packed part: two orders, hands, flags, thresholds.
const OVERHEAD: usize = 20;

/// Rows of a block times panels that are scored at a time: 288 KiB of scores, all those of 1,000 candidates where 72 rows
/// share them.
const LINES: usize = 64 * 72;

/// Numbers of the candidates that are scored again at a time: 256 KiB, as many more are on their way, which is half of a
/// second-level cache.
const TOGETHER: usize = 64 << 10;

/// Bytes of a part that are never too many.
const SMALL: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::config::{Precision, Similarity};
    use crate::sample::ModelVersion;

    /// With M = K every candidate is kept: in parts, too, each other sample is one as often as any.
    #[test]
    fn candidates_are_uniform_in_parts_and_in_every_format() {
        let (len, candidates, builds) = (150usize, 70usize, 400u64);
        let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(1);
        let vectors = (0..len * 8).map(|_| generator.random_range(-1f32..1.0)).collect();
        let table = EmbeddingTable::new(vectors, 8, Similarity::Cosine, ModelVersion(1)).unwrap();
        let config = GraphConfig { candidates, neighbors: candidates, ..GraphConfig::default() };
        let size = Size::new(len, &config);
        for precision in [Precision::F32, Precision::I8, Precision::Bf16] {
            let kernel = Kernel::choose(precision, 8, candidates, candidates);
            let mut counts = vec![0f64; len * len];
            for seed in 0..builds {
                let graph = build_by_parts(&table, kernel, size, seed, GraphVersion(1), 48);
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
