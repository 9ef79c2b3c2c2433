use rand::{Rng, RngExt};

/// Weights that are changed and picked from in O(log n): a binary tree of sums.
#[derive(Clone, Debug)]
pub(in crate::walk) struct Weights {
    /// The sum of all is at 1, those of a node's halves are at twice its place and after that.
    sums: Vec<u64>,
    /// How many leaves the tree has, a power of two.
    leaves: usize,
}

impl Weights {
    /// As many weights of 0.
    pub fn zeros(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        Self { sums: vec![0; 2 * leaves], leaves }
    }

    pub fn set(&mut self, at: usize, weight: u64) {
        let mut node = self.leaves + at;
        self.sums[node] = weight;
        while node > 1 {
            node /= 2;
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
        }
    }

    /// Picks a number in proportion to its weight; `None` if all weights are 0.
    pub fn pick(&self, generator: &mut impl Rng) -> Option<usize> {
        let sum = self.sums[1];
        let mut below = generator.random_range(0..sum.max(1));
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            if below >= self.sums[node] {
                below -= self.sums[node];
                node += 1;
            }
        }
        (sum > 0).then_some(node - self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    #[test]
    fn numbers_are_drawn_in_proportion_to_their_weights() {
        const PICKS: u32 = 40_000;
        for count in [1, 2, 3, 8, 11] {
            let mut weights = Weights::zeros(count);
            let mut generator = ChaCha8Rng::seed_from_u64(3);
            assert_eq!(weights.pick(&mut generator), None);
            (0..count).for_each(|at| weights.set(at, 9));
            (0..count).for_each(|at| weights.set(at, at as u64 % 4));
            let expected: Vec<_> = (0..count).map(|at| (at % 4) as f64).collect();
            let sum: f64 = expected.iter().sum();
            let mut times = vec![0u32; count];
            for _ in 0..PICKS {
                match weights.pick(&mut generator) {
                    Some(at) => times[at] += 1,
                    None => assert_eq!(sum, 0.0),
                }
            }
            for (times, weight) in times.into_iter().zip(expected) {
                let expected = f64::from(PICKS) * weight / sum.max(1.0);
                assert!((f64::from(times) - expected).abs() <= 5.0 * expected.sqrt(), "{times}, not about {expected}");
            }
        }
    }
}
