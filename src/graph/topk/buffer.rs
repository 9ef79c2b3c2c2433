/// The K best of a series of scored candidates, for one row at a time.
///
/// Larger scores are better, and the smaller id breaks ties. Scores must not be NaN. It holds up to 2 K + 32 candidates
/// and drops all but the K best when it is full, so that an insert costs amortised O(1).
#[derive(Debug)]
pub(in crate::graph) struct TopK {
    k: usize,
    /// The keys of candidates, whose ascending order is best first.
    kept: Vec<u64>,
    threshold: f32,
}

impl TopK {
    /// An empty buffer for the `k` best.
    pub fn new(k: usize) -> Self {
        Self { k, kept: Vec::with_capacity(2 * k + CAPACITY_SLACK), threshold: f32::NEG_INFINITY }
    }

    /// A score below this cannot be among the K best any more.
    #[inline]
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Adds a candidate.
    #[inline]
    pub fn push(&mut self, score: f32, id: u32) {
        self.kept.push(key(score, id));
        if self.kept.len() == 2 * self.k + CAPACITY_SLACK {
            self.shrink();
        }
    }

    /// Whether there are no candidates.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Drops all but the K best, and brings the threshold up to date.
    pub fn shrink(&mut self) {
        if self.kept.len() >= self.k {
            self.kept.select_nth_unstable(self.k - 1);
            self.kept.truncate(self.k);
            self.threshold = candidate(self.kept[self.k - 1]).0;
        }
    }

    /// Removes the K best, as (score, id) in no order; the buffer is then empty and can be used again.
    pub fn drain(&mut self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.shrink();
        self.threshold = f32::NEG_INFINITY;
        self.kept.drain(..).map(candidate)
    }

    /// Removes the K best, best first.
    pub fn drain_sorted(&mut self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.shrink();
        self.kept.sort_unstable();
        self.drain()
    }
}

/// A number that is smaller for better candidates.
///
/// Its upper half is the score's bits, reordered so that a larger score gives a smaller number; its lower half is the
/// id.
#[inline]
fn key(score: f32, id: u32) -> u64 {
    let bits = score.to_bits();
    let ordered = if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits };
    u64::from(ordered) << 32 | u64::from(id)
}

/// The (score, id) of a key.
#[inline]
fn candidate(key: u64) -> (f32, u32) {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 0 { !ordered & 0x7fff_ffff } else { ordered };
    (f32::from_bits(bits), key as u32)
}

/// The capacity beyond 2 K, which keeps the amortised cost down for the smallest K.
const CAPACITY_SLACK: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_ordered_like_candidates(
            a in -1e6f32..1e6, b in prop_oneof![Just(0.0f32), -1e6f32..1e6], i: u32, j: u32,
        ) {
            prop_assert_eq!(candidate(key(a, i)), (a, i));
            let better = b.total_cmp(&a).then(i.cmp(&j));
            prop_assert_eq!(key(a, i).cmp(&key(b, j)), better);
            prop_assert_eq!(key(a, i).cmp(&key(a, j)), i.cmp(&j));
        }

        #[test]
        fn keeps_the_best(scores in proptest::collection::vec(-4i32..4, 1..400), k in 1usize..50) {
            let mut top = TopK::new(k);
            let mut all: Vec<_> = scores.iter().map(|&s| s as f32).zip(0u32..).collect();
            for &(score, id) in &all {
                if score >= top.threshold() {
                    top.push(score, id);
                }
            }
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(k);
            prop_assert_eq!(top.drain_sorted().collect::<Vec<_>>(), all);
        }
    }
}
