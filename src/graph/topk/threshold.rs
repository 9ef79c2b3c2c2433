//! What a score must reach to be one of the best of a row, found by counting.

/// What at least `keep` scores reach, and at most `most`, unless there are equal ones. `share` is where it is expected
/// between the least and the largest score, and tells where it was.
#[inline(always)]
pub(in crate::graph) fn raised(
    scores: &[f32],
    keep: usize,
    most: usize,
    share: &mut f32,
    reach: impl Fn(&[f32], f32) -> usize,
    extremes: impl Fn(&[f32]) -> (f32, f32),
) -> f32 {
    let (least, largest) = extremes(scores);
    let (mut low, mut high) = (least, largest);
    // How many reach them.
    let (mut many, mut few) = (scores.len(), reach(scores, high));
    if few >= keep {
        return high;
    }
    // All reach `low`, too few reach `high`. By values, which soon gets near, then halved by bits, which gets there from
    // infinite scores, too.
    let mut by_value = (largest - least).mul_add(*share, least);
    let mut probes = 0;
    loop {
        let middle = if probes < BY_VALUE && low < by_value && by_value < high {
            by_value
        } else {
            // Rounded down.
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
            // Ever fewer scores are ever larger, by about the same factor.
            let wanted = rough_log(usize::midpoint(keep, most));
            let way = (rough_log(many) - wanted) / (rough_log(many) - rough_log(few));
            (high - low).mul_add(way, low)
        };
    }
}

/// Drops so many of the last ones at the threshold that `keep` remain that reach it, and gives how many are left with
/// those below it.
pub(in crate::graph) fn drop_equal(scores: &mut [f32], places: &mut [u32], threshold: f32, keep: usize) -> usize {
    let above = scores.iter().filter(|&&score| score > threshold).count();
    let (mut kept, mut equal) = (0, keep - above);
    for at in 0..scores.len() {
        let is_equal = scores[at] == threshold;
        if !is_equal || equal > 0 {
            (scores[kept], places[kept]) = (scores[at], places[at]);
            kept += 1;
            equal -= usize::from(is_equal);
        }
    }
    kept
}

/// The binary logarithm, times 2²³ and plus some, exact for powers of two and linear in between.
fn rough_log(count: usize) -> f32 {
    (count as f32).to_bits() as f32
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

/// Probes by values before those by bits.
const BY_VALUE: usize = 24;
