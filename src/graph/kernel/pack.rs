//! Packs vectors into the layout of the kernels.

use rayon::prelude::*;

use super::{Format, Kernel, PANEL_COLUMNS, ROW_MULTIPLE, SimdLevel};
use crate::embeddings::EmbeddingTable;
use crate::memory::{Aligned, huge_aligned};
use crate::sample::SampleId;

/// Vectors packed as rows.
#[derive(Debug, Default)]
pub(in crate::graph) struct Rows {
    words: Vec<u32>,
    factors: Vec<f32>,
    width: usize,
    /// One decoded vector.
    decoded: Vec<f32>,
}

/// Vectors packed as the columns of panels.
#[derive(Debug)]
pub(in crate::graph) struct Columns {
    words: Aligned<u32>,
    factors: Vec<f32>,
    /// For i8: where the sum of each column starts, to make up for the 64 that is added to every row component.
    starts: Vec<i32>,
    width: usize,
    len: usize,
}

/// A view of consecutive rows, or of the columns of one panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedSlice<'a> {
    pub words: &'a [u32],
    pub factors: &'a [f32],
    pub starts: &'a [i32],
    pub width: usize,
}

impl Rows {
    /// Replaces the rows by these samples' vectors, padded to a multiple of [`ROW_MULTIPLE`].
    ///
    /// They are those that face columns, so that scores are similarities.
    pub fn pack(&mut self, kernel: Kernel, table: &EmbeddingTable, ids: &[u32]) {
        self.width = kernel.width(table.dimension());
        let len = ids.len().next_multiple_of(ROW_MULTIPLE);
        // The last rows may keep old vectors: nobody looks at their scores.
        self.words.resize(len * self.width, 0);
        self.factors.resize(len, 0.0);
        let slots = self.words.chunks_exact_mut(self.width).zip(&mut self.factors);
        for (index, ((words, factor), &id)) in slots.zip(ids).enumerate() {
            if let Some(&soon) = ids.get(index + PREFETCH_AHEAD) {
                table.prefetch(SampleId(soon));
            }
            *factor = kernel.encode(table.facing(SampleId(id), &mut self.decoded), words, ROW_SHIFT);
        }
    }

    /// Replaces the rows by those of `rows` with these indices.
    pub fn copy(&mut self, rows: &Self, indices: &[u32]) {
        self.width = rows.width;
        let len = indices.len().next_multiple_of(ROW_MULTIPLE);
        self.words.resize(len * self.width, 0);
        self.factors.resize(len, 0.0);
        let slots = self.words.chunks_exact_mut(self.width).zip(&mut self.factors);
        for ((words, factor), &index) in slots.zip(indices) {
            words.copy_from_slice(&rows.words[index as usize * self.width..][..self.width]);
            *factor = rows.factors[index as usize];
        }
    }

    /// A view of `len` rows from `first` on.
    pub(super) fn slice(&self, first: usize, len: usize) -> PackedSlice<'_> {
        PackedSlice {
            words: &self.words[first * self.width..][..len * self.width],
            factors: &self.factors[first..][..len],
            starts: &[],
            width: self.width,
        }
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self { words: Aligned::new(0), factors: Vec::new(), starts: Vec::new(), width: 0, len: 0 }
    }
}

impl Columns {
    /// Replaces the columns by these samples' vectors, padded with zeros to whole panels. Runs on all threads.
    pub fn pack_parallel(&mut self, kernel: Kernel, table: &EmbeddingTable, ids: &[u32]) {
        let width = kernel.width(table.dimension());
        let words = ids.len().next_multiple_of(PANEL_COLUMNS) * width;
        if self.words.capacity() < words {
            self.words = huge_aligned(words);
        }
        self.resize(width, ids.len());
        let panels = self.words.par_chunks_exact_mut(PANEL_COLUMNS * self.width);
        let rest =
            self.factors.par_chunks_exact_mut(PANEL_COLUMNS).zip(self.starts.par_chunks_exact_mut(PANEL_COLUMNS));
        panels.zip(rest).zip(ids.par_chunks(PANEL_COLUMNS)).for_each_init(
            PanelScratch::default,
            |scratch, ((words, rest), ids)| {
                kernel.pack_panel(table, ids, words, rest, scratch);
            },
        );
    }

    /// Does the same on the calling thread.
    pub fn pack(&mut self, kernel: Kernel, table: &EmbeddingTable, ids: &[u32]) {
        self.resize(kernel.width(table.dimension()), ids.len());
        let panels = self.words.chunks_exact_mut(PANEL_COLUMNS * self.width);
        let rest = self.factors.chunks_exact_mut(PANEL_COLUMNS).zip(self.starts.chunks_exact_mut(PANEL_COLUMNS));
        let mut scratch = PanelScratch::default();
        for ((words, rest), ids) in panels.zip(rest).zip(ids.chunks(PANEL_COLUMNS)) {
            kernel.pack_panel(table, ids, words, rest, &mut scratch);
        }
    }

    /// Replaces the columns by the first `len` rows, whose vectors must face themselves.
    pub fn pack_rows(&mut self, kernel: Kernel, rows: &Rows, len: usize) {
        self.resize(rows.width, len);
        let panels = self.words.chunks_exact_mut(PANEL_COLUMNS * self.width);
        let rest = self.factors.chunks_exact_mut(PANEL_COLUMNS).zip(self.starts.chunks_exact_mut(PANEL_COLUMNS));
        let rows = rows.words.chunks(PANEL_COLUMNS * self.width).zip(rows.factors.chunks(PANEL_COLUMNS));
        let mut words = Vec::new();
        for ((panel, (factors, starts)), (row_words, row_factors)) in panels.zip(rest).zip(rows) {
            words.clear();
            words.extend_from_slice(row_words);
            if kernel.format == Format::I8 {
                // The bytes of a row are at least 1: with its top bit set, each gives up 64 without a borrow.
                words.iter_mut().for_each(|w| *w = ((*w | 0x8080_8080) - 0x4040_4040) ^ 0x8080_8080);
            }
            words.resize(PANEL_COLUMNS * self.width, 0);
            factors.fill(0.0);
            starts.fill(0);
            factors[..row_factors.len()].copy_from_slice(row_factors);
            kernel.finish_panel(&words, self.width, panel, starts);
        }
    }

    fn resize(&mut self, width: usize, len: usize) {
        self.width = width;
        self.len = len;
        let padded = len.next_multiple_of(PANEL_COLUMNS);
        self.words.resize(padded * self.width, 0);
        self.factors.resize(padded, 0.0);
        self.starts.resize(padded, 0);
    }

    /// A view of the columns of a panel.
    pub(super) fn panel(&self, panel: usize) -> PackedSlice<'_> {
        let first = panel * PANEL_COLUMNS;
        let width = self.width;
        PackedSlice {
            words: &self.words[first * width..][..PANEL_COLUMNS * width],
            factors: &self.factors[first..][..PANEL_COLUMNS],
            starts: &self.starts[first..][..PANEL_COLUMNS],
            width,
        }
    }
}

/// The vectors of a panel before they are transposed into its lines.
#[derive(Default)]
struct PanelScratch {
    vector: Vec<f32>,
    words: Vec<u32>,
}

impl Kernel {
    /// Packs the vectors of at most [`PANEL_COLUMNS`] samples into a panel.
    fn pack_panel(
        self,
        table: &EmbeddingTable,
        ids: &[u32],
        panel: &mut [u32],
        (factors, starts): (&mut [f32], &mut [i32]),
        scratch: &mut PanelScratch,
    ) {
        let width = self.width(table.dimension());
        scratch.words.resize(PANEL_COLUMNS * width, 0);
        ids.iter().for_each(|&id| table.prefetch(SampleId(id)));
        factors.fill(0.0);
        starts.fill(0);
        for (c, words) in scratch.words.chunks_exact_mut(width).enumerate() {
            match ids.get(c) {
                Some(&id) => factors[c] = self.encode(table.vector(SampleId(id), &mut scratch.vector), words, 0),
                None => words.fill(0),
            }
        }
        self.finish_panel(&scratch.words, width, panel, starts);
    }

    /// Transposes the words of a panel's vectors into its lines.
    fn finish_panel(self, words: &[u32], width: usize, panel: &mut [u32], starts: &mut [i32]) {
        if self.format == Format::I8 {
            match self.simd {
                // SAFETY: `running` has detected the feature.
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx512 | SimdLevel::Avx2 => unsafe { starts_avx2(words, width, starts) },
                SimdLevel::Portable => starts_of(words, width, starts),
            }
        }
        self.transpose(words, width, panel);
    }

    /// Transposes [PANEL_COLUMNS × width] to [width × PANEL_COLUMNS].
    fn transpose(self, words: &[u32], width: usize, panel: &mut [u32]) {
        assert_eq!((words.len(), panel.len()), (PANEL_COLUMNS * width, PANEL_COLUMNS * width));
        let done = match self.simd {
            // SAFETY: `running` has detected the feature, and the lengths are checked.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 | SimdLevel::Avx2 => unsafe { transpose_avx2(words, width, panel) },
            SimdLevel::Portable => 0,
        };
        for (w, line) in (done..width).zip(panel[done * PANEL_COLUMNS..].as_chunks_mut::<PANEL_COLUMNS>().0) {
            for (c, word) in line.iter_mut().enumerate() {
                *word = words[c * width + w];
            }
        }
    }

    /// Writes a vector's words, padded with zeros, and returns its factor: component = number × factor.
    ///
    /// In i8 the numbers are written plus `shift`.
    fn encode(self, vector: &[f32], words: &mut [u32], shift: i32) -> f32 {
        match self.simd {
            // SAFETY: `running` has detected the feature.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 | SimdLevel::Avx2 => unsafe { encode_avx2(self.format, vector, words, shift) },
            SimdLevel::Portable => encode(self.format, vector, words, shift),
        }
    }
}

/// Does what [`Kernel::encode`] does, in plain loops.
#[inline(always)]
fn encode(format: Format, vector: &[f32], words: &mut [u32], shift: i32) -> f32 {
    match format {
        Format::F32 => {
            for (word, x) in words.iter_mut().zip(vector) {
                *word = x.to_bits();
            }
            1.0
        }
        Format::Bf16 => {
            let (pairs, rest) = vector.as_chunks::<2>();
            let pack = |x: f32, y: f32| u32::from(bf16_bits(x)) | u32::from(bf16_bits(y)) << 16;
            for (word, pair) in words.iter_mut().zip(pairs) {
                *word = pack(pair[0], pair[1]);
            }
            if let [last] = rest {
                words[pairs.len()] = pack(*last, 0.0);
            }
            1.0
        }
        Format::I8 => {
            // The bits of positive numbers, taken as integers, compare as the numbers do.
            let largest = vector.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest));
            let largest = f32::from_bits(largest);
            let scale = if largest > 0.0 { LARGEST_I8 / largest } else { 0.0 };
            // Adding 1.5 · 2²³ leaves a whole number, rounded half to even, in the lower bits.
            let number = |x: f32| (x * scale + 12_582_912.0).to_bits().wrapping_add_signed(shift) & 0xff;
            let (fours, rest) = vector.as_chunks::<4>();
            for (word, four) in words.iter_mut().zip(fours) {
                *word = (0..4).fold(0, |word, i| word | number(four[i]) << (8 * i));
            }
            for (i, word) in words.iter_mut().enumerate().skip(fours.len()) {
                let at = |k: usize| if i == fours.len() { rest.get(k).copied().unwrap_or(0.0) } else { 0.0 };
                *word = (0..4).fold(0, |word, k| word | number(at(k)) << (8 * k));
            }
            largest / LARGEST_I8
        }
    }
}

/// Computes where the sum of each column starts: −64 times the sum of its components.
#[inline(always)]
fn starts_of(words: &[u32], width: usize, starts: &mut [i32]) {
    for (start, words) in starts.iter_mut().zip(words.chunks_exact(width)) {
        // Shifting whole words compiles to vector instructions.
        let byte = |word: u32, k: u32| (word << (24 - 8 * k)).cast_signed() >> 24;
        *start = -ROW_SHIFT * words.iter().map(|&w| (0..4).map(|k| byte(w, k)).sum::<i32>()).sum::<i32>();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn starts_avx2(words: &[u32], width: usize, starts: &mut [i32]) {
    starts_of(words, width, starts);
}

/// The upper half of the bits of a finite number, rounded half to even.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn encode_avx2(format: Format, vector: &[f32], words: &mut [u32], shift: i32) -> f32 {
    encode(format, vector, words, shift)
}

/// Transposes all whole blocks of 8 words, and returns how many words of each vector that was.
///
/// # Safety
/// `words` and `panel` must have [`PANEL_COLUMNS`] × `width` words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2(words: &[u32], width: usize, panel: &mut [u32]) -> usize {
    use std::arch::x86_64::{
        __m256, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };
    let done = width / 8 * 8;
    for w in (0..done).step_by(8) {
        for c in [0, 8] {
            // SAFETY: column c + i < 16 has words w to w + 7 < width.
            let load = |i: usize| unsafe { _mm256_loadu_ps(words.as_ptr().add((c + i) * width + w).cast()) };
            let v: [__m256; 8] = std::array::from_fn(load);
            let pairs: [__m256; 8] = std::array::from_fn(|i| {
                let (a, b) = (v[i / 2 * 2], v[i / 2 * 2 + 1]);
                if i % 2 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
            });
            let fours: [__m256; 8] = std::array::from_fn(|i| {
                let (a, b) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + i % 4 / 2 + 2]);
                if i % 2 == 0 { _mm256_shuffle_ps::<0x44>(a, b) } else { _mm256_shuffle_ps::<0xee>(a, b) }
            });
            for i in 0..8 {
                let (a, b) = (fours[i % 4], fours[i % 4 + 4]);
                let line =
                    if i < 4 { _mm256_permute2f128_ps::<0x20>(a, b) } else { _mm256_permute2f128_ps::<0x31>(a, b) };
                // SAFETY: line w + i < width has indices c to c + 7 < 16.
                unsafe { _mm256_storeu_ps(panel.as_mut_ptr().add((w + i) * PANEL_COLUMNS + c).cast(), line) };
            }
        }
    }
    done
}

/// How many vectors ahead of packing one is prefetched.
const PREFETCH_AHEAD: usize = 4;

/// What is added to the numbers of rows in i8, which makes them unsigned.
const ROW_SHIFT: i32 = 64;

/// The largest number of the i8 format.
const LARGEST_I8: f32 = 63.0;
