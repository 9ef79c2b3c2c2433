//! The kernel of bf16: two components a word, the first one in the lower half.

use super::{PANEL_COLUMNS, Scores, SimdLevel};

pub(super) fn scores(simd: SimdLevel, rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    assert_eq!((rows.len(), panel.len()), (scores.len() * width, PANEL_COLUMNS * width));
    match simd {
        // SAFETY: `running` has detected the features.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 => unsafe { avx512(rows, panel, width, scores) },
        // SAFETY: `running` has detected the features.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe { avx2(rows, panel, width, scores) },
        SimdLevel::Portable => portable(rows, panel, width, scores),
    }
}

/// Multiplies 12 rows × 1 register: one instruction adds two products to each sum.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn avx512(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    const TILE: usize = 12;
    // SAFETY: both types are 512 bits without further meaning.
    let halves = |words: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(words) };
    for (rows, scores) in rows.chunks_exact(TILE * width).zip(scores.as_chunks_mut::<TILE>().0) {
        let mut sums = [_mm512_setzero_ps(); TILE];
        for (w, line) in panel.as_chunks::<PANEL_COLUMNS>().0.iter().enumerate() {
            // SAFETY: a line is 64 bytes.
            let line = halves(unsafe { _mm512_loadu_si512(line.as_ptr().cast()) });
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: r < TILE, and w < width by the lengths that `scores` has checked.
                let x = _mm512_set1_epi32(unsafe { *rows.get_unchecked(r * width + w) }.cast_signed());
                // As the last operand, `x` is broadcast by the instruction itself.
                *sum = _mm512_dpbf16_ps(*sum, line, halves(x));
            }
        }
        for (scores, sum) in scores.iter_mut().zip(sums) {
            // SAFETY: 16 numbers fit 16 places.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), sum) };
        }
    }
}

/// Multiplies 4 rows × 2 registers of 8, the halves of a word one after the other: half the memory traffic of f32.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    use std::arch::x86_64::{
        __m256, __m256i, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_set1_epi32,
        _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    };
    const TILE: usize = 4;
    let upper = _mm256_set1_epi32(-0x1_0000);
    let halves = |words: __m256i| -> [__m256; 2] {
        [_mm256_slli_epi32::<16>(words), _mm256_and_si256(words, upper)].map(|half| _mm256_castsi256_ps(half))
    };
    for (rows, scores) in rows.chunks_exact(TILE * width).zip(scores.as_chunks_mut::<TILE>().0) {
        let mut sums = [[_mm256_setzero_ps(); 2]; TILE];
        for (w, line) in panel.as_chunks::<PANEL_COLUMNS>().0.iter().enumerate() {
            // SAFETY: 16 words are two registers of 8.
            let load = |i: usize| halves(unsafe { _mm256_loadu_si256(line.as_ptr().cast::<__m256i>().add(i)) });
            let line = [load(0), load(1)];
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: r < TILE, and w < width by the lengths that `scores` has checked.
                let x = halves(_mm256_set1_epi32(unsafe { *rows.get_unchecked(r * width + w) }.cast_signed()));
                for half in 0..2 {
                    for (sum, words) in sums.iter_mut().zip(line) {
                        *sum = _mm256_fmadd_ps(x[half], words[half], *sum);
                    }
                }
            }
        }
        for (scores, sums) in scores.iter_mut().zip(sums) {
            for (part, sum) in scores.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                // SAFETY: 8 numbers fit 8 places.
                unsafe { _mm256_storeu_ps(part.as_mut_ptr(), sum) };
            }
        }
    }
}

fn portable(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    let first = |word: u32| f32::from_bits(word << 16);
    let second = |word: u32| f32::from_bits(word & 0xffff_0000);
    for (row, scores) in rows.chunks_exact(width).zip(scores) {
        let mut sums = [0f32; PANEL_COLUMNS];
        for (&x, line) in row.iter().zip(panel.as_chunks::<PANEL_COLUMNS>().0) {
            let (x0, x1) = (first(x), second(x));
            for (sum, &y) in sums.iter_mut().zip(line) {
                *sum = *sum + x0 * first(y) + x1 * second(y);
            }
        }
        *scores = sums;
    }
}
