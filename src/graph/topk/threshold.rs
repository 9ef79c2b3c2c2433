//! Finds the threshold that about K scores of a row reach, by counting.

/// A threshold that at least `keep` and at most `most` scores reach, unless equal scores prevent it.
///
/// `share` is the initial guess, as a fraction of the score range; it is updated with the fraction found. `reach`
/// counts the scores that reach a threshold, `extremes` finds the least and the largest score.
///
/// 1. Start with an interval whose lower end all scores reach and whose upper end too few reach.
/// 2. Probe a value in between: the guess, then where the logarithm of the count should meet the target, and every
///    third time the midpoint.
/// 3. After `MAX_VALUE_PROBES` probes, halve the interval by the bits of the numbers, which also ends with infinite
///    scores.
#[inline(always)]
pub(in crate::graph) fn raised_threshold(
    scores: &[f32],
    keep: usize,
    most: usize,
    share: &mut f32,
    reach: impl Fn(&[f32], f32) -> usize,
    extremes: impl Fn(&[f32]) -> (f32, f32),
) -> f32 {
    let (least, largest) = extremes(scores);
    let mut low = least;
    let mut high = largest;
    // How many scores reach `low` and `high`.
    let mut many = scores.len();
    let mut few = reach(scores, high);
    if few >= keep {
        return high;
    }
    let mut by_value = (largest - least).mul_add(*share, least);
    let mut probes = 0;
    loop {
        let middle = if probes < MAX_VALUE_PROBES && low < by_value && by_value < high {
            by_value
        } else {
            // The mean of both, rounded down.
            number((ordered(low) + ordered(high)).div_euclid(2))
        };
        if ordered(middle) == ordered(low) {
            return low;
        }
        probes += 1;
        match reach(scores, middle) {
            reached if reached < keep => (high, few) = (middle, reached),
            reached if reached <= most => {
                let at = (middle - least) / (largest - least);
                if at.is_finite() {
                    *share = at;
                }
                return middle;
            }
            reached => (low, many) = (middle, reached),
        }
        by_value = if probes % 3 == 0 {
            f32::midpoint(low, high)
        } else {
            // The number of scores falls about exponentially with the threshold.
            let wanted = rough_log(usize::midpoint(keep, most));
            let way = (rough_log(many) - wanted) / (rough_log(many) - rough_log(few));
            (high - low).mul_add(way, low)
        };
    }
}

/// Drops the last of the scores that equal the threshold, so that `keep` remain that reach it.
///
/// Returns how many scores are left, including those below the threshold.
pub(in crate::graph) fn drop_equal(scores: &mut [f32], columns: &mut [u32], threshold: f32, keep: usize) -> usize {
    let above = scores.iter().filter(|&&score| score > threshold).count();
    let mut kept = 0;
    let mut equal = keep - above;
    for at in 0..scores.len() {
        let is_equal = scores[at] == threshold;
        if !is_equal || equal > 0 {
            (scores[kept], columns[kept]) = (scores[at], columns[at]);
            kept += 1;
            equal -= usize::from(is_equal);
        }
    }
    kept
}

/// The binary logarithm times 2²³, plus a constant: exact for powers of two, linear in between.
fn rough_log(count: usize) -> f32 {
    (count as f32).to_bits() as f32
}

/// An integer that is ordered like the number: its bits, rearranged.
fn ordered(number: f32) -> i64 {
    let bits = number.to_bits().cast_signed();
    i64::from(if bits < 0 { bits ^ i32::MAX } else { bits })
}

/// The inverse of [`ordered`].
fn number(ordered: i64) -> f32 {
    let bits = ordered as i32;
    f32::from_bits((if bits < 0 { bits ^ i32::MAX } else { bits }).cast_unsigned())
}

/// How many values are probed before the interval is halved by bits.
const MAX_VALUE_PROBES: usize = 24;
