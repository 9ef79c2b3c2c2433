//! Builds a graph on a [`Device`], from the same draws as on the processor.
//!
//! 1. Load a chunk of the vectors onto the device: all of them if they fit.
//! 2. Send batches of some hundred megabytes, which name rows and columns by their positions among the loaded vectors,
//!    so that little else than the results is copied.
//! 3. Merge the results into the lists.
//!
//! One batch at a time is multiplied; meanwhile all threads prepare the next one and merge the results of the last.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{Device, DeviceBlocks, DeviceFormat, DeviceRows, DeviceVectors, LoadedVectors};
use crate::config::{GraphConfig, Precision, Similarity};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, ModelError, Result};
use crate::graph::ProximityGraph;
use crate::graph::kernel::PANEL_COLUMNS;
use crate::graph::params::{Size, with_margin};
use crate::graph::sampled::draws::{CandidateChunk, Draws};
use crate::graph::topk::buffer::TopK;
use crate::graph::topk::lists::{Lists, Stripes};
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// Builds the exact graph, or that of random candidates.
///
/// If the device runs out of memory, chunks and batches are halved and the graph is started again.
pub(in crate::graph) fn build(
    device: &dyn Device,
    table: &EmbeddingTable,
    config: &GraphConfig,
    size: Size,
    is_exact: bool,
    seed: u64,
    version: GraphVersion,
) -> Result<ProximityGraph> {
    let build = OnDevice::new(device, table, config.precision, size);
    let mut limits = build.limits(is_exact);
    loop {
        telemetry::graph_on_device(device.name(), table.present().div_ceil(limits.chunk));
        let built = if is_exact { build.exact(limits, version) } else { build.sampled(limits, seed, version) };
        match built {
            Err(Error::Model(ModelError::OutOfMemory { .. })) if limits.halve() => {
                telemetry::device_halved(device.name(), limits.chunk, limits.batch_bytes);
            }
            built => return built,
        }
    }
}

/// A build on a device.
struct OnDevice<'a> {
    device: &'a dyn Device,
    table: &'a EmbeddingTable,
    format: DeviceFormat,
    size: Size,
    /// How many slots a list has: more than K if scores are rough.
    length: usize,
    is_rough: bool,
    /// Whether the vectors of rows can be among those that are loaded: those of cross similarity are others.
    rows_are_loaded: bool,
}

/// How much is on the device at once.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limits {
    /// How many vectors a chunk has, and how many at least.
    chunk: usize,
    min_chunk: usize,
    /// How many bytes a batch takes.
    batch_bytes: usize,
}

impl Limits {
    /// Halves chunks and batches; returns `false` if they are as small as can be.
    fn halve(&mut self) -> bool {
        if self.batch_bytes <= MIN_BATCH_BYTES && self.chunk <= self.min_chunk {
            return false;
        }
        self.batch_bytes = (self.batch_bytes / 2).max(MIN_BATCH_BYTES);
        self.chunk = (self.chunk / 2).next_multiple_of(PANEL_COLUMNS).max(self.min_chunk);
        true
    }
}

impl<'a> OnDevice<'a> {
    fn new(device: &'a dyn Device, table: &'a EmbeddingTable, precision: Precision, size: Size) -> Self {
        let format = match (precision, table.similarity()) {
            (Precision::Auto | Precision::F32, _) => DeviceFormat::F32,
            (Precision::Bf16 | Precision::I8, Similarity::Cosine | Similarity::Cross) => DeviceFormat::F16,
            (Precision::Bf16 | Precision::I8, Similarity::Dot) => DeviceFormat::Bf16,
        };
        let is_rough = format != DeviceFormat::F32 || !device.is_exact();
        let length = if is_rough { with_margin(size.neighbors).min(size.candidates) } else { size.neighbors };
        Self { device, table, format, size, length, is_rough, rows_are_loaded: table.faces_itself() }
    }

    /// The limits at the start: all vectors and large batches.
    ///
    /// If the device's memory is limited, half of it is for vectors and a quarter for batches.
    fn limits(&self, is_exact: bool) -> Limits {
        let whole = self.table.present().next_multiple_of(PANEL_COLUMNS);
        // Each chunk gives at least two panels to a block, as on the processor.
        let chunks = if is_exact { whole / PANEL_COLUMNS } else { self.size.candidates.div_ceil(2 * PANEL_COLUMNS) };
        let min_chunk = whole.div_ceil(chunks.max(1)).next_multiple_of(PANEL_COLUMNS);
        let Some(memory) = self.device.memory() else {
            return Limits { chunk: whole, min_chunk, batch_bytes: MAX_BATCH_BYTES };
        };
        let fit = memory / 2 / (self.table.dimension() * self.format.bytes());
        Limits {
            chunk: fit.next_multiple_of(PANEL_COLUMNS).clamp(min_chunk, whole),
            min_chunk,
            batch_bytes: (memory / 4).clamp(MIN_BATCH_BYTES, MAX_BATCH_BYTES),
        }
    }

    /// Builds the graph of random candidates.
    fn sampled(&self, limits: Limits, seed: u64, version: GraphVersion) -> Result<ProximityGraph> {
        // If all vectors fit, they are copied while the candidates are drawn.
        let ids = self.table.present_ids();
        let (whole, (mut draws, mut lists)) = rayon::join(
            || (limits.chunk >= ids.len()).then(|| self.load(&ids, self.rows_are_loaded)).transpose(),
            || (Draws::new(self.table, self.size, seed, version), Lists::new(self.table.len(), self.length)),
        );
        let whole = whole?.map(|loaded| (loaded, positions(&ids, self.table.len())));
        let rows = draws.rows.clone();
        let mut drew_itself = vec![false; rows.len()];
        let stripes = lists.stripes();
        draws.in_chunks(limits.chunk, |chunk| {
            let of_chunk;
            let (loaded, positions) = match &whole {
                Some(whole) => whole,
                None => {
                    of_chunk = (self.load(chunk.ids, false)?, positions(chunk.ids, self.table.len()));
                    &of_chunk
                }
            };
            let width = chunk.wanted;
            let row_bytes = self.table.dimension() * self.format.bytes();
            let block_bytes = chunk.block_rows * (4 * width + row_bytes) + width * row_bytes;
            let blocks = (limits.batch_bytes / block_bytes).max(1);
            let batch = DeviceBatch {
                chunk,
                loaded: &**loaded,
                positions,
                has_rows: self.rows_are_loaded && whole.is_some(),
                build: self,
                stripes: &stripes,
            };
            let batch_rows = blocks * chunk.block_rows;
            let batches = rows.chunks(batch_rows).zip(drew_itself.chunks_mut(batch_rows)).enumerate();
            let batches = Mutex::new(Some(batches));
            let batches = || batches.lock().unwrap_or_else(PoisonError::into_inner);
            let next = || batches().as_mut()?.next();
            (0..loaded.at_once() + EXTRA_BATCHES).into_par_iter().with_max_len(1).try_for_each(|_| {
                while let Some((n, (rows, drew_itself))) = next() {
                    if let Err(error) = batch.run(n * blocks, rows, drew_itself) {
                        // The other threads stop, too.
                        *batches() = None;
                        return Err(error);
                    }
                }
                Ok(())
            })
        })?;
        drop(stripes);
        Ok(self.finish(lists, &rows, version))
    }

    /// Builds the graph of all pairs.
    fn exact(&self, limits: Limits, version: GraphVersion) -> Result<ProximityGraph> {
        let ids = self.table.present_ids();
        let mut lists = Lists::new(self.table.len(), self.length);
        let stripes = lists.stripes();
        for (start, chunk) in (0..).step_by(limits.chunk).zip(ids.chunks(limits.chunk)) {
            let has_rows = self.rows_are_loaded && chunk.len() == ids.len();
            let loaded = self.load(chunk, has_rows)?;
            let row_bytes = self.table.dimension() * self.format.bytes();
            // At most half of a batch is for copies of the columns.
            let width = chunk.len().min(MAX_EXACT_COLUMNS).min((limits.batch_bytes / 2 / row_bytes).max(PANEL_COLUMNS));
            let block_rows = (limits.batch_bytes.saturating_sub(width * row_bytes) / (4 * width + row_bytes))
                .clamp(1, MAX_EXACT_ROWS);
            ids.par_chunks(block_rows).enumerate().try_for_each(|(block, rows)| {
                let positions: Vec<_> = (0..rows.len()).map(|r| (block * block_rows + r) as i32).collect();
                let vectors = if has_rows { Vec::new() } else { self.vectors(rows) };
                let mut best = TopK::new(self.length);
                for first in (0..chunk.len()).step_by(width) {
                    let columns: Vec<_> =
                        (first..chunk.len().min(first + width)).map(|position| position as i32).collect();
                    let k = (self.length + 1).min(columns.len());
                    let blocks = DeviceBlocks {
                        rows: if vectors.is_empty() {
                            DeviceRows::Places(&positions)
                        } else {
                            DeviceRows::Given(&vectors)
                        },
                        block_rows: rows.len(),
                        columns: &columns,
                        block_columns: columns.len(),
                        k,
                    };
                    loaded.best(&blocks, &mut |scores, found| {
                        for ((&row, scores), found) in rows.iter().zip(scores.chunks(k)).zip(found.chunks(k)) {
                            let ids = found.iter().map(|&column| chunk[first + column as usize]);
                            let others = scores.iter().copied().zip(ids).filter(|&(_, id)| id != row);
                            merge(&stripes, row, start + first == 0, others, &mut best);
                        }
                    })?;
                }
                Ok::<_, Error>(())
            })?;
        }
        drop(stripes);
        Ok(self.finish(lists, &ids, version))
    }

    /// Loads the vectors of these samples onto the device.
    fn load(&self, ids: &[u32], with_rows: bool) -> Result<Box<dyn LoadedVectors>> {
        let read = |position: usize, vector: &mut [f32]| self.table.read(SampleId(ids[position]), vector);
        let (count, dimension, format) = (ids.len(), self.table.dimension(), self.format);
        self.device.load(&DeviceVectors { count, read: &read, dimension, format, with_rows })
    }

    /// Reads the vectors of these samples that face those on the device [ids × d].
    fn vectors(&self, ids: &[u32]) -> Vec<f32> {
        let mut vectors = vec![0f32; ids.len() * self.table.dimension()];
        let rows = vectors.par_chunks_exact_mut(self.table.dimension());
        rows.zip(ids).with_min_len(256).for_each(|(vector, &id)| self.table.read_facing(SampleId(id), vector));
        vectors
    }

    /// Makes the graph of the lists; `order` is a fast order to go through the samples.
    fn finish(&self, mut lists: Lists, order: &[u32], version: GraphVersion) -> ProximityGraph {
        if self.is_rough {
            lists.score_again(self.table, order, with_margin(self.size.neighbors));
        }
        lists.into_graph(self.size.neighbors, version)
    }
}

/// Runs blocks of rows on the device, with a chunk of the candidates.
struct DeviceBatch<'a, 's> {
    chunk: &'a CandidateChunk<'a>,
    loaded: &'a dyn LoadedVectors,
    /// The position of each sample among the loaded vectors.
    positions: &'a [i32],
    /// Whether rows are among the loaded vectors.
    has_rows: bool,
    build: &'a OnDevice<'a>,
    stripes: &'a Stripes<'s>,
}

impl DeviceBatch<'_, '_> {
    /// Offers this chunk's candidates to the rows of some blocks, which are numbered from `first_block` on.
    fn run(&self, first_block: usize, rows: &[u32], drew_itself: &mut [bool]) -> Result<()> {
        let CandidateChunk { block_rows, wanted, is_first, .. } = *self.chunk;
        // The candidates of the blocks [blocks × wanted].
        let mut drawn = vec![0; rows.len().div_ceil(block_rows) * wanted];
        let blocks = drawn.par_chunks_mut(wanted).zip(rows.par_chunks(block_rows));
        let blocks = blocks.zip(drew_itself.par_chunks_mut(block_rows)).enumerate();
        let substitutes: Vec<_> = blocks
            .map(|(n, ((drawn, rows), drew_itself))| {
                let draw = self.chunk.draw(first_block + n);
                let ids = draw.iter().flat_map(|(_, ids)| *ids);
                drawn.iter_mut().zip(ids).for_each(|(drawn, &id)| *drawn = id);
                self.chunk.substitute(&draw, rows, drew_itself)
            })
            .collect();
        // The last block may be short; it is padded with its last row.
        let mut padded = rows.to_vec();
        padded.resize(substitutes.len() * block_rows, rows[rows.len() - 1]);
        let positions = |ids: &[u32]| ids.par_iter().map(|&id| self.positions[id as usize]).collect::<Vec<_>>();
        let (row_positions, vectors);
        let k = (self.build.length + 1).min(wanted);
        let blocks = DeviceBlocks {
            rows: if self.has_rows {
                row_positions = positions(&padded);
                DeviceRows::Places(&row_positions)
            } else {
                vectors = self.build.vectors(&padded);
                DeviceRows::Given(&vectors)
            },
            block_rows,
            columns: &positions(&drawn),
            block_columns: wanted,
            k,
        };
        let drew_itself = &*drew_itself;
        self.loaded.best(&blocks, &mut |scores, found| {
            let found = scores.par_chunks(k).zip(found.par_chunks(k)).take(rows.len()).enumerate().with_min_len(64);
            found.for_each_init(
                || TopK::new(self.build.length),
                |best, (r, (scores, found))| {
                    let row = rows[r];
                    let block = r / block_rows;
                    let drawn = &drawn[block * wanted..][..wanted];
                    let ids = found.iter().map(|&column| drawn[column as usize]);
                    // The k are one more than needed: one at most is the row itself or a substitute that it ignores.
                    let counts = |id: u32| id != row && (Some(id) != substitutes[block] || drew_itself[r]);
                    let others = scores.iter().copied().zip(ids).filter(|&(_, id)| counts(id));
                    merge(self.stripes, row, is_first, others, best);
                },
            );
        })
    }
}

/// Merges candidates, which come best first, with those that a row has.
fn merge(
    stripes: &Stripes<'_>,
    row: u32,
    is_first: bool,
    candidates: impl Iterator<Item = (f32, u32)>,
    best: &mut TopK,
) {
    stripes.with(row, |mut list| {
        if is_first {
            return list.fill(candidates);
        }
        candidates
            .chain(list.candidates().map(|(score, id)| (score, id.0)))
            .for_each(|(score, id)| best.push(score, id));
        list.fill(best.drain_sorted());
    });
}

/// The position among `ids` of each of `samples`; arbitrary for a sample that is not there.
fn positions(ids: &[u32], samples: usize) -> Vec<i32> {
    let mut positions = vec![0; samples];
    ids.iter().zip(0..).for_each(|(&id, position)| positions[id as usize] = position);
    positions
}

/// The bounds of a batch: enough to keep a large GPU busy, and little beside its memory.
const MAX_BATCH_BYTES: usize = 512 << 20;
const MIN_BATCH_BYTES: usize = 1 << 20;

/// How many batches are under way beside those that are multiplied: one is prepared, one is merged into the lists.
const EXTRA_BATCHES: usize = 2;

/// The size of a block of the exact graph, at most.
const MAX_EXACT_COLUMNS: usize = 1 << 16;
const MAX_EXACT_ROWS: usize = 4096;
