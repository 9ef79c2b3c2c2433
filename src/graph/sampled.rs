//! The paper's graph at the speed of a matrix product.
//!
//! Samples are shuffled and packed into panels once a build. Blocks of rows, from a second shuffle, share the panels
//! that are dealt to them. By the first shuffle those are a uniform subset of the samples, so every sample still
//! chooses from M uniform others; only within a block are the choices alike, which is why blocks are small against M.
//!
//! Where the packed samples would take more memory than a tenth of embeddings and graph, they are packed and dealt a
//! part at a time; each part gives its share of every sample's candidates, so that all M are still uniform.

use std::convert::Infallible;

use rayon::prelude::*;

use super::draws::{Draws, Part};
use super::kernel::{COLUMNS, Columns, Kernel, ROWS, Rows, Scores};
use super::lists::{Lists, Stripes};
use super::top_k::TopK;
use super::{ProximityGraph, Size};
use crate::config::GraphConfig;
use crate::sample::{GraphVersion, SampleId};
use crate::store::EmbeddingTable;

/// Each sample's K most similar of M uniform others. Costs N M d multiplications.
pub(super) fn build(
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
    let mut draws = Draws::new(table, size.candidates, seed, version);
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
    best: Vec<TopK>,
    merged: TopK,
    scores: Vec<Scores>,
    thresholds: Vec<f32>,
    reached: Vec<u16>,
    ids: Vec<SampleId>,
    similarities: Vec<f32>,
    room: Vec<f32>,
}

impl Scratch {
    fn new(kernel: Kernel, size: Size, block_rows: usize) -> Self {
        let k = if kernel.is_exact() { size.neighbors } else { with_margin(size.neighbors) };
        let padded = block_rows.next_multiple_of(ROWS);
        Self {
            rows: Rows::default(),
            best: (0..block_rows).map(|_| TopK::new(k)).collect(),
            merged: TopK::new(size.neighbors),
            scores: vec![[0.0; COLUMNS]; padded],
            thresholds: vec![f32::INFINITY; padded],
            reached: vec![0; padded],
            ids: Vec::new(),
            similarities: Vec::new(),
            room: Vec::new(),
        }
    }
}

/// How many to keep by rough scores, so that the K best are among them.
pub(super) fn with_margin(k: usize) -> usize {
    k + k / 8 + 4
}

impl Round<'_, '_> {
    /// Offers this part's candidates to a block of rows.
    fn block(&self, block: usize, rows: &[u32], own_seen: &mut [bool], scratch: &mut Scratch) {
        let draw = self.part.draw(block);
        let spare = self.part.spare(&draw, rows, own_seen);
        scratch.rows.pack(self.kernel, self.table, rows);
        scratch.thresholds.fill(f32::INFINITY);
        for ((&row, best), threshold) in rows.iter().zip(&mut scratch.best).zip(&mut scratch.thresholds) {
            // Rough scores do not compare with the similarities that earlier parts left.
            if self.kernel.is_exact() {
                self.load(row, best);
            }
            *threshold = best.threshold();
        }
        let padded = rows.len().next_multiple_of(ROWS);
        let one_sided = [f32::INFINITY; COLUMNS];
        for (place, &(panel, ids)) in draw.iter().enumerate() {
            let (scores, reached) = (&mut scratch.scores[..padded], &mut scratch.reached[..padded]);
            for (quarter, scores) in scores.chunks_mut(ROWS).enumerate() {
                // Panels are dealt in random order, which no processor foresees.
                if let Some(&(next, _)) = draw.get(place + 1) {
                    self.kernel.prefetch(self.columns, next, quarter);
                }
                self.kernel.scores(&scratch.rows, quarter * ROWS, self.columns, panel, scores);
            }
            self.kernel.reached(scores, &scratch.thresholds[..padded], &one_sided, reached);
            let drawn = ((1u32 << ids.len()) - 1) as u16;
            for (r, &row) in rows.iter().enumerate() {
                let mut bits = reached[r] & drawn;
                if bits == 0 {
                    continue;
                }
                let best = &mut scratch.best[r];
                while bits != 0 {
                    let c = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    if ids[c] != row && (Some(ids[c]) != spare || own_seen[r]) {
                        best.push(scores[r][c], ids[c]);
                    }
                }
                scratch.thresholds[r] = best.threshold();
            }
        }
        for (r, &row) in rows.iter().enumerate() {
            self.merge(row, r, scratch);
        }
    }

    /// Writes a row's best back, all parts so far together.
    fn merge(&self, row: u32, r: usize, scratch: &mut Scratch) {
        let Scratch { best, merged, ids, similarities, room, .. } = scratch;
        let mut best = &mut best[r];
        if !self.kernel.is_exact() {
            ids.clear();
            ids.extend(best.drain().map(|(_, id)| SampleId(id)));
            similarities.clear();
            self.table.similarities_with(self.table.vector(SampleId(row), room), ids, similarities);
            self.load(row, merged);
            similarities.iter().zip(ids).for_each(|(&score, id)| merged.push(score, id.0));
            best = merged;
        }
        self.stripes.with(row, |mut list| list.replace(best.drain()));
    }

    /// What earlier parts left of a row's best.
    fn load(&self, row: u32, best: &mut TopK) {
        if self.part.is_first {
            return;
        }
        self.stripes.with(row, |list| list.candidates().for_each(|(score, id)| best.push(score, id.0)));
        best.shrink();
    }
}

/// Bytes a sample beside the packed part: two orders, hands, flags, thresholds.
const OVERHEAD: usize = 20;

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
