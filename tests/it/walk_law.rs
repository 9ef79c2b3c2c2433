//! Several walks and uniform draws make mini-batches with the probabilities that linear equations give.

use std::collections::HashMap;

use prosampler::config::WalkConfig;
use prosampler::graph::ProximityGraph;
use prosampler::walk::EpochSampler;
use prosampler::{GraphVersion, SampleId};

use crate::support::walk_config;

/// On a small graph, linear equations give the probability of every mini-batch of two walks and a uniform draw.
#[test]
fn mini_batches_of_two_walks_have_their_exact_probabilities() {
    const SEEDS: u64 = 100_000;
    for (starts, random) in [(2, 0), (2, 1), (1, 1)] {
        let law = Law { starts, walked: SIZE - random };
        let mut laws = HashMap::new();
        law.all(&[], 1.0, &mut laws);
        assert!((laws.values().sum::<f64>() - 1.0).abs() < 1e-9);

        let neighbors = NEXT.iter().flatten().map(|&to| SampleId::new(to)).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.5; 3 * SMALL], 3, GraphVersion(1)).unwrap();
        let config = WalkConfig {
            restart_probability: Some(ALPHA.into()),
            starts: (starts as f64).into(),
            random_share: (random as f64 / SIZE as f64).into(),
            ..walk_config(SIZE)
        };
        let mut times: HashMap<Vec<usize>, u64> = HashMap::new();
        for seed in 0..SEEDS {
            let draw = EpochSampler::new(SMALL, &config, seed, 0).next(&graph).unwrap();
            *times.entry(draw.ids.iter().map(|id| id.index()).collect()).or_default() += 1;
        }
        assert!(times.keys().all(|ids| laws.contains_key(ids)));
        let (mut chi2, mut cells) = (0.0, 0.0);
        for (ids, law) in &laws {
            let expected = SEEDS as f64 * law;
            let found = times.get(ids).copied().unwrap_or(0) as f64;
            // Counts are binomial: six standard deviations, since there are thousands, and two more for rare ones.
            let bound = 6.0 * (expected * (1.0 - law)).sqrt() + 2.0;
            assert!((found - expected).abs() <= bound, "{starts} starts, {ids:?}: {found} of {expected}");
            if expected >= 5.0 {
                chi2 += (found - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        assert!(cells > 300.0);
        assert!((chi2 - cells).abs() < 5.0 * (2.0 * cells).sqrt(), "{starts} starts: {chi2} for {cells}");
    }
}

const SMALL: usize = 7;
const SIZE: usize = 5;
const ALPHA: f64 = 0.3;
const NEXT: [[usize; 3]; SMALL] = [[1, 2, 3], [0, 2, 2], [0, 4, 1], [5, 6, 0], [0, 0, 5], [3, 6, 4], [2, 1, 3]];

/// The law of mini-batches of `SIZE` samples, of which walks find the first ones.
struct Law {
    starts: usize,
    walked: usize,
}

impl Law {
    /// Adds the probabilities of all mini-batches that begin with `found`.
    fn all(&self, found: &[usize], probability: f64, laws: &mut HashMap<Vec<usize>, f64>) {
        if found.len() == SIZE {
            laws.insert(found.to_vec(), probability);
            return;
        }
        let next = self.next(found);
        for sample in (0..SMALL).filter(|&sample| next[sample] > 0.0) {
            self.all(&[found, &[sample]].concat(), probability * next[sample], laws);
        }
    }

    /// The probabilities of the sample that joins after `found`.
    fn next(&self, found: &[usize]) -> [f64; SMALL] {
        // The first parts are larger by one if sizes differ.
        let mut begins = vec![0];
        for number in 0..self.starts {
            let size = self.walked / self.starts + usize::from(number < self.walked % self.starts);
            begins.push(begins[number] + size);
        }
        if found.len() >= self.walked || begins.contains(&found.len()) {
            let rest = (SMALL - found.len()) as f64;
            return std::array::from_fn(|sample| if found.contains(&sample) { 0.0 } else { 1.0 / rest });
        }
        let begin = *begins.iter().rfind(|&&begin| begin < found.len()).unwrap();
        meets(found, found[begin])
    }
}

/// The probabilities of the first new sample that a walk meets which began at `start` and is at the last one found.
///
/// It passes through all that were found, whichever walk found them. Iteration solves the linear equations.
fn meets(found: &[usize], start: usize) -> [f64; SMALL] {
    let mut met = vec![[0.0; SMALL]; found.len()];
    for _ in 0..400 {
        let from_place = |&place: &usize| {
            let mut first = [0.0; SMALL];
            for (share, from) in [(ALPHA, start), (1.0 - ALPHA, place)] {
                for to in NEXT[from] {
                    match found.iter().position(|&other| other == to) {
                        Some(at) => (0..SMALL).for_each(|x| first[x] += share / 3.0 * met[at][x]),
                        None => first[to] += share / 3.0,
                    }
                }
            }
            first
        };
        met = found.iter().map(from_place).collect();
    }
    met[found.len() - 1]
}
