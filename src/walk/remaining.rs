use std::sync::Arc;

use rand::{Rng, RngExt};

use super::strata::{Pools, Strata};
use crate::sample::SampleId;

/// The samples that an epoch has not drawn yet.
///
/// Every operation takes O(1); [`pick`](Self::pick) does so on average over an epoch. Walks ask for every sample that
/// they reach whether it remains, so there is a bit for each, which stays in the processor's cache.
#[derive(Clone, Debug)]
pub(super) struct Remaining {
    /// A bit for each sample, which is set while it remains.
    bits: Vec<u64>,
    len: usize,
    /// All remaining samples in any order, and some that were drawn since the last sweep.
    ids: Vec<SampleId>,
    /// The same by stratum, if they are divided.
    pools: Option<Pools>,
}

impl Remaining {
    /// All samples remain.
    pub fn all(samples: usize) -> Self {
        let mut bits = vec![u64::MAX; samples.div_ceil(64)];
        // Samples that a graph gains during the epoch are for the next one.
        if !samples.is_multiple_of(64)
            && let Some(last) = bits.last_mut()
        {
            *last = (1 << (samples % 64)) - 1;
        }
        Self { bits, len: samples, ids: (0..samples).map(SampleId::new).collect(), pools: None }
    }

    /// Returns the bits, and orders the samples by id, so that the past order no longer matters.
    pub fn forget_order(&mut self) -> Vec<u64> {
        let strata = self.pools.take().map(|pools| pools.strata().clone());
        *self = Self::of(std::mem::take(&mut self.bits));
        if let Some(strata) = strata {
            self.divide(&strata);
        }
        self.bits.clone()
    }

    /// The samples whose bits are set remain.
    pub fn of(bits: Vec<u64>) -> Self {
        let mut remaining = Self { bits, len: 0, ids: Vec::new(), pools: None };
        remaining.ids = remaining.iter().collect();
        remaining.len = remaining.ids.len();
        remaining
    }

    /// Divides the samples, so that those of a stratum can be picked.
    pub fn divide(&mut self, strata: &Arc<Strata>) {
        self.pools = Some(Pools::new(strata, self.iter()));
    }

    /// The remaining samples by stratum, if they are divided.
    pub fn pools(&self) -> Option<&Pools> {
        self.pools.as_ref()
    }

    /// The remaining samples by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = SampleId> {
        let set =
            |word: usize, bits: u64| (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit);
        self.bits.iter().enumerate().flat_map(move |(word, &bits)| set(word, bits)).map(SampleId::new)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes `id` out, and returns whether it remained.
    #[inline]
    pub fn take(&mut self, id: SampleId) -> bool {
        let Some(bits) = self.bits.get_mut(id.index() / 64) else { return false };
        let bit = 1 << (id.index() % 64);
        let remained = *bits & bit != 0;
        *bits &= !bit;
        // Not `self.len -= usize::from(remained)`: rustc 1.95 loses it if the caller branches (rust-lang/rust#158206).
        if remained {
            self.len -= 1;
            if let Some(pools) = &mut self.pools {
                pools.count_taken(id);
            }
        }
        remained
    }

    #[inline]
    pub fn contains(&self, id: SampleId) -> bool {
        is_set(&self.bits, id)
    }

    /// Undoes [`take`](Self::take) for a sample that was taken since the last [`sweep`](Self::sweep).
    pub fn put_back(&mut self, id: SampleId) {
        if !self.contains(id) {
            self.bits[id.index() / 64] |= 1 << (id.index() % 64);
            self.len += 1;
            if let Some(pools) = &mut self.pools {
                pools.count_put_back(id);
            }
        }
    }

    /// Picks a uniformly random remaining sample, except those picked since `picked` was 0; it still remains.
    pub fn pick(&mut self, picked: &mut usize, generator: &mut impl Rng) -> Option<SampleId> {
        while *picked < self.ids.len() {
            let at = generator.random_range(*picked..self.ids.len());
            self.ids.swap(*picked, at);
            *picked += 1;
            let id = self.ids[*picked - 1];
            if self.contains(id) {
                return Some(id);
            }
        }
        None
    }

    /// [Picks](Self::pick) among the samples of a stratum; they must be divided.
    pub fn pick_of(&mut self, stratum: usize, picked: &mut usize, generator: &mut impl Rng) -> Option<SampleId> {
        let Self { bits, pools, .. } = self;
        pools.as_mut()?.pick(stratum, picked, |id| is_set(bits, id), generator)
    }

    /// Begins another pass over a stratum: all its samples for which `is_in` holds remain. Returns what was left of the
    /// last pass.
    pub fn refill(&mut self, stratum: usize, is_in: impl Fn(SampleId) -> bool) -> Vec<SampleId> {
        let Self { bits, len, pools: Some(pools), .. } = self else { return Vec::new() };
        let members: Vec<_> = pools.strata().members(stratum).filter(|&id| is_in(id)).collect();
        let (mut left, mut more) = (Vec::new(), 0);
        for &id in &members {
            if is_set(bits, id) {
                left.push(id);
            } else {
                bits[id.index() / 64] |= 1 << (id.index() % 64);
                more += 1;
            }
        }
        *len += more;
        pools.refill(stratum, members);
        left
    }

    /// Forgets drawn samples of a stratum, as [`sweep`](Self::sweep) does.
    pub fn sweep_of(&mut self, stratum: usize) {
        let Self { bits, pools, .. } = self;
        if let Some(pools) = pools {
            pools.sweep(stratum, |id| is_set(bits, id));
        }
    }

    /// Forgets drawn samples if they are as many as the remaining ones.
    ///
    /// So a pick takes at most two attempts on average, and all sweeps of an epoch pass 4 N samples.
    pub fn sweep(&mut self) {
        if self.ids.len() > 2 * self.len {
            let bits = &self.bits;
            self.ids.retain(|&id| is_set(bits, id));
        }
    }
}

#[inline]
fn is_set(bits: &[u64], id: SampleId) -> bool {
    bits.get(id.index() / 64).is_some_and(|bits| bits >> (id.index() % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    /// Both if most samples remain, and if few do and the others are swept out.
    #[test]
    fn any_remaining_sample_is_as_likely() {
        const ROUNDS: usize = 20_000;
        for (taken, remaining) in [(50, 150), (170, 30)] {
            let mut times = vec![0u32; remaining];
            for seed in 0..ROUNDS {
                let mut samples = Remaining::all(taken + remaining);
                // The samples that are taken lie in the middle.
                (7..7 + taken).for_each(|id| assert!(samples.take(SampleId::new(id))));
                samples.sweep();
                let mut generator = ChaCha8Rng::seed_from_u64(seed as u64);
                let id = samples.pick(&mut 0, &mut generator).expect("some remain").index();
                times[if id < 7 { id } else { id - taken }] += 1;
            }
            let expected = ROUNDS as f64 / remaining as f64;
            let chi2: f64 = times.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
            // Five standard deviations of chi-square.
            let freedom = (remaining - 1) as f64;
            assert!((chi2 - freedom).abs() < 5.0 * (2.0 * freedom).sqrt(), "{chi2} for {freedom}");
        }
    }
}
