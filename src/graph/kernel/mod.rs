//! Scores a block of rows with a panel of columns, in registers.
//!
//! Everything is laid out in words of 32 bits, which hold one component in f32, two in bf16 and four in i8. A row is
//! its words one after another. A panel is [`PANEL_COLUMNS`] vectors word by word: all first words, which are one cache
//! line, then all second words, and so on.
//!
//! A kernel walks down a panel and multiplies each word of each row with a whole line. So no sum is taken across a
//! register, and each score is summed in the order of the components: it depends on nothing around it, and the score of
//! (a, b) is that of (b, a), bit for bit.
//!
//! i8 holds whole numbers from −63 to 63 and a factor for each vector. Sums are exact in 32 bits. Rows are stored plus
//! 64, so that the instructions of AVX2, which multiply unsigned by signed numbers and sum pairs in 16 bits, never
//! overflow and every processor gives the same score.

mod bf16;
mod f32;
mod i8;
mod pack;

pub(super) use self::pack::{Columns, Rows};
use crate::config::Precision;

/// How many columns a panel has: the 32-bit words of a cache line.
pub(super) const PANEL_COLUMNS: usize = 16;

/// Blocks of rows are padded to a multiple of this, which every kernel's tile divides.
pub(super) const ROW_MULTIPLE: usize = 12;

/// The scores of one row with the columns of a panel.
pub(super) type Scores = [f32; PANEL_COLUMNS];

/// Bit sets of a panel's columns: those whose score reaches the threshold of the row, and those whose score reaches
/// their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub row: u16,
    pub column: u16,
}

/// How scores are computed: chosen once for a build and the processor that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    format: Format,
    simd: SimdLevel,
}

/// How the components of vectors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    Bf16,
    I8,
}

/// The vector instructions in use.
///
/// `Portable` is plain loops, compiled to what every processor of the target has; on 64-bit ARM that is NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimdLevel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Kernel {
    /// The fastest kernel of this format that the processor runs.
    pub fn new(format: Format) -> Self {
        let simd = *SimdLevel::running(format).first().unwrap_or(&SimdLevel::Portable);
        Self { format, simd }
    }

    /// The kernel for a build in this precision.
    ///
    /// `Auto` takes i8 if vectors are long enough for its rounding to average out, and if the K neighbors of M
    /// candidates are so few that scoring them again in f32 costs less than i8 saves.
    pub fn choose(precision: Precision, dimension: usize, neighbors: usize, candidates: usize) -> Self {
        Self::new(match precision {
            Precision::F32 => Format::F32,
            Precision::Bf16 => Format::Bf16,
            Precision::I8 => Format::I8,
            Precision::Auto
                if dimension >= MIN_I8_DIMENSION && neighbors * MIN_I8_CANDIDATES_PER_NEIGHBOR <= candidates =>
            {
                Format::I8
            }
            Precision::Auto => Format::F32,
        })
    }

    /// The kernel for f32 with these instructions.
    #[cfg(test)]
    pub fn on(simd: SimdLevel) -> Self {
        Self { format: Format::F32, simd }
    }

    /// The vector instructions that the kernel uses.
    pub fn simd(self) -> SimdLevel {
        self.simd
    }

    /// Returns the precision and the instructions, such as `i8 by AVX-512`.
    #[cfg(feature = "cli")]
    pub fn name(self) -> String {
        let format = match self.format {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::I8 => "i8",
        };
        let simd = match self.simd {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => "AVX2",
            SimdLevel::Portable => "portable loops",
        };
        format!("{format} by {simd}")
    }

    /// Whether scores are similarities up to the rounding of f32; if not, the best must be scored again.
    pub fn is_exact(self) -> bool {
        self.format == Format::F32
    }

    /// How many words a vector has. i8 and bf16 are padded with zeros to what a kernel takes at once.
    pub fn width(self, dimension: usize) -> usize {
        match self.format {
            Format::F32 => dimension,
            Format::Bf16 => dimension.div_ceil(2),
            Format::I8 => dimension.div_ceil(8) * 2,
        }
    }

    /// Writes to `scores[r]` the scores of row `first` + r with the columns of `panel`.
    ///
    /// # Panics
    /// Panics if `first` or the number of rows of scores is not a multiple of [`ROW_MULTIPLE`], or exceeds what is
    /// packed.
    pub fn scores(self, rows: &Rows, first: usize, columns: &Columns, panel: usize, scores: &mut [Scores]) {
        assert!(first.is_multiple_of(ROW_MULTIPLE) && scores.len().is_multiple_of(ROW_MULTIPLE));
        let rows = rows.slice(first, scores.len());
        let panel = columns.panel(panel);
        match self.format {
            Format::F32 => f32::scores(self.simd, rows.words, panel.words, panel.width, scores),
            Format::Bf16 => bf16::scores(self.simd, rows.words, panel.words, panel.width, scores),
            Format::I8 => i8::scores(self.simd, rows, panel, scores),
        }
    }

    /// Prefetches part number `part` of `parts` of a panel.
    #[inline]
    pub fn prefetch(self, columns: &Columns, panel: usize, part: usize, parts: usize) {
        let lines = columns.panel(panel).words.as_chunks::<PANEL_COLUMNS>().0;
        crate::simd::prefetch(lines[part * lines.len() / parts..(part + 1) * lines.len() / parts].as_flattened());
    }

    /// Finds the scores that reach the threshold of their row or of their column.
    pub fn reached(
        self,
        scores: &[Scores],
        row_thresholds: &[f32],
        column_thresholds: &Scores,
        reached: &mut [Reached],
    ) {
        match self.simd {
            // SAFETY: `running` has detected the features.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 | SimdLevel::Avx2 => unsafe {
                reached_avx2(scores, row_thresholds, column_thresholds, reached);
            },
            SimdLevel::Portable => reached_by(scores, row_thresholds, column_thresholds, reached),
        }
    }
}

impl SimdLevel {
    /// The levels that this processor runs for a format, fastest first.
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
        for c in 0..PANEL_COLUMNS {
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

/// The least M / K for which i8 is chosen: with fewer candidates, scoring the best again costs more than i8 saves.
const MIN_I8_CANDIDATES_PER_NEIGHBOR: usize = 8;

/// The least dimension for which i8 is chosen: with fewer components, many candidates get equal scores.
const MIN_I8_DIMENSION: usize = 64;

#[cfg(test)]
mod tests;
