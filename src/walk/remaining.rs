use rand::{Rng, RngExt};

use crate::sample::SampleId;

/// The samples that the epoch has not drawn yet. Every operation takes O(1), `pick` over the epoch as a whole.
///
/// Walks ask of every sample they reach whether it is fresh, and a bit for each stays in the processor's cache.
#[derive(Clone, Debug)]
pub(super) struct Remaining {
    /// A bit for each sample, set while it is fresh.
    bits: Vec<u64>,
    len: usize,
    /// All fresh samples in no order, and some that no longer are.
    left: Vec<SampleId>,
}

impl Remaining {
    pub fn all(samples: usize) -> Self {
        let mut bits = vec![u64::MAX; samples.div_ceil(64)];
        // A graph may have gained samples since: they are for the next epoch.
        if !samples.is_multiple_of(64)
            && let Some(last) = bits.last_mut()
        {
            *last = (1 << (samples % 64)) - 1;
        }
        Self { bits, len: samples, left: (0..samples).map(SampleId::new).collect() }
    }

    /// Bits and number of those left, of which one order is as good as another: from here on they stand in theirs.
    pub fn pause(&mut self) -> Vec<u64> {
        *self = Self::of(std::mem::take(&mut self.bits));
        self.bits.clone()
    }

    pub fn of(bits: Vec<u64>) -> Self {
        let mut fresh = Self { bits, len: 0, left: Vec::new() };
        fresh.left = fresh.iter().collect();
        fresh.len = fresh.left.len();
        fresh
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = SampleId> {
        let set =
            |word: usize, bits: u64| (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit);
        self.bits.iter().enumerate().flat_map(move |(word, &bits)| set(word, bits)).map(SampleId::new)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Draws `id`; false where it was drawn before.
    #[inline]
    pub fn take(&mut self, id: SampleId) -> bool {
        let Some(bits) = self.bits.get_mut(id.index() / 64) else { return false };
        let bit = 1 << (id.index() % 64);
        let fresh = *bits & bit != 0;
        *bits &= !bit;
        // Not `self.len -= usize::from(fresh)`: rustc 1.95 loses it where the caller branches (rust-lang/rust#158206).
        if fresh {
            self.len -= 1;
        }
        fresh
    }

    #[inline]
    pub fn contains(&self, id: SampleId) -> bool {
        self.bits.get(id.index() / 64).is_some_and(|bits| bits >> (id.index() % 64) & 1 == 1)
    }

    /// Undoes [`take`](Self::take), for samples taken since the last [`sweep`](Self::sweep).
    pub fn put_back(&mut self, id: SampleId) {
        if !self.contains(id) {
            self.bits[id.index() / 64] |= 1 << (id.index() % 64);
            self.len += 1;
        }
    }

    /// Any fresh sample, each as likely, that was not picked since `picked` was 0; it stays fresh.
    pub fn pick(&mut self, picked: &mut usize, generator: &mut impl Rng) -> Option<SampleId> {
        while *picked < self.left.len() {
            let at = generator.random_range(*picked..self.left.len());
            self.left.swap(*picked, at);
            *picked += 1;
            let id = self.left[*picked - 1];
            if self.contains(id) {
                return Some(id);
            }
        }
        None
    }

    /// Forgets those that are not fresh any more, where they are as many as the fresh ones: a draw then takes two
    /// attempts on average, and over an epoch the sweeps pass 4 N samples.
    pub fn sweep(&mut self) {
        if self.left.len() > 2 * self.len {
            let bits = &self.bits;
            self.left.retain(|id| bits[id.index() / 64] >> (id.index() % 64) & 1 == 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    /// Whether most of the samples are fresh, or few and the others swept out.
    #[test]
    fn any_fresh_sample_is_as_likely() {
        const DRAWS: usize = 20_000;
        for (taken, fresh) in [(50, 150), (170, 30)] {
            let mut times = vec![0u32; fresh];
            for seed in 0..DRAWS {
                let mut samples = Remaining::all(taken + fresh);
                // Those taken by walks stand in the middle.
                (7..7 + taken).for_each(|id| assert!(samples.take(SampleId::new(id))));
                samples.sweep();
                let mut generator = ChaCha8Rng::seed_from_u64(seed as u64);
                let id = samples.pick(&mut 0, &mut generator).expect("some are fresh").index();
                times[if id < 7 { id } else { id - taken }] += 1;
            }
            let expected = DRAWS as f64 / fresh as f64;
            let chi2: f64 = times.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
            // Five standard deviations of chi-square.
            let freedom = (fresh - 1) as f64;
            assert!((chi2 - freedom).abs() < 5.0 * (2.0 * freedom).sqrt(), "{chi2} for {freedom}");
        }
    }
}
