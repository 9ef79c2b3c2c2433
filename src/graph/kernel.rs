//! Dot products of a few rows with a panel of columns, in registers.
//!
//! A panel holds `COLUMNS` vectors, component by component: all first components, then all second ones. One pass over
//! it gives `ROWS` × `COLUMNS` dot products without a horizontal sum. Each product is summed in the order of the
//! components, so it does not depend on what stands around it.

/// Columns of a panel.
pub(super) const COLUMNS: usize = 32;

/// Rows of a tile.
pub(super) const ROWS: usize = 12;

/// The dot products of a tile.
pub(super) type Scores = [[f32; COLUMNS]; ROWS];

/// A way to compute tiles, chosen once for the processor it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Kernel {
    /// The fastest one that this processor runs.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// `scores[r][c]` = `rows[r]` · column c of `panel`, for [`ROWS`] rows of `dimension` numbers each, one after
    /// another, and one panel.
    ///
    /// # Panics
    /// Where `rows` or `panel` have other lengths.
    #[inline]
    pub fn tile(self, rows: &[f32], panel: &[f32], dimension: usize, scores: &mut Scores) {
        assert_eq!(rows.len(), ROWS * dimension);
        assert_eq!(panel.len(), COLUMNS * dimension);
        match self {
            // SAFETY: `detect` has seen the feature that the function needs.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512(rows, panel, dimension, scores) },
            // SAFETY: `detect` has seen the features that the function needs.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(rows, panel, dimension, scores) },
            Self::Portable => portable(rows, panel, dimension, scores),
        }
    }
}

/// 12 rows × 2 registers of 16: 24 of the 32 registers hold sums.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rows: &[f32], panel: &[f32], dimension: usize, scores: &mut Scores) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let (columns, _) = panel.as_chunks::<COLUMNS>();
    for (k, column) in columns.iter().enumerate() {
        // SAFETY: each half of the 32 columns has 16 numbers.
        let halves = unsafe { [_mm512_loadu_ps(column.as_ptr()), _mm512_loadu_ps(column.as_ptr().add(16))] };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: r < ROWS and k < dimension, and `tile` has checked that there are ROWS × dimension numbers.
            let x = _mm512_set1_ps(unsafe { *rows.get_unchecked(r * dimension + k) });
            for (sum, half) in sums.iter_mut().zip(halves) {
                *sum = _mm512_fmadd_ps(x, half, *sum);
            }
        }
    }
    for (scores, sums) in scores.iter_mut().zip(sums) {
        for (scores, sum) in scores.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: 16 numbers have room in 16 places.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), sum) };
        }
    }
}

/// 6 rows × 2 registers of 8 at a time: 12 of the 16 registers hold sums.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rows: &[f32], panel: &[f32], dimension: usize, scores: &mut Scores) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    const STRIP: usize = 6;
    let (columns, _) = panel.as_chunks::<COLUMNS>();
    for (strip, scores) in scores.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
        for start in [0, 16] {
            let mut sums = [[_mm256_setzero_ps(); 2]; STRIP];
            for (k, column) in columns.iter().enumerate() {
                let column = &column[start..start + 16];
                // SAFETY: each half of the 16 columns has 8 numbers.
                let halves = unsafe { [_mm256_loadu_ps(column.as_ptr()), _mm256_loadu_ps(column.as_ptr().add(8))] };
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: strip × STRIP + r < ROWS and k < dimension; `tile` has checked the length.
                    let x = _mm256_set1_ps(unsafe { *rows.get_unchecked((strip * STRIP + r) * dimension + k) });
                    for (sum, half) in sums.iter_mut().zip(halves) {
                        *sum = _mm256_fmadd_ps(x, half, *sum);
                    }
                }
            }
            for (scores, sums) in scores.iter_mut().zip(sums) {
                for (scores, sum) in scores[start..start + 16].as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                    // SAFETY: 8 numbers have room in 8 places.
                    unsafe { _mm256_storeu_ps(scores.as_mut_ptr(), sum) };
                }
            }
        }
    }
}

/// Plain loops, which compilers turn into whatever vectors the target has.
fn portable(rows: &[f32], panel: &[f32], dimension: usize, scores: &mut Scores) {
    let (columns, _) = panel.as_chunks::<COLUMNS>();
    for (row, scores) in rows.chunks_exact(dimension).zip(scores) {
        let mut sums = [0f32; COLUMNS];
        for (x, column) in row.iter().zip(columns) {
            for (sum, y) in sums.iter_mut().zip(column) {
                *sum += x * y;
            }
        }
        *scores = sums;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every kernel that runs here, against sums in f64.
        #[test]
        fn tiles_are_dot_products(dimension in 1usize..70, seed in any::<u64>()) {
            use rand::{RngExt, SeedableRng};
            let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
            let mut numbers = |n: usize| (0..n).map(|_| generator.random_range(-1f32..1.0)).collect::<Vec<_>>();
            let (rows, panel) = (numbers(ROWS * dimension), numbers(COLUMNS * dimension));
            let mut kernels = vec![Kernel::Portable, Kernel::detect()];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Kernel::Avx2);
            }
            for kernel in kernels {
                let mut scores = [[f32::NAN; COLUMNS]; ROWS];
                kernel.tile(&rows, &panel, dimension, &mut scores);
                for (r, scores) in scores.iter().enumerate() {
                    for (c, &score) in scores.iter().enumerate() {
                        let exact: f64 = (0..dimension)
                            .map(|k| f64::from(rows[r * dimension + k]) * f64::from(panel[k * COLUMNS + c]))
                            .sum();
                        prop_assert!((f64::from(score) - exact).abs() < 1e-5 * dimension as f64);
                    }
                }
            }
        }
    }
}
