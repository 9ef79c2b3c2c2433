/// The K best of a series of scored candidates, for one row at a time.
///
/// Larger scores are better, the smaller id breaks ties; scores are numbers, as embeddings are finite. Keeps up to
/// 2 K + 32 candidates and throws the worse half out when that is full, so an insert costs O(1) amortised.
#[derive(Debug)]
pub(in crate::graph) struct TopK {
    k: usize,
    /// Sorted, these stand best first.
    kept: Vec<u64>,
    threshold: f32,
}

impl TopK {
    pub fn new(k: usize) -> Self {
        Self { k, kept: Vec::with_capacity(2 * k + SLACK), threshold: f32::NEG_INFINITY }
    }

    /// Nothing below this can be among the K best any more.
    #[inline]
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    #[inline]
    pub fn push(&mut self, score: f32, id: u32) {
        self.kept.push(key(score, id));
        if self.kept.len() == 2 * self.k + SLACK {
            self.shrink();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Brings the threshold up to date.
    pub fn shrink(&mut self) {
        if self.kept.len() >= self.k {
            self.kept.select_nth_unstable(self.k - 1);
            self.kept.truncate(self.k);
            self.threshold = candidate(self.kept[self.k - 1]).0;
        }
    }

    /// The K best in no order, as (score, id); empty then, to go on with.
    pub fn drain(&mut self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.shrink();
        self.threshold = f32::NEG_INFINITY;
        self.kept.drain(..).map(candidate)
    }

    /// The K best, best first.
    pub fn drain_sorted(&mut self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.shrink();
        self.kept.sort_unstable();
        self.drain()
    }
}

/// A number that is smaller for better candidates: the score's bits in the order of the numbers, upside down, then
/// the id.
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

/// Keeps the amortised cost down for the smallest K.
const SLACK: usize = 32;

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
