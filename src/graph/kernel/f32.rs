//! The kernel of f32: one component a word.

use super::{PANEL_COLUMNS, Scores, SimdLevel};

pub(super) fn scores(simd: SimdLevel, rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    assert_eq!((rows.len(), panel.len()), (scores.len() * width, PANEL_COLUMNS * width));
    match simd {
        // SAFETY: `running` has detected the feature.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 => unsafe { avx512(rows, panel, width, scores) },
        // SAFETY: `running` has detected the features.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe { avx2(rows, panel, width, scores) },
        SimdLevel::Portable => portable(rows, panel, width, scores),
    }
}

/// Multiplies 12 rows × 1 register of 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    const TILE: usize = 12;
    for (rows, scores) in rows.chunks_exact(TILE * width).zip(scores.as_chunks_mut::<TILE>().0) {
        let mut sums = [_mm512_setzero_ps(); TILE];
        for (w, line) in panel.as_chunks::<PANEL_COLUMNS>().0.iter().enumerate() {
            // SAFETY: a line is 16 numbers.
            let line = unsafe { _mm512_loadu_ps(line.as_ptr().cast()) };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: r < TILE, and w < width by the lengths that `scores` has checked.
                let x = f32::from_bits(unsafe { *rows.get_unchecked(r * width + w) });
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(x), line, *sum);
            }
        }
        for (scores, sum) in scores.iter_mut().zip(sums) {
            // SAFETY: 16 numbers fit 16 places.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), sum) };
        }
    }
}

/// Multiplies 6 rows × 2 registers of 8: 12 of the 16 registers hold sums.
///
/// It goes down the panel in parts that stay in the first-level cache while it passes over all rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps};
    const TILE: usize = 6;
    scores.fill([0.0; PANEL_COLUMNS]);
    let part_lines = width.div_ceil(width.div_ceil(MAX_CACHED_LINES));
    for (part, lines) in panel.as_chunks::<PANEL_COLUMNS>().0.chunks(part_lines).enumerate() {
        let first = part * part_lines;
        for (rows, scores) in rows.chunks_exact(TILE * width).zip(scores.as_chunks_mut::<TILE>().0) {
            // SAFETY: 16 scores are two registers of 8.
            let load = |scores: *const f32| unsafe { [_mm256_loadu_ps(scores), _mm256_loadu_ps(scores.add(8))] };
            let mut sums: [_; TILE] = std::array::from_fn(|r| load(scores[r].as_ptr()));
            for (w, line) in (first..).zip(lines) {
                let line = load(line.as_ptr().cast());
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: r < TILE, and w < width by the lengths that `scores` has checked.
                    let x = _mm256_set1_ps(f32::from_bits(unsafe { *rows.get_unchecked(r * width + w) }));
                    for (sum, half) in sums.iter_mut().zip(line) {
                        *sum = _mm256_fmadd_ps(x, half, *sum);
                    }
                }
            }
            for (scores, sums) in scores.iter_mut().zip(sums) {
                for (half, sum) in scores.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                    // SAFETY: 8 numbers fit 8 places.
                    unsafe { _mm256_storeu_ps(half.as_mut_ptr(), sum) };
                }
            }
        }
    }
}

fn portable(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    for (row, scores) in rows.chunks_exact(width).zip(scores) {
        let mut sums = [0f32; PANEL_COLUMNS];
        for (&x, line) in row.iter().zip(panel.as_chunks::<PANEL_COLUMNS>().0) {
            for (sum, &y) in sums.iter_mut().zip(line) {
                // Fused only if every processor of the target has an instruction for it; elsewhere it would be a call.
                let (x, y) = (f32::from_bits(x), f32::from_bits(y));
                *sum = if cfg!(target_arch = "aarch64") { x.mul_add(y, *sum) } else { *sum + x * y };
            }
        }
        *scores = sums;
    }
}

/// How many lines of a panel are multiplied at a time: 16 kB, which stay in the first-level cache.
#[cfg(target_arch = "x86_64")]
const MAX_CACHED_LINES: usize = 256;
