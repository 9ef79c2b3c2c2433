//! Scores of a block of rows against a panel of columns, in registers.
//!
//! Everything is laid out in words of 32 bits, which hold one component in f32, two in bf16, four in i8. A row is its
//! words one after another. A panel is [`COLUMNS`] vectors word by word: all first words, one cache line, then all
//! second ones. A kernel walks down a panel, each word of each row against a whole line, so that no sum is ever taken
//! across a register, and each score is summed in the order of the components: it depends on nothing around it, and
//! the score of (a, b) is that of (b, a) bit for bit.
//!
//! i8 holds whole numbers from −63 to 63 with a factor for each vector, sums are exact in 32 bits, and rows are stored
//! plus 64: what AVX2 multiplies (unsigned by signed, pairs summed in 16 bits) then never overflows, and every
//! processor gives the same score.

mod bf16;
mod f32;
mod i8;
mod pack;

pub(super) use self::pack::{Columns, Rows};
use crate::config::Precision;

/// Columns of a panel: 32-bit words of a cache line.
pub(super) const COLUMNS: usize = 16;

/// Blocks of rows are multiples of this, filled up with zeros: every kernel's tile divides it.
pub(super) const ROWS: usize = 12;

/// The scores of one row with the columns of a panel.
pub(super) type Scores = [f32; COLUMNS];

/// A bit for each column whose score is at least the row's threshold, and those whose score is at least their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub row: u16,
    pub column: u16,
}

/// A way to compute scores, chosen once for a build and the processor it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    format: Format,
    simd: SimdLevel,
}

/// How components are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    Bf16,
    I8,
}

/// The vector instructions in use. `Portable` is plain loops, compiled for what every processor of the target has:
/// on 64-bit ARM that is NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimdLevel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Kernel {
    /// The fastest one for this format that the processor runs.
    pub fn new(format: Format) -> Self {
        let simd = *SimdLevel::running(format).first().unwrap_or(&SimdLevel::Portable);
        Self { format, simd }
    }

    /// The format that a build in this precision uses. `Auto` takes i8 where vectors are long enough that its rounding
    /// averages out, and the K neighbors of M candidates few enough that scoring them again in f32 costs less than i8
    /// saves.
    pub fn choose(precision: Precision, dimension: usize, neighbors: usize, candidates: usize) -> Self {
        Self::new(match precision {
            Precision::F32 => Format::F32,
            Precision::Bf16 => Format::Bf16,
            Precision::I8 => Format::I8,
            Precision::Auto if dimension >= I8_SUITS && neighbors * I8_PAYS <= candidates => Format::I8,
            Precision::Auto => Format::F32,
        })
    }

    /// The one for f32 with these instructions.
    #[cfg(test)]
    pub fn on(simd: SimdLevel) -> Self {
        Self { format: Format::F32, simd }
    }

    /// The vector instructions that it uses.
    pub fn simd(self) -> SimdLevel {
        self.simd
    }

    /// Whether scores are the similarities up to the rounding of f32; otherwise the best are to be scored again.
    pub fn is_exact(self) -> bool {
        self.format == Format::F32
    }

    /// Words of a vector. i8 and bf16 fill up with zeros, to what a kernel takes at once.
    pub fn width(self, dimension: usize) -> usize {
        match self.format {
            Format::F32 => dimension,
            Format::Bf16 => dimension.div_ceil(2),
            Format::I8 => dimension.div_ceil(8) * 2,
        }
    }

    /// `scores[r]` = the scores of row `first` + r with the columns of `panel`, for as many rows as `scores` has.
    ///
    /// # Panics
    /// Where `first` or the number of scores is no multiple of [`ROWS`], or beyond what is packed.
    pub fn scores(self, rows: &Rows, first: usize, columns: &Columns, panel: usize, scores: &mut [Scores]) {
        assert!(first.is_multiple_of(ROWS) && scores.len().is_multiple_of(ROWS));
        let rows = rows.part(first, scores.len());
        let panel = columns.panel(panel);
        match self.format {
            Format::F32 => f32::scores(self.simd, rows.words, panel.words, panel.width, scores),
            Format::Bf16 => bf16::scores(self.simd, rows.words, panel.words, panel.width, scores),
            Format::I8 => i8::scores(self.simd, rows, panel, scores),
        }
    }

    /// Asks for part number `part` of `parts` of a panel to be brought into the caches.
    #[inline]
    pub fn prefetch(self, columns: &Columns, panel: usize, part: usize, parts: usize) {
        let lines = columns.panel(panel).words.as_chunks::<COLUMNS>().0;
        crate::simd::prefetch(lines[part * lines.len() / parts..(part + 1) * lines.len() / parts].as_flattened());
    }

    /// Which scores are at least the thresholds of their rows and columns.
    pub fn reached(
        self,
        scores: &[Scores],
        row_thresholds: &[f32],
        column_thresholds: &Scores,
        reached: &mut [Reached],
    ) {
        match self.simd {
            // SAFETY: `running` has seen the features.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 | SimdLevel::Avx2 => unsafe {
                reached_avx2(scores, row_thresholds, column_thresholds, reached);
            },
            SimdLevel::Portable => reached_by(scores, row_thresholds, column_thresholds, reached),
        }
    }
}

impl SimdLevel {
    /// What this processor runs, fastest first.
    pub fn running(format: Format) -> Vec<Self> {
        let mut running = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("popcnt");
            let avx512 = avx2
                && match format {
                    Format::F32 => is_x86_feature_detected!("avx512f"),
                    Format::Bf16 => is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f"),
                    Format::I8 => is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f"),
                };
            running.extend(avx512.then_some(Self::Avx512));
            running.extend(avx2.then_some(Self::Avx2));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = format;
        running.push(Self::Portable);
        running
    }
}

#[inline(always)]
fn reached_by(scores: &[Scores], row_thresholds: &[f32], column_thresholds: &Scores, reached: &mut [Reached]) {
    for ((scores, &threshold), reached) in scores.iter().zip(row_thresholds).zip(reached) {
        *reached = Reached::default();
        for c in 0..COLUMNS {
            reached.row |= u16::from(scores[c] >= threshold) << c;
            reached.column |= u16::from(scores[c] >= column_thresholds[c]) << c;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn reached_avx2(scores: &[Scores], row_thresholds: &[f32], column_thresholds: &Scores, reached: &mut [Reached]) {
    use std::arch::x86_64::{_CMP_GE_OQ, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_movemask_ps, _mm256_set1_ps};
    // SAFETY: 16 numbers are two registers of 8.
    let load =
        |numbers: &Scores| unsafe { [_mm256_loadu_ps(numbers.as_ptr()), _mm256_loadu_ps(numbers.as_ptr().add(8))] };
    let columns = load(column_thresholds);
    for ((scores, &threshold), reached) in scores.iter().zip(row_thresholds).zip(reached) {
        let (scores, row) = (load(scores), _mm256_set1_ps(threshold));
        let reach = |low, high| {
            let half = |i: usize, least| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(scores[i], least)) as u16;
            half(0, low) | half(1, high) << 8
        };
        *reached = Reached { row: reach(row, row), column: reach(columns[0], columns[1]) };
    }
}

/// i8 pays where at least this many candidates stand behind each neighbor.
const I8_PAYS: usize = 8;

/// Components from which i8 finds the nearest: with fewer, many candidates look equally near to it.
const I8_SUITS: usize = 64;

#[cfg(test)]
mod tests;
