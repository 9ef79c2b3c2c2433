use crate::sample::SampleId;

/// The samples of a graph with the lowest and with the highest in-degrees, a tenth each.
///
/// Samples of equal in-degree are in the same tail: the lower one has all that no more than a tenth lie strictly below,
/// the upper one all that no more than a tenth lie strictly above and that are not in the lower one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InDegreeTails {
    /// A bit for each sample, for the lower and for the upper tail.
    bits: [Vec<u64>; 2],
}

impl InDegreeTails {
    /// The tails of samples with these in-degrees. O(N); takes 4 bytes a sample meanwhile.
    pub fn of_degrees(degrees: &[u32]) -> Self {
        let samples = degrees.len();
        let mut bits = [vec![0u64; samples.div_ceil(64)], vec![0u64; samples.div_ceil(64)]];
        let mut sorted = degrees.to_vec();
        let tenth = samples / 10;
        if let Some(last) = samples.checked_sub(1) {
            let low = *sorted.select_nth_unstable(tenth.min(last)).1;
            let high = *sorted.select_nth_unstable(last - tenth).1;
            for (at, &degree) in degrees.iter().enumerate() {
                if degree <= low || degree >= high {
                    bits[usize::from(degree > low)][at / 64] |= 1 << (at % 64);
                }
            }
        }
        Self { bits }
    }

    /// The tail that a sample is in: 0 for the lower, 1 for the upper one.
    #[inline]
    pub fn of(&self, id: SampleId) -> Option<usize> {
        self.bits
            .iter()
            .position(|bits| bits.get(id.index() / 64).is_some_and(|bits| bits >> (id.index() % 64) & 1 == 1))
    }
}
