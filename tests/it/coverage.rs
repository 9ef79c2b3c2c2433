//! Every sample is drawn exactly once an epoch, on every graph, and no walk hangs.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use prosampler::config::{Coverage, SamplerKind, WalkConfig};
use prosampler::graph::{self, ProximityGraph};
use prosampler::walk::{EpochSampler, WalkCounts, mini_batches_per_epoch};
use prosampler::{GraphVersion, SampleId};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::{graph_config, table, walk_config};

/// A graph in which edge e of sample i leads to `next(i, e)`.
fn handmade(len: usize, degree: usize, next: impl Fn(usize, usize) -> usize) -> ProximityGraph {
    let neighbors: Vec<_> = (0..len).flat_map(|i| (0..degree).map(move |e| (i, e))).collect();
    let neighbors: Vec<_> = neighbors.into_iter().map(|(i, e)| SampleId::new(next(i, e))).collect();
    let similarities = vec![0.5; neighbors.len()];
    ProximityGraph::new(neighbors, similarities, degree, GraphVersion(1)).unwrap()
}

fn adversarial(kind: usize, len: usize) -> ProximityGraph {
    match kind {
        // The samples of a pair are neighbors of each other alone.
        0 => handmade(len, 1, |i, _| (i ^ 1).min(len - 1)),
        // A star: all edges lead to the first sample.
        1 => handmade(len, 3, |_, _| 0),
        // Every sample is isolated: its only neighbor is itself.
        2 => handmade(len, 2, |i, _| i),
        // A line that ends at the last sample.
        3 => handmade(len, 1, |i, _| (i + 1).min(len - 1)),
        // A graph of embeddings.
        _ => graph::build(&table(len, 6, 4, 1), &graph_config(20, 5), 1, GraphVersion(1)).unwrap(),
    }
}

fn sampler() -> impl Strategy<Value = SamplerKind> {
    use SamplerKind::{Clusters, Communities, Knn, RandomWalk, Uniform};
    prop_oneof![Just(RandomWalk), Just(Knn), Just(Uniform), Just(Communities), Just(Clusters)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_sample_exactly_once(
        kind in 0usize..5,
        len in 2usize..300,
        batch_size in 2usize..80,
        restart_probability in prop_oneof![Just(0.0), Just(0.1), Just(0.999_999)],
        drop_last in any::<bool>(),
        sampler in sampler(),
        seed in any::<u64>(),
    ) {
        let graph = adversarial(kind, len);
        let restart_probability = Some(restart_probability.into());
        let config = WalkConfig { batch_size, restart_probability, drop_last, sampler, ..WalkConfig::default() };
        let mut epoch = EpochSampler::new(len, &config, seed, 3);
        let mut seen = HashSet::new();
        let mut count = 0;
        while let Some(draw) = epoch.next(&graph) {
            count += 1;
            let rest = len - seen.len();
            prop_assert_eq!(draw.ids.len(), batch_size.min(rest));
            for id in draw.ids {
                prop_assert!(id.index() < len);
                prop_assert!(seen.insert(id), "{} came twice", id);
            }
        }
        let expected = if drop_last { len / batch_size * batch_size } else { len };
        prop_assert_eq!(seen.len(), expected);
        prop_assert_eq!(count, mini_batches_per_epoch(len, &config));
    }
}

/// If no edge leads to another sample, the counters of new starts and uniform top-ups say how mini-batches were filled.
#[test]
fn isolated_samples_are_reached_by_new_starts_and_counted() {
    let graph = adversarial(2, 1000);
    let mut epoch = EpochSampler::new(1000, &walk_config(100), 5, 0);
    let mut counts = WalkCounts::default();
    while let Some(draw) = epoch.next(&graph) {
        assert!(draw.counts.moves <= 100 * 256);
        counts += draw.counts;
    }
    assert!(counts.new_starts + counts.uniform_top_ups >= 980, "{counts:?}");
}

/// The leaves of a star are in no neighbor list, but walks reach them over reverse edges from the hub.
#[test]
fn leaves_of_a_star_are_found() {
    let graph = adversarial(1, 1000);
    let mut epoch = EpochSampler::new(1000, &walk_config(50), 5, 0);
    let mut counts = WalkCounts::default();
    // The first mini-batch is drawn without reverse edges.
    drop(epoch.next(&graph));
    while let Some(draw) = epoch.next(&graph) {
        counts += draw.counts;
    }
    assert_eq!((epoch.left(), counts.new_starts, counts.uniform_top_ups), (0, 0, 0), "{counts:?}");
}

/// Late mini-batches are hard too: the last quarter of an epoch keeps most of the similarity that the first quarter has
/// above chance.
#[test]
fn an_epoch_stays_hard_to_its_end() {
    let table = table(20_000, 16, 40, 3);
    let graph = graph::build(&table, &graph_config(1000, 24), 1, GraphVersion(1)).unwrap();
    let quarters = |sampler| {
        let mut epoch = EpochSampler::new(20_000, &WalkConfig { sampler, ..walk_config(100) }, 3, 0);
        let draws = std::iter::from_fn(|| epoch.next(&graph));
        let all: Vec<_> = draws.map(|draw| f64::from(table.mean_similarity(&draw.ids))).collect();
        [&all[..50], &all[150..]].map(|part| part.iter().sum::<f64>() / 50.0)
    };
    let ([first, last], [chance, _]) = (quarters(SamplerKind::RandomWalk), quarters(SamplerKind::Uniform));
    assert!(first > chance + 0.1, "{first} and {chance}");
    assert!(last - chance > 0.7 * (first - chance), "{first}, {last} and {chance}");
}

/// The share of restarts among all moves is α.
#[test]
fn restarts_come_with_their_probability() {
    let graph = adversarial(4, 4000);
    let config = WalkConfig { restart_probability: Some(0.3.into()), ..walk_config(200) };
    let mut epoch = EpochSampler::new(4000, &config, 11, 0);
    let mut counts = WalkCounts::default();
    while let Some(draw) = epoch.next(&graph) {
        counts += draw.counts;
    }
    let (n, share) = (counts.moves as f64, counts.restarts as f64 / counts.moves as f64);
    // Four standard deviations of a binomial share.
    assert!((share - 0.3).abs() < 4.0 * (0.3 * 0.7 / n).sqrt(), "{share} of {n}");
}

#[test]
fn walks_stay_among_neighbors() {
    // There is no edge between the two halves, so a mini-batch that fits into one half stays in it.
    let half = 500;
    let graph = handmade(2 * half, 4, |i, e| i / half * half + (i * 7 + e * 13 + 1) % half);
    let draw = EpochSampler::new(2 * half, &walk_config(100), 1, 0).next(&graph).unwrap();
    let side = draw.ids[0].index() / half;
    assert!(draw.ids.iter().all(|id| id.index() / half == side));
    assert_eq!((draw.counts.new_starts, draw.counts.uniform_top_ups), (0, 0));
}

/// The paper's loop and ours find the same samples equally often, and the same ones last. On a graph that looks the
/// same from every sample, only a sample's offset from the start matters.
#[test]
fn walks_find_what_the_papers_loop_finds() {
    const LEN: usize = 400;
    const OFFSETS: [usize; 5] = [1, 7, 20, 53, 399];
    const SIZE: usize = 40;
    const SEEDS: u64 = 20_000;
    let graph = handmade(LEN, OFFSETS.len(), |i, e| (i + OFFSETS[e]) % LEN);
    let paper = |seed| {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let start = SampleId::new(generator.random_range(0..LEN));
        let (mut place, mut found) = (start, vec![start]);
        while found.len() < SIZE {
            if generator.random_bool(0.1) {
                place = start;
            } else {
                place = graph.neighbors(place)[generator.random_range(0..OFFSETS.len())];
                if !found.contains(&place) {
                    found.push(place);
                }
            }
        }
        found
    };
    let ours = |seed| EpochSampler::new(LEN, &walk_config(SIZE), seed, 0).next(&graph).unwrap().ids;
    let count = |draw: &dyn Fn(u64) -> Vec<SampleId>| {
        let mut times = vec![0u32; 2 * LEN];
        for seed in 0..SEEDS {
            let ids = draw(seed);
            let away = |id: &SampleId| (id.index() + LEN - ids[0].index()) % LEN;
            ids.iter().for_each(|id| times[away(id)] += 1);
            times[LEN + away(&ids[SIZE - 1])] += 1;
        }
        times
    };
    for (cell, (&a, &b)) in count(&ours).iter().zip(&count(&paper)).enumerate() {
        // Counts are binomial: five standard deviations of the difference, and one more for rare cells.
        let share = f64::from(a + b) / (2 * SEEDS) as f64;
        let deviation = (2.0 * SEEDS as f64 * share * (1.0 - share)).sqrt();
        let difference = (f64::from(a) - f64::from(b)).abs();
        assert!(difference <= 5.0 * deviation + 1.0, "cell {cell}: {a} and {b}, {deviation} expected");
    }
}

/// On a small graph, linear equations give the probability of every mini-batch in its order.
#[test]
fn mini_batches_have_their_exact_probabilities() {
    const LEN: usize = 7;
    const SIZE: usize = 4;
    const ALPHA: f64 = 0.3;
    const SEEDS: u64 = 100_000;
    const NEXT: [[usize; 3]; LEN] = [[1, 2, 3], [0, 2, 2], [0, 4, 1], [5, 6, 0], [0, 0, 5], [3, 6, 4], [2, 1, 3]];
    /// The probabilities of the next sample that joins, for a walk that began at `found[0]` and is at `found[from]`.
    fn meets(found: &[usize]) -> Vec<[f64; LEN]> {
        let mut met = vec![[0.0; LEN]; found.len()];
        for _ in 0..400 {
            met = found
                .iter()
                .map(|&place| {
                    let mut first = [0.0; LEN];
                    for (share, from) in [(ALPHA, found[0]), (1.0 - ALPHA, place)] {
                        for to in NEXT[from] {
                            match found.iter().position(|&other| other == to) {
                                Some(at) => (0..LEN).for_each(|x| first[x] += share / 3.0 * met[at][x]),
                                None => first[to] += share / 3.0,
                            }
                        }
                    }
                    first
                })
                .collect();
        }
        met
    }
    fn all(found: &[usize], probability: f64, laws: &mut HashMap<Vec<usize>, f64>) {
        if found.len() == SIZE {
            laws.insert(found.to_vec(), probability);
            return;
        }
        let met = meets(found)[found.len() - 1];
        for next in (0..LEN).filter(|next| met[*next] > 0.0) {
            all(&[found, &[next]].concat(), probability * met[next], laws);
        }
    }
    let mut laws = HashMap::new();
    (0..LEN).for_each(|start| all(&[start], 1.0 / LEN as f64, &mut laws));
    assert!((laws.values().sum::<f64>() - 1.0).abs() < 1e-9);

    let graph = handmade(LEN, 3, |i, e| NEXT[i][e]);
    let config = WalkConfig { restart_probability: Some(ALPHA.into()), ..walk_config(SIZE) };
    let mut times: HashMap<Vec<usize>, u64> = HashMap::new();
    for seed in 0..SEEDS {
        let draw = EpochSampler::new(LEN, &config, seed, 0).next(&graph).unwrap();
        *times.entry(draw.ids.iter().map(|id| id.index()).collect()).or_default() += 1;
    }
    assert!(times.keys().all(|draw| laws.contains_key(draw)));
    for (draw, law) in laws {
        // Counts are binomial: five standard deviations, and one more for rare mini-batches.
        let (expected, found) = (SEEDS as f64 * law, times.get(&draw).copied().unwrap_or(0) as f64);
        let bound = 5.0 * (expected * (1.0 - law)).sqrt() + 1.0;
        assert!((found - expected).abs() <= bound, "{draw:?}: {found} of {expected}");
    }
}

/// The kNN sampler goes breadth first, most similar neighbors first. In a star each leaf has only the hub.
#[test]
fn knn_takes_the_nearest_first() {
    let graph = adversarial(4, 300);
    let config = WalkConfig { sampler: SamplerKind::Knn, ..walk_config(20) };
    let draw = EpochSampler::new(300, &config, 4, 0).next(&graph).unwrap();
    let mut expected = vec![draw.ids[0]];
    for at in 0..20 {
        for neighbor in graph.neighbors(expected[at]) {
            if !expected.contains(neighbor) {
                expected.push(*neighbor);
            }
        }
    }
    assert_eq!(draw.ids, expected[..20]);
    assert_eq!(draw.counts.new_starts, 0);
    let draw = EpochSampler::new(300, &config, 4, 0).next(&adversarial(1, 300)).unwrap();
    assert!((18..=19).contains(&draw.counts.new_starts), "{:?}", draw.counts);
}

/// With the paper's coverage every sample but possibly one is drawn at least once, and mini-batches may repeat samples.
#[test]
fn the_papers_coverage_repeats_samples_until_all_were_drawn() {
    let graph = graph::build(&table(190, 6, 4, 9), &graph_config(20, 6), 9, GraphVersion(1)).unwrap();
    for (batch_size, drop_last) in [(19, false), (24, false), (24, true), (27, false)] {
        let config = WalkConfig { coverage: Coverage::Paper, drop_last, ..walk_config(batch_size) };
        let mut epoch = EpochSampler::new(190, &config, 5, 0);
        let (mut times, mut sizes) = (vec![0; 190], Vec::new());
        while let Some(draw) = epoch.next(&graph) {
            let fresh = draw.ids.iter().filter(|id| times[id.index()] == 0).count();
            // A walk starts at a sample that was not drawn yet, and the last mini-batch may have only that one.
            assert_eq!(times[draw.ids[0].index()], 0);
            assert!(draw.ids.len() == batch_size || fresh == draw.ids.len());
            draw.ids.iter().for_each(|id| times[id.index()] += 1);
            sizes.push(draw.ids.len());
        }
        let missed = times.iter().filter(|&&n| n == 0).count();
        assert!(missed <= if drop_last { 190 % batch_size } else { usize::from(190 % batch_size > 0) }, "{missed}");
        assert!(sizes.len() as u64 > 2 * mini_batches_per_epoch(190, &config), "{sizes:?}");
        assert!(sizes[..sizes.len() - 1].iter().all(|&size| size == batch_size));
    }
}
