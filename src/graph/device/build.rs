//! The graph on a [`Device`]: the same draws as on the processor, multiplied there.
//!
//! A part of the vectors lies on the device, all of them if they fit. Launches of some hundred megabytes go through it;
//! each names rows and columns by their places, so that little else than the result is copied. One at a time is
//! multiplied; meanwhile all threads prepare the next one and take the results of the last.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{Device, DeviceBlocks, DeviceFormat, DeviceRows, DeviceVectors, LoadedVectors};
use crate::config::{GraphConfig, Precision, Similarity};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::graph::ProximityGraph;
use crate::graph::kernel::COLUMNS;
use crate::graph::params::Size;
use crate::graph::params::with_margin;
use crate::graph::sampled::draws::{Draws, Part};
use crate::graph::topk::buffer::TopK;
use crate::graph::topk::lists::{Lists, Stripes};
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// The graph of `size`, exact or of random candidates. Where the device runs out of memory, parts and launches are
/// halved, and the graph is begun anew.
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
        telemetry::graph_on_device(device.name(), table.present().div_ceil(limits.part));
        let built = if is_exact { build.exact(limits, version) } else { build.sampled(limits, seed, version) };
        match built {
            Err(Error::OutOfMemory { .. }) if limits.halve() => {
                telemetry::device_halved(device.name(), limits.part, limits.launch);
            }
            built => return built,
        }
    }
}

struct OnDevice<'a> {
    device: &'a dyn Device,
    table: &'a EmbeddingTable,
    format: DeviceFormat,
    size: Size,
    /// Slots of a list: more than K where scores are rough.
    length: usize,
    is_rough: bool,
}

/// What is on the device at once.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limits {
    /// Vectors of a part.
    part: usize,
    least_part: usize,
    /// Bytes that a launch takes.
    launch: usize,
}

impl Limits {
    /// Whether there is anything left to halve.
    fn halve(&mut self) -> bool {
        if self.launch <= LEAST_LAUNCH && self.part <= self.least_part {
            return false;
        }
        self.launch = (self.launch / 2).max(LEAST_LAUNCH);
        self.part = (self.part / 2).next_multiple_of(COLUMNS).max(self.least_part);
        true
    }
}

impl<'a> OnDevice<'a> {
    fn new(device: &'a dyn Device, table: &'a EmbeddingTable, precision: Precision, size: Size) -> Self {
        let format = match (precision, table.similarity()) {
            (Precision::Auto | Precision::F32, _) => DeviceFormat::F32,
            (Precision::Bf16 | Precision::I8, Similarity::Cosine) => DeviceFormat::F16,
            (Precision::Bf16 | Precision::I8, Similarity::Dot) => DeviceFormat::Bf16,
        };
        let is_rough = format != DeviceFormat::F32 || !device.is_exact();
        let length = if is_rough { with_margin(size.neighbors).min(size.candidates) } else { size.neighbors };
        Self { device, table, format, size, length, is_rough }
    }

    /// All vectors and large launches, unless the device's memory is limited: then half of it for vectors, a quarter for
    /// launches.
    fn limits(&self, is_exact: bool) -> Limits {
        let whole = self.table.present().next_multiple_of(COLUMNS);
        // Each part gives at least two panels to a block, as on the processor.
        let parts = if is_exact { whole / COLUMNS } else { self.size.candidates.div_ceil(2 * COLUMNS) };
        let least_part = whole.div_ceil(parts.max(1)).next_multiple_of(COLUMNS);
        let (part, launch) = match self.device.memory() {
            None => (whole, LAUNCH),
            Some(memory) => {
                let fit = memory / 2 / (self.table.dimension() * self.format.bytes());
                (fit.next_multiple_of(COLUMNS).clamp(least_part, whole), (memory / 4).clamp(LEAST_LAUNCH, LAUNCH))
            }
        };
        Limits { part, least_part, launch }
    }

    fn sampled(&self, limits: Limits, seed: u64, version: GraphVersion) -> Result<ProximityGraph> {
        // Where all vectors fit, they are on their way while the candidates are drawn.
        let ids = self.table.present_ids();
        let (whole, (mut draws, mut lists)) = rayon::join(
            || (limits.part >= ids.len()).then(|| self.load(&ids, true)).transpose(),
            || (Draws::new(self.table, self.size, seed, version), Lists::new(self.table.len(), self.length)),
        );
        let whole = whole?.map(|loaded| (loaded, places(&ids, self.table.len())));
        let rows = draws.rows.clone();
        let mut own_seen = vec![false; rows.len()];
        let stripes = lists.stripes();
        draws.in_parts(limits.part, |part| {
            let of_part;
            let (loaded, places) = match &whole {
                Some(whole) => whole,
                None => {
                    of_part = (self.load(part.ids, false)?, places(part.ids, self.table.len()));
                    &of_part
                }
            };
            let (width, row_bytes) = (part.wanted, self.table.dimension() * self.format.bytes());
            let block_bytes = part.block_rows * (4 * width + row_bytes) + width * row_bytes;
            let blocks = (limits.launch / block_bytes).max(1);
            let (build, has_rows, stripes) = (self, whole.is_some(), &stripes);
            let launch = Launch { part, loaded: &**loaded, places, has_rows, build, stripes };
            let launch_rows = blocks * part.block_rows;
            let launches = rows.chunks(launch_rows).zip(own_seen.chunks_mut(launch_rows)).enumerate();
            let launches = Mutex::new(Some(launches));
            let launches = || launches.lock().unwrap_or_else(PoisonError::into_inner);
            let next = || launches().as_mut()?.next();
            (0..loaded.at_once() + AROUND).into_par_iter().with_max_len(1).try_for_each(|_| {
                while let Some((n, (rows, own_seen))) = next() {
                    if let Err(error) = launch.run(n * blocks, rows, own_seen) {
                        // For the others, too, it is over.
                        *launches() = None;
                        return Err(error);
                    }
                }
                Ok(())
            })
        })?;
        drop(stripes);
        Ok(self.finish(lists, &rows, version))
    }

    fn exact(&self, limits: Limits, version: GraphVersion) -> Result<ProximityGraph> {
        let ids = self.table.present_ids();
        let mut lists = Lists::new(self.table.len(), self.length);
        let stripes = lists.stripes();
        for (start, part) in (0..).step_by(limits.part).zip(ids.chunks(limits.part)) {
            let loaded = self.load(part, part.len() == ids.len())?;
            let row_bytes = self.table.dimension() * self.format.bytes();
            // Of a launch, at most half is for copies of the columns.
            let width = part.len().min(EXACT_COLUMNS).min((limits.launch / 2 / row_bytes).max(COLUMNS));
            let block_rows =
                (limits.launch.saturating_sub(width * row_bytes) / (4 * width + row_bytes)).clamp(1, EXACT_ROWS);
            ids.par_chunks(block_rows).enumerate().try_for_each(|(block, rows)| {
                let places: Vec<_> = (0..rows.len()).map(|r| (block * block_rows + r) as i32).collect();
                let vectors = if part.len() == ids.len() { Vec::new() } else { self.vectors(rows) };
                let mut best = TopK::new(self.length);
                for first in (0..part.len()).step_by(width) {
                    let columns: Vec<_> = (first..part.len().min(first + width)).map(|place| place as i32).collect();
                    let k = (self.length + 1).min(columns.len());
                    let blocks = DeviceBlocks {
                        rows: if vectors.is_empty() {
                            DeviceRows::Places(&places)
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
                            let ids = found.iter().map(|&place| part[first + place as usize]);
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

    fn load(&self, ids: &[u32], with_rows: bool) -> Result<Box<dyn LoadedVectors>> {
        let read = |place: usize, vector: &mut [f32]| self.table.read(SampleId(ids[place]), vector);
        let (count, dimension, format) = (ids.len(), self.table.dimension(), self.format);
        self.device.load(&DeviceVectors { count, read: &read, dimension, format, with_rows })
    }

    /// The vectors of these samples, one after another.
    fn vectors(&self, ids: &[u32]) -> Vec<f32> {
        let mut vectors = vec![0f32; ids.len() * self.table.dimension()];
        let rows = vectors.par_chunks_exact_mut(self.table.dimension());
        rows.zip(ids).with_min_len(256).for_each(|(vector, &id)| self.table.read(SampleId(id), vector));
        vectors
    }

    fn finish(&self, mut lists: Lists, order: &[u32], version: GraphVersion) -> ProximityGraph {
        if self.is_rough {
            lists.score_again(self.table, order, with_margin(self.size.neighbors));
        }
        lists.into_graph(self.size.neighbors, version)
    }
}

/// Blocks of rows on their way through the device, with a part of the candidates.
struct Launch<'a, 's> {
    part: &'a Part<'a>,
    loaded: &'a dyn LoadedVectors,
    /// The place of each sample among those that are loaded.
    places: &'a [i32],
    /// Whether rows are among them.
    has_rows: bool,
    build: &'a OnDevice<'a>,
    stripes: &'a Stripes<'s>,
}

impl Launch<'_, '_> {
    /// Offers this part's candidates to some blocks of rows, of which the first one has this number.
    fn run(&self, first_block: usize, rows: &[u32], own_seen: &mut [bool]) -> Result<()> {
        let Part { block_rows, wanted, is_first, .. } = *self.part;
        // Of each block, one after the other.
        let mut drawn = vec![0; rows.len().div_ceil(block_rows) * wanted];
        let blocks = drawn.par_chunks_mut(wanted).zip(rows.par_chunks(block_rows));
        let blocks = blocks.zip(own_seen.par_chunks_mut(block_rows)).enumerate();
        let spares: Vec<_> = blocks
            .map(|(n, ((drawn, rows), own_seen))| {
                let draw = self.part.draw(first_block + n);
                let ids = draw.iter().flat_map(|(_, ids)| *ids);
                drawn.iter_mut().zip(ids).for_each(|(drawn, &id)| *drawn = id);
                self.part.spare(&draw, rows, own_seen)
            })
            .collect();
        // The last block may be short; its last row then stands for those that are missing.
        let mut padded = rows.to_vec();
        padded.resize(spares.len() * block_rows, rows[rows.len() - 1]);
        let places = |ids: &[u32]| ids.par_iter().map(|&id| self.places[id as usize]).collect::<Vec<_>>();
        let (row_places, vectors);
        let k = (self.build.length + 1).min(wanted);
        let blocks = DeviceBlocks {
            rows: if self.has_rows {
                row_places = places(&padded);
                DeviceRows::Places(&row_places)
            } else {
                vectors = self.build.vectors(&padded);
                DeviceRows::Given(&vectors)
            },
            block_rows,
            columns: &places(&drawn),
            block_columns: wanted,
            k,
        };
        let own_seen = &*own_seen;
        self.loaded.best(&blocks, &mut |scores, found| {
            let found = scores.par_chunks(k).zip(found.par_chunks(k)).take(rows.len()).enumerate().with_min_len(64);
            found.for_each_init(
                || TopK::new(self.build.length),
                |best, (r, (scores, found))| {
                    let (row, block) = (rows[r], r / block_rows);
                    let drawn = &drawn[block * wanted..][..wanted];
                    let ids = found.iter().map(|&column| drawn[column as usize]);
                    // Of the k, which are one more than needed, one at most is the row itself or a spare it refuses.
                    let counts = |id: u32| id != row && (Some(id) != spares[block] || own_seen[r]);
                    let others = scores.iter().copied().zip(ids).filter(|&(_, id)| counts(id));
                    merge(self.stripes, row, is_first, others, best);
                },
            );
        })
    }
}

/// Joins candidates, best first, to those that a row has.
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

/// The place of each of `samples` among `ids`; of no meaning for those that are not there.
fn places(ids: &[u32], samples: usize) -> Vec<i32> {
    let mut places = vec![0; samples];
    ids.iter().zip(0..).for_each(|(&id, place)| places[id as usize] = place);
    places
}

/// Bytes of a launch: enough to keep a large GPU busy, few beside its memory.
const LAUNCH: usize = 512 << 20;
const LEAST_LAUNCH: usize = 1 << 20;

/// Launches under way beside those that are multiplied: one is prepared, one gives its results to the lists.
const AROUND: usize = 2;

/// A block of the exact graph.
const EXACT_COLUMNS: usize = 1 << 16;
const EXACT_ROWS: usize = 4096;
