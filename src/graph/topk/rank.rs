//! Orders candidates: larger scores are better, the smaller id breaks ties.

use std::cmp::Ordering::Equal;

use crate::sample::SampleId;

/// Writes the best candidates, best first: as many as fit the output, or all if these are fewer.
///
/// Up to `MAX_COUNTED` candidates are ranked by counting larger scores, which takes no branches; more are sorted.
/// Scores must not be NaN.
pub(in crate::graph) fn best_first(
    scores: &[f32],
    ids: &[SampleId],
    best_scores: &mut [f32],
    best_ids: &mut [SampleId],
) {
    if scores.len() > MAX_COUNTED {
        let mut candidates: Vec<_> = scores.iter().copied().zip(ids.iter().copied()).collect();
        let order =
            |a: &(f32, SampleId), b: &(f32, SampleId)| b.0.partial_cmp(&a.0).unwrap_or(Equal).then(a.1.cmp(&b.1));
        if best_scores.len() < candidates.len() {
            candidates.select_nth_unstable_by(best_scores.len(), order);
            candidates.truncate(best_scores.len());
        }
        candidates.sort_unstable_by(order);
        for ((slot_score, slot_id), (score, id)) in best_scores.iter_mut().zip(best_ids).zip(candidates) {
            (*slot_score, *slot_id) = (score, id);
        }
        return;
    }
    let mut ranks = [0; MAX_COUNTED];
    rank(scores, &mut ranks);
    let len = scores.len();
    if ranks[..len].iter().sum::<u32>() as usize != len * len.saturating_sub(1) / 2 {
        // Some scores are equal and share a rank so far.
        let mut sharing = [0u16; MAX_COUNTED];
        ranks[..len].iter().for_each(|&rank| sharing[rank as usize] += 1);
        for at in 0..len {
            if sharing[ranks[at] as usize] > 1 {
                let is_before = |other: &usize| scores[*other] == scores[at] && (ids[*other], *other) < (ids[at], at);
                ranks[at] += (0..len).filter(is_before).count() as u32;
            }
        }
    }
    for ((&rank, &score), &id) in ranks.iter().zip(scores).zip(ids) {
        if let Some((slot_score, slot_id)) = best_scores.get_mut(rank as usize).zip(best_ids.get_mut(rank as usize)) {
            (*slot_score, *slot_id) = (score, id);
        }
    }
}

/// Counts the larger scores of each score, for at most [`MAX_COUNTED`] scores.
fn rank(scores: &[f32], ranks: &mut [u32; MAX_COUNTED]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature is there.
        return unsafe { rank_avx2(scores, ranks) };
    }
    for (rank, own) in ranks.iter_mut().zip(scores) {
        *rank = scores.iter().map(|score| u32::from(score > own)).sum();
    }
}

/// The same in AVX2 instructions, since compilers do not vectorise the plain loop well.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn rank_avx2(scores: &[f32], ranks: &mut [u32; MAX_COUNTED]) {
    use std::arch::x86_64::{
        _CMP_GT_OQ, _mm256_castps_si256, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm256_sub_epi32,
    };
    let mut padded = [0.0; MAX_COUNTED];
    padded[..scores.len()].copy_from_slice(scores);
    let lanes = padded.as_chunks::<LANES>().0.iter().zip(ranks.as_chunks_mut::<LANES>().0);
    for (own, ranks) in lanes.take(scores.len().div_ceil(LANES)) {
        // SAFETY: `LANES` numbers are four registers of 8.
        let own: [_; LANES / 8] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(own.as_ptr().add(8 * i)) });
        let mut larger = [_mm256_setzero_si256(); LANES / 8];
        for &score in scores {
            let score = _mm256_set1_ps(score);
            for (larger, own) in larger.iter_mut().zip(own) {
                // A comparison that holds gives −1.
                *larger = _mm256_sub_epi32(*larger, _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(score, own)));
            }
        }
        for (i, larger) in larger.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(ranks.as_mut_ptr().add(8 * i).cast(), larger) };
        }
    }
}

/// How many candidates are ranked by counting at most: its time grows with their square.
const MAX_COUNTED: usize = 256;

/// How many scores are compared at once.
const LANES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few and many candidates, with and without equal scores.
        #[test]
        fn the_best_come_first(
            scores in proptest::collection::vec(
                prop_oneof![-1f32..1.0, -1f32..1.0, Just(0.5), Just(f32::NEG_INFINITY)], 0..400,
            ),
            length in 0usize..300,
            seed: u32,
        ) {
            // The ids are in no order, and some are equal.
            let ids: Vec<_> = (0..scores.len() as u32).map(|at| SampleId((at ^ seed) % 300)).collect();
            let mut sorted: Vec<_> = scores.iter().copied().zip(ids.iter().copied()).collect();
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let unset = (9.0, SampleId(7));
            sorted.resize(sorted.len().max(length), unset);
            let (mut best_scores, mut best_ids) = (vec![unset.0; length], vec![unset.1; length]);
            best_first(&scores, &ids, &mut best_scores, &mut best_ids);
            prop_assert_eq!(best_scores.into_iter().zip(best_ids).collect::<Vec<_>>(), &sorted[..length]);
        }
    }
}
