//! The best columns of each row of a block, selected while the block passes over its panels.

use aligned_vec::avec;

use super::threshold::{drop_equal, raised_threshold};
use crate::graph::kernel::{Kernel, PANEL_COLUMNS, Scores, SimdLevel};
use crate::memory::Aligned;

/// The best columns of some rows; columns have numbers that the caller chooses.
///
/// 1. Append all scores of some panels that reach the row's threshold.
/// 2. If they are too many, raise the threshold so that about `keep` scores reach it.
/// 3. Drop the others.
///
/// So there are a few linear passes over the scores instead of one branch for each.
#[derive(Debug)]
pub(in crate::graph) struct Shortlists {
    simd: SimdLevel,
    keep: usize,
    /// The slots of a row: `keep`, a few more, and those of a panel, which may be written behind them.
    slots: usize,
    scores: Vec<f32>,
    columns: Vec<u32>,
    rows: Vec<RowState>,
    /// The scores and columns that one row chooses from.
    offered: (Aligned<f32>, Aligned<u32>),
}

/// The state of one row.
#[derive(Debug)]
struct RowState {
    /// How many slots are in use.
    len: usize,
    threshold: f32,
    /// How many scores were replaced by [`Shortlists::score_again`].
    replaced: usize,
}

impl Shortlists {
    /// Shortlists of at most `rows` rows. Each keeps its `keep` best columns, and may keep a few more.
    pub fn new(kernel: Kernel, rows: usize, keep: usize) -> Self {
        let slots = keep + slack(keep) + PANEL_COLUMNS;
        Self {
            simd: kernel.simd(),
            keep,
            slots,
            scores: vec![0.0; rows * slots],
            columns: vec![0; rows * slots],
            rows: Vec::with_capacity(rows),
            offered: (avec![], avec![]),
        }
    }

    /// Empties all shortlists. There is then a row for each threshold, and it takes no score below that.
    pub fn restart(&mut self, thresholds: impl Iterator<Item = f32>) {
        self.rows.clear();
        self.rows.extend(thresholds.map(|threshold| RowState { len: 0, threshold, replaced: 0 }));
    }

    /// Offers each row the columns of some panels, numbered from `first` on.
    ///
    /// `scores` [panels × `rows`]: those of all rows with the first panel, then with the next. `rows` may be more than
    /// there are shortlists. NaN is never taken.
    pub fn take(&mut self, scores: &[Scores], rows: usize, first: u32) {
        let length = self.slots + scores.len() / rows * PANEL_COLUMNS;
        if self.offered.0.len() < length {
            self.offered.0.resize(length, 0.0);
            self.offered.1.resize(length, 0);
        }
        match self.simd {
            // SAFETY: `running` has detected the features.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => unsafe { self.take_avx512(scores, rows, first) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => unsafe { self.take_avx2(scores, rows, first) },
            SimdLevel::Portable => self.take_by(scores, rows, first, append_by, reach_by, extremes_by),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,popcnt")]
    fn take_avx512(&mut self, scores: &[Scores], rows: usize, first: u32) {
        self.take_by(
            scores,
            rows,
            first,
            |from, threshold, counted, to| append_avx512(from, threshold, counted, to),
            |scores, threshold| reach_avx512(scores, threshold),
            |scores| extremes_avx512(scores),
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn take_avx2(&mut self, scores: &[Scores], rows: usize, first: u32) {
        self.take_by(scores, rows, first, append_by, reach_by, extremes_by);
    }

    #[inline(always)]
    fn take_by(
        &mut self,
        scores: &[Scores],
        rows: usize,
        first: u32,
        append: impl Fn(Slots<&Scores, &ColumnNumbers>, f32, u16, Slots<&mut Scores, &mut ColumnNumbers>) -> usize,
        reach: impl Fn(&[f32], f32) -> usize,
        extremes: impl Fn(&[f32]) -> (f32, f32),
    ) {
        let keep = self.keep;
        let most = self.slots - PANEL_COLUMNS;
        // The guess is carried from row to row, since rows of a block are alike.
        let mut share = 0.5;
        let (offered_scores, offered_columns) = (&mut *self.offered.0, &mut *self.offered.1);
        let own = self.scores.chunks_exact_mut(self.slots).zip(self.columns.chunks_exact_mut(self.slots));
        for ((r, row), (own_scores, own_columns)) in self.rows.iter_mut().enumerate().zip(own) {
            let mut len = row.len;
            offered_scores[..len].copy_from_slice(&own_scores[..len]);
            offered_columns[..len].copy_from_slice(&own_columns[..len]);
            for (panel, first) in scores.chunks_exact(rows).zip((first..).step_by(PANEL_COLUMNS)) {
                let columns = std::array::from_fn(|c| first + c as u32);
                let to = slots(offered_scores, offered_columns, len);
                len += append((&panel[r], &columns), row.threshold, u16::MAX, to);
            }
            if len > most {
                row.threshold = raised_threshold(&offered_scores[..len], keep, most, &mut share, &reach, &extremes);
                if reach(&offered_scores[..len], row.threshold) > most {
                    len = drop_equal(&mut offered_scores[..len], &mut offered_columns[..len], row.threshold, keep);
                }
            }
            row.len = 0;
            for at in (0..len).step_by(PANEL_COLUMNS) {
                let counted = ((1u32 << PANEL_COLUMNS.min(len - at)) - 1) as u16;
                let (scores, columns) = slots(offered_scores, offered_columns, at);
                row.len += append((scores, columns), row.threshold, counted, slots(own_scores, own_columns, row.len));
            }
        }
    }

    /// The scores and columns of a row, by ascending column.
    pub fn of(&self, row: usize) -> (&[f32], &[u32]) {
        let slots = row * self.slots..row * self.slots + self.rows[row].len;
        (&self.scores[slots.clone()], &self.columns[slots])
    }

    /// Replaces scores by `score(row, columns, scores)`, for the columns below `end` that were not replaced before.
    ///
    /// To be called after the last [`take`](Self::take), with ascending `end`.
    pub fn score_again(&mut self, end: u32, mut score: impl FnMut(usize, &[u32], &mut [f32])) {
        for (r, row) in self.rows.iter_mut().enumerate() {
            let slots = r * self.slots + row.replaced..r * self.slots + row.len;
            let columns = &self.columns[slots.clone()];
            let columns = &columns[..columns.partition_point(|at| *at < end)];
            score(r, columns, &mut self.scores[slots][..columns.len()]);
            row.replaced += columns.len();
        }
    }
}

/// The numbers of a panel's columns.
type ColumnNumbers = [u32; PANEL_COLUMNS];

/// Scores, and the numbers of their columns.
type Slots<S, P> = (S, P);

fn slots<'a>(
    scores: &'a mut [f32],
    columns: &'a mut [u32],
    start: usize,
) -> Slots<&'a mut Scores, &'a mut ColumnNumbers> {
    let slots = scores[start..].first_chunk_mut().zip(columns[start..].first_chunk_mut());
    slots.expect("space for a panel behind the slots in use")
}

/// Appends the scores that reach the threshold, of the columns whose bit is set in `counted`, and returns their number.
///
/// What it writes behind them is arbitrary.
#[inline(always)]
fn append_by(
    (scores, columns): Slots<&Scores, &ColumnNumbers>,
    threshold: f32,
    counted: u16,
    (to_scores, to_columns): Slots<&mut Scores, &mut ColumnNumbers>,
) -> usize {
    let mut bits = 0u16;
    for (c, &score) in scores.iter().enumerate() {
        bits |= u16::from(score >= threshold) << c;
    }
    bits &= counted;
    let mut len = 0;
    while bits != 0 {
        let c = bits.trailing_zeros() as usize;
        bits &= bits - 1;
        (to_scores[len], to_columns[len]) = (scores[c], columns[c]);
        len += 1;
    }
    len
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn append_avx512(
    (scores, columns): Slots<&Scores, &ColumnNumbers>,
    threshold: f32,
    counted: u16,
    (to_scores, to_columns): Slots<&mut Scores, &mut ColumnNumbers>,
) -> usize {
    use std::arch::x86_64::{
        _CMP_GE_OQ, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_cmp_ps_mask, _mm512_maskz_compress_epi32,
        _mm512_maskz_compress_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    };
    // SAFETY: 16 scores or column numbers are one register.
    let (scores, columns) = unsafe { (_mm512_loadu_ps(scores.as_ptr()), _mm512_loadu_si512(columns.as_ptr().cast())) };
    let bits = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(counted, scores, _mm512_set1_ps(threshold));
    if bits == u16::MAX {
        // SAFETY: as above.
        unsafe {
            _mm512_storeu_ps(to_scores.as_mut_ptr(), scores);
            _mm512_storeu_si512(to_columns.as_mut_ptr().cast(), columns);
        }
        return PANEL_COLUMNS;
    }
    // SAFETY: as above. Through a register, as compressing into memory is slow on some processors.
    unsafe {
        _mm512_storeu_ps(to_scores.as_mut_ptr(), _mm512_maskz_compress_ps(bits, scores));
        _mm512_storeu_si512(to_columns.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(bits, columns));
    }
    bits.count_ones() as usize
}

/// Counts the scores that reach the threshold.
#[inline(always)]
fn reach_by(scores: &[f32], threshold: f32) -> usize {
    scores.iter().map(|&score| u32::from(score >= threshold)).sum::<u32>() as usize
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
fn reach_avx512(scores: &[f32], threshold: f32) -> usize {
    use std::arch::x86_64::{
        _CMP_GE_OQ, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_mask_add_epi32, _mm512_reduce_add_epi32,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    };
    let (lines, rest) = scores.as_chunks::<PANEL_COLUMNS>();
    let (threshold_line, one) = (_mm512_set1_ps(threshold), _mm512_set1_epi32(1));
    let mut counts = [_mm512_setzero_si512(); 2];
    for (at, line) in lines.iter().enumerate() {
        // SAFETY: 16 numbers are one register.
        let reached = unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_loadu_ps(line.as_ptr()), threshold_line) };
        counts[at % 2] = _mm512_mask_add_epi32(counts[at % 2], reached, counts[at % 2], one);
    }
    let [a, b] = counts.map(|counts| _mm512_reduce_add_epi32(counts));
    (a + b) as usize + reach_by(rest, threshold)
}

/// The least and the largest score.
#[inline(always)]
fn extremes_by(scores: &[f32]) -> (f32, f32) {
    let extend = |(least, most): (f32, f32), score: &f32| (least.min(*score), most.max(*score));
    scores.iter().fold((f32::INFINITY, f32::NEG_INFINITY), extend)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
fn extremes_avx512(scores: &[f32]) -> (f32, f32) {
    use std::arch::x86_64::{
        _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_set1_ps,
    };
    let (lines, rest) = scores.as_chunks::<PANEL_COLUMNS>();
    let (mut least, mut most) = (_mm512_set1_ps(f32::INFINITY), _mm512_set1_ps(f32::NEG_INFINITY));
    for line in lines {
        // SAFETY: 16 numbers are one register.
        let line = unsafe { _mm512_loadu_ps(line.as_ptr()) };
        (least, most) = (_mm512_min_ps(least, line), _mm512_max_ps(most, line));
    }
    let rest = extremes_by(rest);
    (_mm512_reduce_min_ps(least).min(rest.0), _mm512_reduce_max_ps(most).max(rest.1))
}

/// How many more columns than `keep` are kept at most: to find a threshold for exactly `keep` takes twice the passes.
fn slack(keep: usize) -> usize {
    2 + keep / 24
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::kernel::Format;

    proptest! {
        /// With all vector instructions that the processor has, and with any number of equal scores.
        #[test]
        fn keeps_the_best(
            rows in proptest::collection::vec(proptest::collection::vec(-6i32..6, 200), 1..4),
            keep in 1usize..60,
            counts in proptest::collection::vec(1usize..=PANEL_COLUMNS, 1..12),
            together in 1usize..5,
            spread in prop_oneof![Just(1.0f32), Just(1e-3)],
            lowest in prop_oneof![Just(f32::NEG_INFINITY), Just(0.0f32)],
        ) {
            // If the spread is 1, scores of a row may be equal; otherwise the column makes the difference.
            let score = |row: usize, column: usize| match rows[row][column] {
                5 => f32::INFINITY,
                -6 => f32::NEG_INFINITY,
                score => score as f32 + if spread < 1.0 { spread * column as f32 } else { 0.0 },
            };
            for simd in SimdLevel::running(Format::F32) {
                let mut shortlists = Shortlists::new(Kernel::on(simd), rows.len(), keep);
                shortlists.restart(rows.iter().map(|_| lowest));
                let mut offered = Vec::new();
                for (batch, counts) in counts.chunks(together).enumerate() {
                    let first = batch * together * PANEL_COLUMNS;
                    let panels = (first..).step_by(PANEL_COLUMNS).zip(counts);
                    let score = |row, column, is_there| if is_there { score(row, column) } else { f32::NAN };
                    // Blocks are padded with rows that nobody asks for.
                    let (own, filled) = (rows.len(), rows.len() + 2);
                    let scores = panels.clone().flat_map(|(first, &count)| {
                        let at = move |row, c| score(row % own, first + c, c < count && row < own);
                        (0..filled).map(move |row| std::array::from_fn(|c| at(row, c)))
                    });
                    shortlists.take(&scores.collect::<Vec<_>>(), filled, first as u32);
                    offered.extend(panels.flat_map(|(first, &count)| first..first + count));
                }
                for row in 0..rows.len() {
                    let (scores, columns) = shortlists.of(row);
                    prop_assert!(columns.is_sorted());
                    for (&found, &column) in scores.iter().zip(columns) {
                        prop_assert!(offered.contains(&(column as usize)));
                        prop_assert_eq!(found, score(row, column as usize));
                    }
                    let mut all: Vec<f32> = offered.iter().map(|&column| score(row, column)).collect();
                    all.retain(|score| *score >= lowest);
                    all.sort_by(|a, b| b.total_cmp(a));
                    let mut found = scores.to_vec();
                    found.sort_by(|a, b| b.total_cmp(a));
                    prop_assert!((keep.min(all.len())..=keep + slack(keep)).contains(&found.len()));
                    prop_assert_eq!(&found[..], &all[..found.len()]);
                }
            }
        }
    }
}
