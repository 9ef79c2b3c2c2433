//! Two components a word, the first one in the lower half.

use super::{COLUMNS, Scores, Vectors};

pub(super) fn scores(vectors: Vectors, rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    assert_eq!((rows.len(), panel.len()), (scores.len() * width, COLUMNS * width));
    match vectors {
        // SAFETY: `running` has seen the features.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => unsafe { avx512(rows, panel, width, scores) },
        // SAFETY: `running` has seen the features.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => unsafe { avx2(rows, panel, width, scores) },
        Vectors::Portable => portable(rows, panel, width, scores),
    }
}

/// 12 rows × 1 register: one instruction adds two products to each sum.
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
        for (w, line) in panel.as_chunks::<COLUMNS>().0.iter().enumerate() {
            // SAFETY: a line is 64 bytes.
            let line = halves(unsafe { _mm512_loadu_si512(line.as_ptr().cast()) });
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: r < TILE, and w < width by the lengths that `scores` has checked.
                let x = _mm512_set1_epi32(unsafe { *rows.get_unchecked(r * width + w) }.cast_signed());
                *sum = _mm512_dpbf16_ps(*sum, halves(x), line);
            }
        }
        for (scores, sum) in scores.iter_mut().zip(sums) {
            // SAFETY: 16 numbers have room in 16 places.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), sum) };
        }
    }
}

/// The plain loops, compiled with vectors of 8. No faster than f32, but half its memory traffic.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    portable(rows, panel, width, scores);
}

#[inline(always)]
fn portable(rows: &[u32], panel: &[u32], width: usize, scores: &mut [Scores]) {
    let first = |word: u32| f32::from_bits(word << 16);
    let second = |word: u32| f32::from_bits(word & 0xffff_0000);
    for (row, scores) in rows.chunks_exact(width).zip(scores) {
        let mut sums = [0f32; COLUMNS];
        for (&x, line) in row.iter().zip(panel.as_chunks::<COLUMNS>().0) {
            let (x0, x1) = (first(x), second(x));
            for (sum, &y) in sums.iter_mut().zip(line) {
                *sum = *sum + x0 * first(y) + x1 * second(y);
            }
        }
        *scores = sums;
    }
}
