//! The best columns of each row of a block, while panels go by.

use std::ops::Range;

use super::{COLUMNS, Kernel, Scores, Vectors};

/// The best columns of some rows, by their places, which are numbers of the caller's.
///
/// Takes all that reach a row's threshold; when a row's room is full, the worse are thrown out and the threshold is
/// raised. Takes constant time a panel and row, as no score is looked at alone.
#[derive(Debug)]
pub(in crate::graph) struct Shortlists {
    vectors: Vectors,
    keep: usize,
    /// Room of a row; behind it a panel may still be written.
    room: usize,
    scores: Vec<f32>,
    places: Vec<u32>,
    lens: Vec<usize>,
    thresholds: Vec<f32>,
}

impl Shortlists {
    /// Of at most so many rows, each of which wants the `keep` best.
    pub fn new(kernel: Kernel, rows: usize, keep: usize) -> Self {
        let room = (2 * keep + SLACK).next_multiple_of(COLUMNS);
        let slots = rows * (room + COLUMNS);
        let (scores, places) = (vec![0.0; slots], vec![0; slots]);
        Self { vectors: kernel.vectors, keep, room, scores, places, lens: Vec::new(), thresholds: Vec::new() }
    }

    /// Empties all. There are as many rows as `thresholds`, below which they take nothing.
    pub fn restart(&mut self, thresholds: impl Iterator<Item = f32>) {
        self.thresholds.clear();
        self.thresholds.extend(thresholds);
        self.lens.clear();
        self.lens.resize(self.thresholds.len(), 0);
    }

    /// Offers each row the first `count` columns of a panel, whose places go up from `first`.
    pub fn take(&mut self, scores: &[Scores], first: u32, count: usize) {
        match self.vectors {
            // SAFETY: `running` has seen the feature.
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => unsafe { self.take_avx512(scores, first, count) },
            // SAFETY: `running` has seen the feature.
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => unsafe { self.take_avx2(scores, first, count) },
            Vectors::Portable => self.take_by(scores, first, count, append_by),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn take_avx512(&mut self, scores: &[Scores], first: u32, count: usize) {
        self.take_by(scores, first, count, |from, threshold, counted, to| append_avx512(from, threshold, counted, to));
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn take_avx2(&mut self, scores: &[Scores], first: u32, count: usize) {
        self.take_by(scores, first, count, append_by);
    }

    #[inline(always)]
    fn take_by(
        &mut self,
        scores: &[Scores],
        first: u32,
        count: usize,
        append: impl Fn(Slots<&Scores, &Places>, f32, u16, Slots<&mut Scores, &mut Places>) -> usize,
    ) {
        let counted = ((1u32 << count) - 1) as u16;
        let places = std::array::from_fn(|c| first + c as u32);
        for (row, scores) in scores.iter().enumerate().take(self.lens.len()) {
            let start = row * (self.room + COLUMNS) + self.lens[row];
            let to = slots(&mut self.scores, &mut self.places, start);
            self.lens[row] += append((scores, &places), self.thresholds[row], counted, to);
            if self.lens[row] >= self.room {
                self.shrink(row, self.keep / 8);
            }
        }
    }

    /// Leaves each row its best, of equal ones the first.
    pub fn finish(&mut self) {
        (0..self.lens.len()).for_each(|row| self.shrink(row, 0));
    }

    /// Scores and places of what a row has, places in ascending order.
    pub fn of(&self, row: usize) -> (&[f32], &[u32]) {
        let slots = row * (self.room + COLUMNS)..;
        (&self.scores[slots.clone()][..self.lens[row]], &self.places[slots][..self.lens[row]])
    }

    /// Has scores replaced: those of each row's best whose places lie in a range, by `score(row, places, scores)`.
    pub fn score_again(&mut self, range: &Range<u32>, mut score: impl FnMut(usize, &[u32], &mut [f32])) {
        for (row, &len) in self.lens.iter().enumerate() {
            let slots = row * (self.room + COLUMNS)..;
            let places = &self.places[slots.clone()][..len];
            let within = places.partition_point(|at| *at < range.start)..places.partition_point(|at| *at < range.end);
            score(row, &places[within.clone()], &mut self.scores[slots][within]);
        }
    }

    /// Throws out what is not among the best, but for a few `more`.
    fn shrink(&mut self, row: usize, more: usize) {
        let (start, len) = (row * (self.room + COLUMNS), self.lens[row]);
        if len <= self.keep + more {
            return;
        }
        let threshold = self.threshold(&self.scores[start..][..len], more);
        let mut kept = 0;
        for at in (0..len).step_by(COLUMNS) {
            let (scores, places) = slots(&mut self.scores, &mut self.places, start + at);
            let (scores, places) = (*scores, *places);
            let counted = ((1u32 << COLUMNS.min(len - at)) - 1) as u16;
            let to = slots(&mut self.scores, &mut self.places, start + kept);
            kept += append(self.vectors, (&scores, &places), threshold, counted, to);
        }
        if kept > self.keep + more {
            kept = self.drop_equal(start, kept, threshold);
        }
        self.lens[row] = kept;
        self.thresholds[row] = threshold;
    }

    /// What at least `keep` scores reach, and at most `more` others, unless these are equal to it.
    fn threshold(&self, scores: &[f32], more: usize) -> f32 {
        let least = scores.iter().fold(f32::INFINITY, |least, &score| least.min(score));
        let most = scores.iter().fold(f32::NEG_INFINITY, |most, &score| most.max(score));
        if self.reach(scores, most) >= self.keep {
            return most;
        }
        // All reach `low`, too few reach `high`: halved by their bits, which get there from infinite scores, too.
        let (mut low, mut high) = (ordered(least), ordered(most));
        loop {
            // Rounded down.
            let middle = (low + high).div_euclid(2);
            let reached = self.reach(scores, number(middle));
            if middle == low {
                return number(low);
            } else if reached < self.keep {
                high = middle;
            } else if reached <= self.keep + more {
                return number(middle);
            } else {
                low = middle;
            }
        }
    }

    /// How many scores reach a threshold.
    #[inline]
    fn reach(&self, scores: &[f32], threshold: f32) -> usize {
        match self.vectors {
            // SAFETY: `running` has seen the feature.
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 | Vectors::Avx2 => unsafe { reach_avx2(scores, threshold) },
            Vectors::Portable => reach_by(scores, threshold),
        }
    }

    /// Drops so many of the last ones at the threshold that `keep` remain.
    fn drop_equal(&mut self, start: usize, len: usize, threshold: f32) -> usize {
        let (scores, places) = (&mut self.scores[start..][..len], &mut self.places[start..][..len]);
        let above = scores.iter().filter(|&&score| score > threshold).count();
        let (mut kept, mut equal) = (0, self.keep - above);
        for at in 0..len {
            let is_equal = scores[at] == threshold;
            if !is_equal || equal > 0 {
                (scores[kept], places[kept]) = (scores[at], places[at]);
                kept += 1;
                equal -= usize::from(is_equal);
            }
        }
        kept
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
fn append(
    vectors: Vectors,
    from: Slots<&Scores, &Places>,
    threshold: f32,
    counted: u16,
    to: Slots<&mut Scores, &mut Places>,
) -> usize {
    match vectors {
        // SAFETY: `running` has seen the feature.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => unsafe { append_avx512(from, threshold, counted, to) },
        _ => append_by(from, threshold, counted, to),
    }
}

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
#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx2")]
fn reach_avx2(scores: &[f32], threshold: f32) -> usize {
    reach_by(scores, threshold)
}

/// The bits of a number as a whole number in the same order.
fn ordered(number: f32) -> i64 {
    let bits = number.to_bits().cast_signed();
    i64::from(if bits < 0 { bits ^ i32::MAX } else { bits })
}

/// The number whose bits are [`ordered`] like this.
fn number(ordered: i64) -> f32 {
    let bits = ordered as i32;
    f32::from_bits((if bits < 0 { bits ^ i32::MAX } else { bits }).cast_unsigned())
}

/// Room beside twice the columns that are kept: shrinking is rare even where few are.
const SLACK: usize = 32;

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
            keep in 1usize..40,
            counts in proptest::collection::vec(1usize..=COLUMNS, 1..12),
            spread in prop_oneof![Just(1.0f32), Just(1e-3)],
            lowest in prop_oneof![Just(f32::NEG_INFINITY), Just(0.0f32)],
        ) {
            // Equal scores within a row where the spread is 1, none where the place makes the difference.
            let score = |row: usize, place: usize| match rows[row][place] {
                5 => f32::INFINITY,
                -6 => f32::NEG_INFINITY,
                score => score as f32 + if spread < 1.0 { spread * place as f32 } else { 0.0 },
            };
            for vectors in Vectors::running(Format::F32) {
                let mut shortlists = Shortlists::new(Kernel { format: Format::F32, vectors }, rows.len(), keep);
                shortlists.restart(rows.iter().map(|_| lowest));
                let mut first = 0;
                for &count in &counts {
                    let panel = |row| std::array::from_fn(|c| score(row, (first + c).min(199)));
                    shortlists.take(&(0..rows.len()).map(panel).collect::<Vec<_>>(), first as u32, count);
                    first += count;
                }
                shortlists.finish();
                for row in 0..rows.len() {
                    let (scores, places) = shortlists.of(row);
                    prop_assert!(places.is_sorted());
                    for (&found, &place) in scores.iter().zip(places) {
                        prop_assert_eq!(found, score(row, place as usize));
                    }
                    let mut all: Vec<f32> = (0..first).map(|place| score(row, place)).filter(|s| *s >= lowest).collect();
                    all.sort_by(|a, b| b.total_cmp(a));
                    all.truncate(keep);
                    let mut found = scores.to_vec();
                    found.sort_by(|a, b| b.total_cmp(a));
                    prop_assert_eq!(found, all);
                }
            }
        }
    }
}
