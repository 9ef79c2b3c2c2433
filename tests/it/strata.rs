//! Mini-batches take of each stratum what weights or `walk.same` ask for; against counting.

use std::collections::HashMap;
use std::sync::Arc;

use prosampler::config::{GuardsConfig, SamplerKind, Schedule, Stop, WalkConfig};
use prosampler::graph::ProximityGraph;
use prosampler::walk::{Draw, EpochSampler, Groups, Guards, Strata, Weighting, Weights};
use prosampler::{GraphVersion, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

const DEGREE: usize = 6;

/// Strata of these sizes over samples in random order, and a graph with neighbors of any stratum.
struct Data {
    strata: Strata,
    of: Vec<usize>,
    graph: ProximityGraph,
}

impl Data {
    fn new(sizes: &[usize], seed: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut values: Vec<u32> = sizes.iter().zip(0..).flat_map(|(&size, value)| vec![value; size]).collect();
        values.shuffle(&mut generator);
        let len = values.len();
        let neighbors = (0..len * DEGREE).map(|_| SampleId::new(generator.random_range(0..len))).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.0; len * DEGREE], DEGREE, GraphVersion(1)).unwrap();
        let strata = Strata::of_values(values);
        let of = (0..len).map(|id| strata.stratum(SampleId::new(id))).collect();
        Self { strata, of, graph }
    }

    fn weighted(self, weights: Vec<Schedule>, stop: Stop) -> Self {
        Self { strata: self.strata.with_weighting(Some(Weighting { weights: Weights::Given(weights), stop })), ..self }
    }

    fn len(&self) -> usize {
        self.of.len()
    }

    fn sizes(&self) -> Vec<usize> {
        (0..self.strata.len()).map(|stratum| self.strata.members(stratum).count()).collect()
    }

    /// How many samples of each stratum these are.
    fn counts(&self, ids: &[SampleId]) -> Vec<usize> {
        let mut counts = vec![0; self.strata.len()];
        ids.iter().for_each(|id| counts[self.of[id.index()]] += 1);
        counts
    }
}

fn sampler(data: &Data, strata: &Arc<Strata>, config: &WalkConfig, seed: u64, least: usize) -> EpochSampler {
    EpochSampler::new(data.len(), config, seed, 2).began_at_step(40).divided(Some(strata), least)
}

/// All mini-batches of an epoch, which are as many as announced, before each of them.
fn epoch(data: Data, config: &WalkConfig, seed: u64, least: usize) -> (Data, Vec<Draw>) {
    let Data { strata, of, graph } = data;
    let strata = Arc::new(strata);
    let data = Data { strata: Strata::of_values(of.iter().map(|&stratum| stratum as u32).collect()), of, graph };
    let mut epoch = sampler(&data, &strata, config, seed, least);
    let expected = epoch.mini_batches();
    let mut draws = Vec::new();
    while let Some(draw) = epoch.next(&data.graph) {
        assert_eq!(draw.counts.short, 0);
        let mut ids = draw.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), draw.ids.len(), "samples of a mini-batch are distinct");
        draws.push(draw);
        assert_eq!(epoch.mini_batches(), expected);
    }
    assert_eq!(draws.len() as u64, expected, "seed {seed}");
    (data, draws)
}

/// How often each sample came.
fn times(data: &Data, draws: &[Draw]) -> Vec<usize> {
    let mut times = vec![0; data.len()];
    draws.iter().flat_map(|draw| &draw.ids).for_each(|id| times[id.index()] += 1);
    times
}

fn random(seed: u64) -> (ChaCha8Rng, WalkConfig, Vec<usize>) {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let sampler = [SamplerKind::RandomWalk, SamplerKind::Knn, SamplerKind::Uniform][seed as usize % 3];
    let batch_size = generator.random_range(4..24);
    let starts = Schedule::Constant(f64::from(generator.random_range(1..4)));
    let random_share = Schedule::Constant(if seed.is_multiple_of(2) { 0.0 } else { 0.3 });
    let config = WalkConfig { batch_size, sampler, starts, random_share, ..WalkConfig::default() };
    let sizes = (0..generator.random_range(2..7)).map(|_| generator.random_range(25..160)).collect();
    (generator, config, sizes)
}

#[test]
fn a_mini_batch_has_one_value_and_an_epoch_every_sample() {
    for seed in 0..60 {
        let (mut generator, mut config, mut sizes) = random(seed);
        // Values that make no whole mini-batch, or none at all.
        sizes.extend([1, 2, 3]);
        config.same = Some("task".into());
        config.drop_last = generator.random_bool(0.3);
        let least = generator.random_range(1..4);
        let (data, draws) = epoch(Data::new(&sizes, seed), &config, seed, least);
        let rest = |size: usize| if config.drop_last { size % config.batch_size } else { 0 };
        for draw in &draws {
            let strata = data.counts(&draw.ids).iter().filter(|count| **count > 0).count();
            assert_eq!(strata, 1, "seed {seed}");
            assert!(draw.ids.len() >= least.max(2));
            assert!(!config.drop_last || draw.ids.len() == config.batch_size);
        }
        let times = times(&data, &draws);
        assert!(times.iter().all(|&times| times <= 1));
        for (stratum, size) in data.sizes().into_iter().enumerate() {
            let came = (0..data.len()).filter(|&id| data.of[id] == stratum && times[id] == 1).count();
            let last = size % config.batch_size;
            let expected = if last < least.max(2) { size - last } else { size - rest(size) };
            assert_eq!(came, expected, "seed {seed}: {size} samples");
        }
    }
}

#[test]
fn a_share_of_a_mini_batch_has_one_value() {
    for seed in 0..60 {
        let (mut generator, mut config, mut sizes) = random(seed);
        sizes.extend([1, 2]);
        config.same = Some("task".into());
        config.same_share = generator.random_range(0.3..0.9);
        let (data, draws) = epoch(Data::new(&sizes, seed), &config, seed, 1);
        assert!(times(&data, &draws).iter().all(|&times| times == 1), "seed {seed}");
        let places = (config.same_share * config.batch_size as f64).round() as usize;
        let mut left = data.sizes();
        for (number, draw) in draws.iter().enumerate() {
            assert!(draw.ids.len() == config.batch_size || number + 1 == draws.len());
            let counts = data.counts(&draw.ids);
            // Of some value it has what is asked for, or all that is left, or others were not there to fill it.
            let is_right = |(stratum, &count): (usize, &usize)| {
                let others: usize = left.iter().enumerate().filter(|(s, _)| *s != stratum).map(|(_, left)| left).sum();
                count == places.min(draw.ids.len()).min(left[stratum]).max(draw.ids.len().saturating_sub(others))
            };
            assert!(counts.iter().enumerate().any(is_right), "seed {seed}: {counts:?} of {left:?} for {places}");
            left.iter_mut().zip(&counts).for_each(|(left, count)| *left -= count);
        }
    }
}

/// What the weights ask for, by another way of counting: sums by exact arithmetic over whole numbers.
fn expected(weights: &[u64], step: u64, batch_size: usize) -> Vec<f64> {
    let sum: u64 = weights.iter().sum();
    weights.iter().map(|&weight| (step * batch_size as u64 * weight) as f64 / sum as f64).collect()
}

#[test]
fn shares_follow_weights_and_passes_are_whole() {
    for seed in 0..80 {
        let (mut generator, config, sizes) = random(seed);
        let stop = if generator.random_bool(0.5) { Stop::First } else { Stop::All };
        let weights: Vec<u64> = sizes.iter().map(|_| generator.random_range(1..9)).collect();
        let schedules = weights.iter().map(|&weight| Schedule::Constant(weight as f64)).collect();
        let data = Data::new(&sizes, seed);
        // Numbers of strata follow their first samples.
        let (data, draws) = epoch(data.weighted(schedules, stop), &config, seed, 1);
        let mut sums = vec![0; sizes.len()];
        for (step, draw) in (1..).zip(&draws) {
            assert_eq!(draw.ids.len(), config.batch_size);
            sums.iter_mut().zip(data.counts(&draw.ids)).for_each(|(sum, count)| *sum += count);
            for (sum, expected) in sums.iter().zip(expected(&weights, step, config.batch_size)) {
                assert!((*sum as f64 - expected).abs() < 1.0 + 1e-6, "seed {seed}: {sum}, not {expected}");
            }
        }
        let times = times(&data, &draws);
        for (stratum, (size, sum)) in data.sizes().into_iter().zip(&sums).enumerate() {
            let of = || (0..data.len()).filter(|&id| data.of[id] == stratum).map(|id| times[id]);
            assert_eq!(of().min().unwrap(), sum / size, "seed {seed}, {stop:?}: no sample waits for long");
            assert_eq!(of().max().unwrap(), sum.div_ceil(size), "seed {seed}, {stop:?}: no sample comes too often");
        }
        let is_all = times.iter().all(|&times| times >= 1);
        match stop {
            Stop::All => assert!(is_all, "seed {seed}"),
            Stop::First => assert!(times.iter().all(|&times| times <= 1), "seed {seed}"),
        }
        // One mini-batch more, or one less, would be against the rule.
        let after = expected(&weights, draws.len() as u64 + 1, config.batch_size);
        let sizes = data.sizes();
        let ends = after.iter().zip(&sizes).any(|(after, size)| *after > *size as f64 - 1.0);
        assert!(stop == Stop::All || ends, "seed {seed}: the epoch ends too early");
    }
}

#[test]
fn weights_with_mini_batches_of_one_source() {
    for seed in 0..40 {
        let (mut generator, mut config, sizes) = random(seed);
        config.same = Some("source".into());
        let stop = if generator.random_bool(0.5) { Stop::First } else { Stop::All };
        let weights: Vec<u64> = sizes.iter().map(|_| generator.random_range(1..5)).collect();
        let schedules = weights.iter().map(|&weight| Schedule::Constant(weight as f64)).collect();
        let (data, draws) = epoch(Data::new(&sizes, seed).weighted(schedules, stop), &config, seed, 1);
        let mut mini_batches = vec![0; sizes.len()];
        for (step, draw) in (1..).zip(&draws) {
            let counts = data.counts(&draw.ids);
            let stratum = counts.iter().position(|count| *count > 0).unwrap();
            assert_eq!(counts[stratum], config.batch_size, "seed {seed}");
            mini_batches[stratum] += 1;
            for (&number, expected) in mini_batches.iter().zip(expected(&weights, step, 1)) {
                assert!((f64::from(number) - expected).abs() < 1.0 + 1e-6, "seed {seed}");
            }
        }
        let times = times(&data, &draws);
        assert!(stop == Stop::First || times.iter().all(|&times| times >= 1), "seed {seed}");
        assert!(stop == Stop::All || times.iter().all(|&times| times <= 1), "seed {seed}");
    }
}

/// Weights that change come out as they are at each step.
#[test]
fn weights_change_by_step() {
    let weights = vec![Schedule::Steps { from: 3.0, to: 1.0, steps: 60 }, Schedule::Constant(1.0)];
    let data = Data::new(&[400, 400], 3).weighted(weights.clone(), Stop::First);
    let config = WalkConfig { batch_size: 10, ..WalkConfig::default() };
    let (data, draws) = epoch(data, &config, 3, 1);
    let mut sums = [0.0; 2];
    let mut found = [0.0; 2];
    for (step, draw) in (40..).zip(&draws) {
        let of = [weights[0].at(step, 2), weights[1].at(step, 2)];
        let counts = data.counts(&draw.ids);
        for stratum in 0..2 {
            sums[stratum] += 10.0 * of[stratum] / (of[0] + of[1]);
            found[stratum] += counts[stratum] as f64;
            assert!((sums[stratum] - found[stratum]).abs() < 1.0 + 1e-6, "step {step}");
        }
    }
    assert!(draws.len() > 30);
}

/// Whatever was drawn before, an epoch goes on from the samples that remain as if it had not ended.
#[test]
fn an_epoch_goes_on_from_what_remains() {
    for seed in 0..24 {
        let (mut generator, mut config, sizes) = random(seed);
        let data = Data::new(&sizes, seed);
        let weights = sizes.iter().map(|_| Schedule::Constant(generator.random_range(0.2..3.0))).collect();
        let data = match seed % 4 {
            0 => {
                config.same = Some("task".into());
                data
            }
            1 => {
                config.same = Some("task".into());
                config.same_share = 0.6;
                data
            }
            2 => data.weighted(weights, Stop::All),
            _ => data.weighted(weights, Stop::First),
        };
        let Data { strata, of, graph } = data;
        let strata = Arc::new(strata);
        let data = Data { strata: Strata::of_values(of.iter().map(|&s| s as u32).collect()), of, graph };
        let mut whole = sampler(&data, &strata, &config, seed, 1);
        for _ in 0..generator.random_range(1..12) {
            whole.next(&data.graph);
        }
        let left = whole.forget_order();
        let mut restored = EpochSampler::from_left(&left, &config, seed, 2).began_at_step(40).divided(Some(&strata), 1);
        assert_eq!(restored.mini_batches(), whole.mini_batches(), "seed {seed}");
        loop {
            let expected = whole.next(&data.graph);
            assert_eq!(restored.next(&data.graph), expected, "seed {seed}");
            if expected.is_none() {
                break;
            }
        }
    }
}

/// Guards hold within shares, negatives are of the same stratum, and what is kept out is counted.
#[test]
fn guards_hold_and_negatives_are_alike() {
    for seed in 0..30 {
        let (_, mut config, sizes) = random(seed);
        config.negatives = 2;
        config.sampler = SamplerKind::RandomWalk;
        if seed % 2 == 0 {
            config.same = Some("task".into());
        }
        let mut data = Data::new(&sizes, seed);
        if seed % 2 == 1 {
            data = data.weighted(vec![Schedule::Constant(1.0); sizes.len()], Stop::All);
        }
        let Data { strata, of, graph } = data;
        let strata = Arc::new(strata);
        let data = Data { strata: Strata::of_values(of.iter().map(|&s| s as u32).collect()), of, graph };
        let guards = GuardsConfig { skip_nearest: 2, ..GuardsConfig::default() };
        let guards = Guards::of_groups(&guards, Arc::new(Groups::default()));
        let mut epoch = sampler(&data, &strata, &config, seed, 1);
        let announced = epoch.mini_batches();
        let mut times: HashMap<SampleId, usize> = HashMap::new();
        let mut count = 0;
        while let Some(draw) = epoch.next_guarded(&data.graph, &guards) {
            count += 1;
            for (place, id) in draw.ids.iter().enumerate() {
                *times.entry(*id).or_default() += 1;
                assert!(data.graph.neighbors(*id)[..2].iter().all(|near| !draw.ids.contains(near) || near == id));
                for negative in draw.negatives[place * 2..][..2].iter().flatten() {
                    assert_eq!(data.of[negative.index()], data.of[id.index()], "seed {seed}");
                }
            }
        }
        assert!(count <= announced && count + 4 > announced, "seed {seed}: {count} of {announced}");
        assert!(config.same.is_none() || times.values().all(|&times| times == 1));
    }
}
