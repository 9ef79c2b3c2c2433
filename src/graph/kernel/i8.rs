//! The kernel of i8: four components a word, in rows unsigned, 1 to 127, in columns signed, −63 to 63.

use super::pack::PackedSlice;
use super::{PANEL_COLUMNS, Scores, SimdLevel};

pub(super) fn scores(simd: SimdLevel, rows: PackedSlice<'_>, panel: PackedSlice<'_>, scores: &mut [Scores]) {
    assert_eq!((rows.words.len(), panel.words.len()), (scores.len() * panel.width, PANEL_COLUMNS * panel.width));
    assert_eq!((panel.starts.len(), panel.factors.len(), panel.width % 2), (PANEL_COLUMNS, PANEL_COLUMNS, 0));
    match simd {
        // SAFETY: `running` has detected the features.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 => unsafe { avx512(rows, panel, scores) },
        // SAFETY: `running` has detected the features.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe { avx2(rows, panel, scores) },
        SimdLevel::Portable => portable(rows, panel, scores),
    }
}

/// Multiplies 12 rows × 1 register: one instruction adds four products to each sum.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512(rows: PackedSlice<'_>, panel: PackedSlice<'_>, scores: &mut [Scores]) {
    use std::arch::x86_64::{
        _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32,
        _mm512_set1_ps, _mm512_storeu_ps,
    };
    const TILE: usize = 12;
    let width = panel.width;
    // SAFETY: `scores` has checked that there are 16 of each.
    let (start, factors) =
        unsafe { (_mm512_loadu_si512(panel.starts.as_ptr().cast()), _mm512_loadu_ps(panel.factors.as_ptr())) };
    let tiles = rows.words.chunks_exact(TILE * width).zip(rows.factors.chunks_exact(TILE));
    for ((rows, row_factors), scores) in tiles.zip(scores.as_chunks_mut::<TILE>().0) {
        let mut sums = [start; TILE];
        for (w, line) in panel.words.as_chunks::<PANEL_COLUMNS>().0.iter().enumerate() {
            // SAFETY: a line is 64 bytes.
            let line = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: r < TILE, and w < width by the lengths that `scores` has checked.
                let x = _mm512_set1_epi32(unsafe { *rows.get_unchecked(r * width + w) }.cast_signed());
                *sum = _mm512_dpbusd_epi32(*sum, x, line);
            }
        }
        for ((scores, sum), &factor) in scores.iter_mut().zip(sums).zip(row_factors) {
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(factors, _mm512_set1_ps(factor)));
            // SAFETY: 16 numbers fit 16 places.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), product) };
        }
    }
}

/// Multiplies 4 rows × 2 registers of 8, two words at a time: four products of at most 127 · 63 fit 16 bits (32,004).
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(rows: PackedSlice<'_>, panel: PackedSlice<'_>, scores: &mut [Scores]) {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_storeu_ps,
    };
    const TILE: usize = 4;
    let width = panel.width;
    // SAFETY: 16 words are two registers of 8; every caller passes that many.
    let load = |words: *const __m256i| unsafe { [_mm256_loadu_si256(words), _mm256_loadu_si256(words.add(1))] };
    let start = load(panel.starts.as_ptr().cast());
    let ones = _mm256_set1_epi16(1);
    let tiles = rows.words.chunks_exact(TILE * width).zip(rows.factors.chunks_exact(TILE));
    for ((rows, row_factors), scores) in tiles.zip(scores.as_chunks_mut::<TILE>().0) {
        let mut sums = [start; TILE];
        for (w, lines) in panel.words.as_chunks::<{ 2 * PANEL_COLUMNS }>().0.iter().enumerate() {
            let first = load(lines.as_ptr().cast());
            let second = load(lines[PANEL_COLUMNS..].as_ptr().cast());
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: r < TILE, and 2 w + 1 < width by the lengths that `scores` has checked.
                let word = |i: usize| unsafe { *rows.get_unchecked(r * width + 2 * w + i) }.cast_signed();
                let (x, y) = (_mm256_set1_epi32(word(0)), _mm256_set1_epi32(word(1)));
                for (half, sum) in sums.iter_mut().enumerate() {
                    let pairs =
                        _mm256_add_epi16(_mm256_maddubs_epi16(x, first[half]), _mm256_maddubs_epi16(y, second[half]));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for ((scores, sums), &factor) in scores.iter_mut().zip(sums).zip(row_factors) {
            for (half, sum) in sums.into_iter().enumerate() {
                // SAFETY: there are 16 factors and 16 scores.
                unsafe {
                    let factors = _mm256_loadu_ps(panel.factors.as_ptr().add(8 * half));
                    let factors = _mm256_mul_ps(factors, _mm256_set1_ps(factor));
                    let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factors);
                    _mm256_storeu_ps(scores.as_mut_ptr().add(8 * half), product);
                }
            }
        }
    }
}

fn portable(rows: PackedSlice<'_>, panel: PackedSlice<'_>, scores: &mut [Scores]) {
    let rows = rows.words.chunks_exact(panel.width).zip(rows.factors);
    for ((row, &factor), scores) in rows.zip(scores) {
        let mut sums: [i32; PANEL_COLUMNS] = std::array::from_fn(|c| panel.starts[c]);
        for (x, line) in row.iter().zip(panel.words.as_chunks::<PANEL_COLUMNS>().0) {
            let x = x.to_ne_bytes();
            for (sum, y) in sums.iter_mut().zip(line) {
                let y = y.to_ne_bytes();
                *sum += (0..4).map(|i| i32::from(x[i]) * i32::from(y[i] as i8)).sum::<i32>();
            }
        }
        for (c, score) in scores.iter_mut().enumerate() {
            *score = sums[c] as f32 * (panel.factors[c] * factor);
        }
    }
}
