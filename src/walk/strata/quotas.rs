use super::{Strata, Weights};
use crate::config::{Schedule, Stop};

/// Turns weights into numbers of samples, mini-batch by mini-batch.
///
/// Each mini-batch adds to every stratum the part that its weight asks for, and gives what is owed: as much of it as is
/// whole, and the rest to the strata that are owed the most. So no stratum is ever ahead or behind by one.
#[derive(Clone, Debug)]
pub(super) struct Quotas {
    weights: Vec<Schedule>,
    /// How many each stratum has, of the epoch's samples.
    sizes: Vec<u64>,
    stop: Stop,
    epoch: u64,
    /// How many a mini-batch gives.
    places: u64,
    /// How many samples one place stands for.
    unit: u64,
    /// What is owed to each stratum, above −1 and below 1 between mini-batches.
    owed: Vec<f64>,
    /// How many places each stratum was given.
    given: Vec<u64>,
}

impl Quotas {
    /// The quotas of an epoch over the first `samples`, in mini-batches of `batch_size`; with `whole`, each is of one
    /// stratum.
    pub fn new(strata: &Strata, samples: usize, batch_size: usize, whole: bool, epoch: u64) -> Option<Self> {
        let weighting = strata.weighting.as_ref()?;
        let sizes = strata.sizes(samples);
        let weights = match &weighting.weights {
            Weights::Given(weights) => weights.clone(),
            Weights::OfSize(power) => {
                sizes.iter().map(|&size| Schedule::Constant((size as f64).powf(*power))).collect()
            }
        };
        let (places, unit) = if whole { (1, batch_size as u64) } else { (batch_size as u64, 1) };
        let (owed, given) = (vec![0.0; sizes.len()], vec![0; sizes.len()]);
        Some(Self { weights, sizes, stop: weighting.stop, epoch, places, unit, owed, given })
    }

    /// How many samples the mini-batch of `step` takes of each stratum.
    pub fn next(&mut self, step: u64) -> Vec<u64> {
        // A stratum may have no sample yet: its first ones may come with a later file.
        let weight = |(weight, &size): (&Schedule, &u64)| if size == 0 { 0.0 } else { weight.at(step, self.epoch) };
        let weights: Vec<_> = self.weights.iter().zip(&self.sizes).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let mut quotas = vec![0; weights.len()];
        if sum > 0.0 {
            for (owed, weight) in self.owed.iter_mut().zip(&weights) {
                *owed += self.places as f64 * weight / sum;
            }
        }
        for (quota, owed) in quotas.iter_mut().zip(&mut self.owed) {
            *quota = owed.max(0.0).floor() as u64;
            *owed -= *quota as f64;
        }
        let mut given: u64 = quotas.iter().sum();
        let is_open = |stratum: &usize| weights[*stratum] > 0.0 || sum <= 0.0;
        while given < self.places {
            // The one that is owed the most; the first of equals.
            let most = (0..quotas.len()).filter(is_open).reduce(|a, b| if self.owed[b] > self.owed[a] { b } else { a });
            let Some(most) = most else { break };
            quotas[most] += 1;
            self.owed[most] -= 1.0;
            given += 1;
        }
        while given > self.places {
            let some = (0..quotas.len()).filter(|&stratum| quotas[stratum] > 0);
            let Some(least) = some.reduce(|a, b| if self.owed[b] < self.owed[a] { b } else { a }) else { break };
            quotas[least] -= 1;
            self.owed[least] += 1.0;
            given -= 1;
        }
        self.given.iter_mut().zip(&quotas).for_each(|(given, quota)| *given += quota);
        quotas.iter().map(|quota| quota * self.unit).collect()
    }

    /// How many mini-batches come before the epoch ends, if the next one is that of `step`, with these numbers `left`
    /// of each stratum's pass. O(mini-batches × strata).
    pub fn length(&self, step: u64, left: &[u64]) -> u64 {
        let mut quotas = self.clone();
        let mut left = left.to_vec();
        for count in 0.. {
            if self.stop == Stop::All && quotas.has_given_all(step + count) {
                return count;
            }
            let next = quotas.next(step + count);
            if next.iter().all(|&quota| quota == 0) {
                return count;
            }
            if self.stop == Stop::First {
                if next.iter().zip(&left).any(|(quota, left)| quota > left) {
                    return count;
                }
                left.iter_mut().zip(&next).for_each(|(left, quota)| *left -= quota);
            }
        }
        0
    }

    /// Whether every stratum has been given all its samples, but for those whose weight is 0 from `step` on.
    pub fn has_given_all(&self, step: u64) -> bool {
        let strata = self.weights.iter().zip(&self.sizes).zip(&self.given);
        strata.into_iter().all(|((weight, &size), given)| {
            let never = match *weight {
                Schedule::Constant(weight) => weight == 0.0,
                Schedule::Steps { to, steps, .. } => to == 0.0 && step >= steps,
                Schedule::Epochs { .. } => weight.at(step, self.epoch) == 0.0,
            };
            given * self.unit >= size || never
        })
    }

    /// How many samples each stratum has.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    pub fn stop(&self) -> Stop {
        self.stop
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::super::Weighting;
    use super::*;

    fn strata(sizes: &[usize], weights: Weights, stop: Stop) -> Strata {
        let of = sizes.iter().zip(0..).flat_map(|(&size, stratum)| vec![stratum; size]).collect();
        Strata::of_values(of).with_weighting(Some(Weighting { weights, stop }))
    }

    /// Whatever the weights, mini-batches are full, and sums are off by less than one.
    #[test]
    fn sums_follow_the_weights() {
        for seed in 0..200 {
            let mut generator = ChaCha8Rng::seed_from_u64(seed);
            let count = generator.random_range(1..9);
            let sizes: Vec<usize> = (0..count).map(|_| generator.random_range(50..500)).collect();
            let weights: Vec<f64> = (0..count).map(|_| generator.random_range(0.01..9.0)).collect();
            let batch_size = generator.random_range(1..40);
            let given = Weights::Given(weights.iter().map(|&weight| weight.into()).collect());
            let strata = strata(&sizes, given, Stop::All);
            let mut quotas = Quotas::new(&strata, sizes.iter().sum(), batch_size, false, 0).unwrap();
            let sum: f64 = weights.iter().sum();
            let mut taken = vec![0; count];
            for step in 0..300 {
                let next = quotas.next(step);
                assert_eq!(next.iter().sum::<u64>(), batch_size as u64);
                taken.iter_mut().zip(&next).for_each(|(taken, next)| *taken += next);
                for (&taken, weight) in taken.iter().zip(&weights) {
                    let expected = (step + 1) as f64 * batch_size as f64 * weight / sum;
                    assert!((taken as f64 - expected).abs() < 1.0 + 1e-6, "seed {seed}: {taken}, not {expected}");
                }
            }
        }
    }

    /// A schedule's sums are those of its weights at each step.
    #[test]
    fn sums_follow_weights_that_change() {
        let weights = vec![Schedule::Steps { from: 1.0, to: 0.0, steps: 40 }, Schedule::Constant(1.0)];
        let strata = strata(&[900, 900], Weights::Given(weights), Stop::First);
        let mut quotas = Quotas::new(&strata, 1800, 16, false, 0).unwrap();
        let (mut first, mut expected) = (0, 0.0);
        for step in 0..100 {
            first += quotas.next(step)[0];
            let weight = 1.0 - step.min(40) as f64 / 40.0;
            expected += 16.0 * weight / (weight + 1.0);
            assert!((first as f64 - expected).abs() < 1.0 + 1e-6, "{first}, not {expected}");
        }
    }

    #[test]
    fn the_first_that_is_used_up_ends_an_epoch_or_the_last() {
        let weights = || Weights::Given(vec![3.0.into(), 1.0.into()]);
        let length = |sizes: &[usize], stop, whole| {
            let strata = strata(sizes, weights(), stop);
            let quotas = Quotas::new(&strata, sizes.iter().sum(), 8, whole, 0).unwrap();
            quotas.length(0, quotas.sizes())
        };
        // 6 and 2 a mini-batch: 60 last for 10 of them, 100 for 50.
        assert_eq!(length(&[60, 100], Stop::First, false), 10);
        assert_eq!(length(&[60, 100], Stop::All, false), 50);
        assert_eq!(length(&[65, 99], Stop::First, false), 10);
        // Three of four mini-batches are of the first stratum, which has enough for seven.
        assert_eq!(length(&[60, 100], Stop::First, true), 9);
    }
}
