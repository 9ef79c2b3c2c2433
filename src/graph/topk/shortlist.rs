//! The best columns of each row of a block, while panels go by.

use aligned_vec::avec;

use super::threshold::{drop_equal, raised};
use crate::graph::kernel::{COLUMNS, Kernel, Scores, SimdLevel};
use crate::memory::Aligned;

/// The best columns of some rows, by their places, which are numbers of the caller's.
///
/// Takes many panels at a time: all that reach a row's threshold, of which a higher threshold then leaves the best. So
/// no score is looked at alone, and the time is that of a few passes over the scores.
#[derive(Debug)]
pub(in crate::graph) struct Shortlists {
    simd: SimdLevel,
    keep: usize,
    /// Slots of a row: for those to keep, a few more, and a panel that may be written behind them.
    slots: usize,
    scores: Vec<f32>,
    places: Vec<u32>,
    rows: Vec<Row>,
    /// What a row chooses from.
    offered: (Aligned<f32>, Aligned<u32>),
}

#[derive(Debug)]
struct Row {
    /// Slots in use.
    len: usize,
    threshold: f32,
    /// Scores that were replaced.
    replaced: usize,
}

impl Shortlists {
    /// Of at most so many rows, each of which wants the `keep` best, and may get a few more.
    pub fn new(kernel: Kernel, rows: usize, keep: usize) -> Self {
        let slots = keep + more(keep) + COLUMNS;
        let (scores, places) = (vec![0.0; rows * slots], vec![0; rows * slots]);
        let offered = (avec![], avec![]);
        Self { simd: kernel.simd(), keep, slots, scores, places, rows: Vec::with_capacity(rows), offered }
    }

    /// Empties all. There are as many rows as `thresholds`, below which they take nothing.
    pub fn restart(&mut self, thresholds: impl Iterator<Item = f32>) {
        self.rows.clear();
        self.rows.extend(thresholds.map(|threshold| Row { len: 0, threshold, replaced: 0 }));
    }

    /// Offers each row some panels, whose places go up from `first`. `scores` are those of `rows` rows, at least as many
    /// as there are, with the first panel, then with the next; NaN is taken by nobody.
    pub fn take(&mut self, scores: &[Scores], rows: usize, first: u32) {
        let room = self.slots + scores.len() / rows * COLUMNS;
        if self.offered.0.len() < room {
            self.offered.0.resize(room, 0.0);
            self.offered.1.resize(room, 0);
        }
        match self.simd {
            // SAFETY: `running` has seen the features.
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
        append: impl Fn(Slots<&Scores, &Places>, f32, u16, Slots<&mut Scores, &mut Places>) -> usize,
        reach: impl Fn(&[f32], f32) -> usize,
        extremes: impl Fn(&[f32]) -> (f32, f32),
    ) {
        let (keep, most) = (self.keep, self.slots - COLUMNS);
        // Rows of a block are much alike.
        let mut share = 0.5;
        let (offered_scores, offered_places) = (&mut *self.offered.0, &mut *self.offered.1);
        let own = self.scores.chunks_exact_mut(self.slots).zip(self.places.chunks_exact_mut(self.slots));
        for ((place, row), (own_scores, own_places)) in self.rows.iter_mut().enumerate().zip(own) {
            let mut len = row.len;
            offered_scores[..len].copy_from_slice(&own_scores[..len]);
            offered_places[..len].copy_from_slice(&own_places[..len]);
            for (panel, first) in scores.chunks_exact(rows).zip((first..).step_by(COLUMNS)) {
                let places = std::array::from_fn(|c| first + c as u32);
                let to = slots(offered_scores, offered_places, len);
                len += append((&panel[place], &places), row.threshold, u16::MAX, to);
            }
            if len > most {
                row.threshold = raised(&offered_scores[..len], keep, most, &mut share, &reach, &extremes);
                if reach(&offered_scores[..len], row.threshold) > most {
                    len = drop_equal(&mut offered_scores[..len], &mut offered_places[..len], row.threshold, keep);
                }
            }
            row.len = 0;
            for at in (0..len).step_by(COLUMNS) {
                let counted = ((1u32 << COLUMNS.min(len - at)) - 1) as u16;
                let (scores, places) = slots(offered_scores, offered_places, at);
                row.len += append((scores, places), row.threshold, counted, slots(own_scores, own_places, row.len));
            }
        }
    }

    /// Scores and places of what a row has, places in ascending order.
    pub fn of(&self, row: usize) -> (&[f32], &[u32]) {
        let slots = row * self.slots..row * self.slots + self.rows[row].len;
        (&self.scores[slots.clone()], &self.places[slots])
    }

    /// Has scores replaced: of each row those whose places lie before `end`, but for those that were replaced already,
    /// by `score(row, places, scores)`. After the last [`take`](Self::take).
    pub fn score_again(&mut self, end: u32, mut score: impl FnMut(usize, &[u32], &mut [f32])) {
        for (place, row) in self.rows.iter_mut().enumerate() {
            let slots = place * self.slots + row.replaced..place * self.slots + row.len;
            let places = &self.places[slots.clone()];
            let places = &places[..places.partition_point(|at| *at < end)];
            score(place, places, &mut self.scores[slots][..places.len()]);
            row.replaced += places.len();
        }
    }
}

/// One place a column.
type Places = [u32; COLUMNS];

/// Scores and places of some columns.
type Slots<S, P> = (S, P);

fn slots<'a>(scores: &'a mut [f32], places: &'a mut [u32], start: usize) -> Slots<&'a mut Scores, &'a mut Places> {
    let slots = scores[start..].first_chunk_mut().zip(places[start..].first_chunk_mut());
    slots.expect("a panel behind the room")
}

/// Writes those that are `counted` and reach the threshold, and gives their number; behind them it writes anything.
#[inline(always)]
fn append_by(
    (scores, places): Slots<&Scores, &Places>,
    threshold: f32,
    counted: u16,
    (to_scores, to_places): Slots<&mut Scores, &mut Places>,
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
        (to_scores[len], to_places[len]) = (scores[c], places[c]);
        len += 1;
    }
    len
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn append_avx512(
    (scores, places): Slots<&Scores, &Places>,
    threshold: f32,
    counted: u16,
    (to_scores, to_places): Slots<&mut Scores, &mut Places>,
) -> usize {
    use std::arch::x86_64::{
        _CMP_GE_OQ, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_cmp_ps_mask, _mm512_maskz_compress_epi32,
        _mm512_maskz_compress_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    };
    // SAFETY: 16 numbers or places are one register.
    let (scores, places) = unsafe { (_mm512_loadu_ps(scores.as_ptr()), _mm512_loadu_si512(places.as_ptr().cast())) };
    let bits = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(counted, scores, _mm512_set1_ps(threshold));
    if bits == u16::MAX {
        // SAFETY: as above.
        unsafe {
            _mm512_storeu_ps(to_scores.as_mut_ptr(), scores);
            _mm512_storeu_si512(to_places.as_mut_ptr().cast(), places);
        }
        return COLUMNS;
    }
    // SAFETY: as above. Through a register, as compressing into memory is slow on some processors.
    unsafe {
        _mm512_storeu_ps(to_scores.as_mut_ptr(), _mm512_maskz_compress_ps(bits, scores));
        _mm512_storeu_si512(to_places.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(bits, places));
    }
    bits.count_ones() as usize
}

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
    let (lines, rest) = scores.as_chunks::<COLUMNS>();
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

/// The least and the largest.
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
    let (lines, rest) = scores.as_chunks::<COLUMNS>();
    let (mut least, mut most) = (_mm512_set1_ps(f32::INFINITY), _mm512_set1_ps(f32::NEG_INFINITY));
    for line in lines {
        // SAFETY: 16 numbers are one register.
        let line = unsafe { _mm512_loadu_ps(line.as_ptr()) };
        (least, most) = (_mm512_min_ps(least, line), _mm512_max_ps(most, line));
    }
    let rest = extremes_by(rest);
    (_mm512_reduce_min_ps(least).min(rest.0), _mm512_reduce_max_ps(most).max(rest.1))
}

/// How many more may be kept: a threshold that leaves exactly as many takes twice the passes.
fn more(keep: usize) -> usize {
    2 + keep / 24
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::kernel::Format;

    proptest! {
        /// Whatever the processor has, and however many scores are equal.
        #[test]
        fn keeps_the_best(
            rows in proptest::collection::vec(proptest::collection::vec(-6i32..6, 200), 1..4),
            keep in 1usize..60,
            counts in proptest::collection::vec(1usize..=COLUMNS, 1..12),
            together in 1usize..5,
            spread in prop_oneof![Just(1.0f32), Just(1e-3)],
            lowest in prop_oneof![Just(f32::NEG_INFINITY), Just(0.0f32)],
        ) {
            // Equal scores within a row where the spread is 1, none where the place makes the difference.
            let score = |row: usize, place: usize| match rows[row][place] {
                5 => f32::INFINITY,
                -6 => f32::NEG_INFINITY,
                score => score as f32 + if spread < 1.0 { spread * place as f32 } else { 0.0 },
            };
            for simd in SimdLevel::running(Format::F32) {
                let mut shortlists = Shortlists::new(Kernel::on(simd), rows.len(), keep);
                shortlists.restart(rows.iter().map(|_| lowest));
                let mut offered = Vec::new();
                for (turn, counts) in counts.chunks(together).enumerate() {
                    let first = turn * together * COLUMNS;
                    let panels = (first..).step_by(COLUMNS).zip(counts);
                    let score = |row, place, is_there| if is_there { score(row, place) } else { f32::NAN };
                    // Blocks are filled up with rows that nobody asks for.
                    let (own, filled) = (rows.len(), rows.len() + 2);
                    let scores = panels.clone().flat_map(|(first, &count)| {
                        let at = move |row, c| score(row % own, first + c, c < count && row < own);
                        (0..filled).map(move |row| std::array::from_fn(|c| at(row, c)))
                    });
                    shortlists.take(&scores.collect::<Vec<_>>(), filled, first as u32);
                    offered.extend(panels.flat_map(|(first, &count)| first..first + count));
                }
                for row in 0..rows.len() {
                    let (scores, places) = shortlists.of(row);
                    prop_assert!(places.is_sorted());
                    for (&found, &place) in scores.iter().zip(places) {
                        prop_assert!(offered.contains(&(place as usize)));
                        prop_assert_eq!(found, score(row, place as usize));
                    }
                    let mut all: Vec<f32> = offered.iter().map(|&place| score(row, place)).collect();
                    all.retain(|score| *score >= lowest);
                    all.sort_by(|a, b| b.total_cmp(a));
                    let mut found = scores.to_vec();
                    found.sort_by(|a, b| b.total_cmp(a));
                    prop_assert!((keep.min(all.len())..=keep + more(keep)).contains(&found.len()));
                    prop_assert_eq!(&found[..], &all[..found.len()]);
                }
            }
        }
    }
}
