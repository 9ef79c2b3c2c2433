//! The dials that shape a mini-batch: at the paper's values they change nothing, elsewhere they do what they say.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use prosampler::config::{Coverage, GuardsConfig, SamplerKind, Schedule, Similarity, WalkConfig, WarmUp};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{self, ProximityGraph};
use prosampler::walk::{Draw, EpochSampler, Feedback, Groups, Guards, WalkCounts, mini_batches_per_epoch};
use prosampler::{GraphVersion, ModelVersion, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::{graph_config, table, vectors, walk_config};

const LEN: usize = 700;
const DEGREE: usize = 10;

/// A random graph in which low ids are hubs.
fn random_graph(len: usize, seed: u64) -> ProximityGraph {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let neighbor = |_| SampleId::new((generator.random::<f64>().powi(2) * len as f64) as usize);
    let neighbors = (0..len * DEGREE).map(neighbor).collect();
    ProximityGraph::new(neighbors, vec![0.5; len * DEGREE], DEGREE, GraphVersion(1)).unwrap()
}

fn checksum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0xcbf2_9ce4_8422_2325, |sum, number| (sum ^ number).wrapping_mul(0x0100_0000_01b3))
}

/// All ids and negatives of an epoch as one number.
fn checksum_of(draws: &[Draw]) -> u64 {
    checksum(draws.iter().flat_map(|draw| {
        let ids = draw.ids.iter().map(|id| u64::from(id.0));
        let negatives = draw.negatives.iter().map(|id| id.map_or(u64::MAX, |id| u64::from(id.0)));
        ids.chain(negatives).chain([draw.counts.moves, draw.counts.uniform_top_ups])
    }))
}

/// With one walk, no random share and no warm-up, the dials change nothing: these numbers are of a walk without them.
#[test]
fn at_the_papers_values_mini_batches_are_the_papers() {
    const EXPECTED: [u64; 8] = [
        768_361_370_199_609_931,
        11_629_484_386_635_294_329,
        14_299_457_290_424_327_372,
        12_863_993_706_600_162_641,
        11_122_950_157_661_293_899,
        14_172_303_781_319_503_758,
        16_219_513_174_847_533_805,
        9_403_321_656_874_729_860,
    ];
    let graph = random_graph(LEN, 3);
    let table = EmbeddingTable::new(vectors(LEN, 4, 5, 3), 4, Similarity::Cosine, ModelVersion(1)).unwrap();
    let config = GuardsConfig { skip_nearest: 2, ..GuardsConfig::default() };
    let guards = Guards::new(&config, Arc::new(Groups::default()), Arc::new(table));
    let mut found = Vec::new();
    for sampler in [SamplerKind::RandomWalk, SamplerKind::Knn] {
        for coverage in [Coverage::Exact, Coverage::Paper] {
            for guarded in [false, true] {
                let config = WalkConfig { batch_size: 32, sampler, coverage, negatives: 2, ..WalkConfig::default() };
                let mut epoch = EpochSampler::new(LEN, &config, 11, 2);
                let draws: Vec<_> =
                    std::iter::from_fn(
                        || {
                            if guarded { epoch.next_guarded(&graph, &guards) } else { epoch.next(&graph) }
                        },
                    )
                    .collect();
                found.push(checksum_of(&draws));
            }
        }
    }
    assert_eq!(found, EXPECTED);
}

/// Guards that need the graph and the embeddings.
fn guards_by_similarity(len: usize, seed: u64) -> Guards {
    let config = GuardsConfig { skip_nearest: 1, max_similarity: Some(0.95), ..GuardsConfig::default() };
    Guards::new(&config, Arc::new(Groups::default()), Arc::new(table(len, 4, 5, seed)))
}

/// Schedules of starts up to 6 and of shares, constant and moving.
fn schedules() -> impl Strategy<Value = (Schedule, Schedule)> {
    let starts = prop_oneof![
        (1u8..6).prop_map(|starts| Schedule::Constant(f64::from(starts))),
        (1u64..9).prop_map(|steps| Schedule::Steps { from: 6.0, to: 1.0, steps }),
        (1u64..9).prop_map(|epochs| Schedule::Epochs { from: 1.0, to: 5.0, epochs }),
    ];
    let share = prop_oneof![
        prop_oneof![Just(0.0), Just(0.3), Just(1.0)].prop_map(Schedule::Constant),
        (1u64..9).prop_map(|steps| Schedule::Steps { from: 1.0, to: 0.1, steps }),
    ];
    (starts, share)
}

fn warm_up() -> impl Strategy<Value = Option<WarmUp>> {
    prop_oneof![
        3 => Just(None),
        2 => (1u64..12).prop_map(|steps| Some(WarmUp::Steps(steps))),
        1 => (1u64..4).prop_map(|epochs| Some(WarmUp::Epochs(epochs))),
    ]
}

fn sampler() -> impl Strategy<Value = SamplerKind> {
    use SamplerKind::{Clusters, Communities, Knn, RandomWalk, Uniform};
    prop_oneof![Just(RandomWalk), Just(Knn), Just(Uniform), Just(Communities), Just(Clusters)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Sizes, coverage and the counter of uniform draws are as the settings say, at every step.
    #[test]
    fn every_sample_comes_once_at_any_dial(
        (len, batch_size, drop_last, negatives) in (2usize..160, 6usize..40, any::<bool>(), 0usize..2),
        (starts, random_share) in schedules(),
        (sampler, warm_up) in (sampler(), warm_up()),
        (seed, epoch, began_at) in (any::<u64>(), 0u64..5, 0u64..9),
    ) {
        let graph = random_graph(len, seed);
        let config = WalkConfig {
            batch_size, drop_last, negatives, starts, random_share, sampler, warm_up, ..WalkConfig::default()
        };
        let mut sampler = EpochSampler::new(len, &config, seed, epoch).began_at_step(began_at);
        let mut again = sampler.clone();
        let mut seen = HashSet::new();
        for step in began_at.. {
            prop_assert_eq!(sampler.step(), step);
            let rest = len - seen.len();
            let draw = sampler.next(&graph);
            prop_assert_eq!(&draw, &again.next(&graph));
            let Some(draw) = draw else { break };
            let size = draw.ids.len();
            prop_assert_eq!(size, batch_size.min(rest));
            prop_assert!(draw.ids.iter().all(|&id| id.index() < len && seen.insert(id)));
            let is_warm_up = warm_up.is_some_and(|warm_up| warm_up.lasts(step, epoch));
            let uniform = match config.sampler {
                SamplerKind::Uniform => 0,
                _ if is_warm_up => size,
                _ => (random_share.at(step, epoch) * size as f64).round() as usize,
            };
            prop_assert_eq!(draw.counts.uniform_draws as usize, uniform, "at step {}", step);
            prop_assert!(!is_warm_up || draw.counts.moves == 0);
            let walked = size - uniform;
            prop_assert!(config.sampler != SamplerKind::RandomWalk || draw.counts.moves <= 256 * walked as u64);
        }
        let expected = if drop_last { len / batch_size * batch_size } else { len };
        prop_assert_eq!(seen.len(), expected);
        prop_assert_eq!(sampler.drawn(), mini_batches_per_epoch(len, &config));
    }

    /// An epoch that is interrupted after any step, and restored from what was left, goes on as if it were not.
    #[test]
    fn an_epoch_can_be_restored_at_every_step(
        (len, batch_size, negatives) in (20usize..150, 6usize..24, 0usize..2),
        (starts, random_share) in schedules(),
        (sampler, warm_up) in (sampler(), warm_up()),
        coverage in prop_oneof![3 => Just(Coverage::Exact), 1 => Just(Coverage::Paper)],
        (seed, fed_share) in (any::<u64>(), prop_oneof![Just(None), Just(Some(0.4))]),
    ) {
        let graph = random_graph(len, seed);
        let guards = guards_by_similarity(len, seed);
        let config = WalkConfig {
            batch_size, negatives, starts, random_share, sampler, warm_up, coverage, ..WalkConfig::default()
        };
        let feed = |sampler: &mut EpochSampler| {
            if let Some(share) = fed_share {
                sampler.set_random_share(share);
            }
        };
        for steps in 0..12 {
            let mut sampler = EpochSampler::new(len, &config, seed, 2).began_at_step(5);
            feed(&mut sampler);
            (0..steps).for_each(|_| _ = sampler.next_guarded(&graph, &guards));
            let left = sampler.forget_order();
            let mut restored = EpochSampler::from_left(&left, &config, seed, 2).began_at_step(5);
            feed(&mut restored);
            for _ in 0..40 {
                let expected = sampler.next_guarded(&graph, &guards);
                prop_assert_eq!(&restored.next_guarded(&graph, &guards), &expected, "after {} steps", steps);
                if expected.is_none() {
                    break;
                }
            }
        }
    }
}

/// A random share of 1, a warm-up, and mini-batches without a graph are those of the uniform sampler.
#[test]
fn a_share_of_one_and_a_warm_up_are_uniform() {
    let graph = random_graph(LEN, 3);
    let nothing = Guards::of_groups(&GuardsConfig::default(), Arc::new(Groups::default()));
    for coverage in [Coverage::Exact, Coverage::Paper] {
        let config = WalkConfig { coverage, ..walk_config(50) };
        let uniform = WalkConfig { sampler: SamplerKind::Uniform, ..config.clone() };
        let mut expected = EpochSampler::new(LEN, &uniform, 4, 0);
        let mut shared = EpochSampler::new(LEN, &WalkConfig { random_share: 1.0.into(), ..config.clone() }, 4, 0);
        let warm_up = Some(WarmUp::Epochs(1));
        let mut warm = EpochSampler::new(LEN, &WalkConfig { warm_up, ..config.clone() }, 4, 0);
        let mut without_graph = EpochSampler::new(LEN, &config, 4, 0);
        for _ in 0..LEN / 50 {
            let ids = expected.next(&graph).unwrap().ids;
            assert_eq!(shared.next(&graph).unwrap().ids, ids);
            assert_eq!(warm.next(&graph).unwrap().ids, ids);
            assert_eq!(without_graph.next_uniform(&nothing).unwrap().ids, ids);
        }
    }
}

/// Walks begin at exactly the step that the warm-up says, in whatever epoch it lies.
#[test]
fn a_warm_up_ends_at_its_step() {
    let graph = random_graph(LEN, 3);
    for (warm_up, first_walk) in [(WarmUp::Steps(20), 20), (WarmUp::Steps(14), 14), (WarmUp::Epochs(2), 28)] {
        let config = WalkConfig { warm_up: Some(warm_up), ..walk_config(50) };
        let mut step = 0;
        for epoch in 0..4 {
            let mut sampler = EpochSampler::new(LEN, &config, 4, epoch).began_at_step(step);
            while let Some(draw) = sampler.next(&graph) {
                assert_eq!(draw.counts.moves > 0, step >= first_walk, "{warm_up:?} at step {step}");
                step += 1;
            }
        }
        assert_eq!(step, 56);
    }
}

/// Where there is no edge between islands, each walk stays on the island on which it began, and walks begin on islands
/// of their own by chance alone. Nearest first does the same.
#[test]
fn each_walk_fills_its_own_part() {
    const ISLAND: usize = 40;
    const STARTS: usize = 5;
    let len = 40 * ISLAND;
    let neighbors = (0..len * 4).map(|at| (at / 4, at % 4));
    let neighbors = neighbors.map(|(i, e)| SampleId::new(i / ISLAND * ISLAND + (i * 7 + e * 13 + 1) % ISLAND));
    let graph = ProximityGraph::new(neighbors.collect(), vec![0.5; len * 4], 4, GraphVersion(1)).unwrap();
    for sampler in [SamplerKind::RandomWalk, SamplerKind::Knn] {
        let config = WalkConfig { sampler, starts: (STARTS as f64).into(), ..walk_config(42) };
        let mut different = 0;
        for seed in 0..200 {
            let draw = EpochSampler::new(len, &config, seed, 0).next(&graph).unwrap();
            let mut islands = HashSet::new();
            let mut rest = &draw.ids[..];
            for size in [9, 9, 8, 8, 8] {
                let (part, others) = rest.split_at(size);
                rest = others;
                let island = part[0].index() / ISLAND;
                assert!(part.iter().all(|id| id.index() / ISLAND == island), "seed {seed}: {draw:?}");
                islands.insert(island);
            }
            assert_eq!((rest.len(), draw.counts.new_starts, draw.counts.uniform_top_ups), (0, 0, 0));
            different += islands.len();
        }
        // 40 islands and 5 starts, some of which meet: 4.76 islands are expected.
        let expected = 200.0 * 40.0 * (1.0 - (1.0f64 - 1.0 / 40.0).powi(STARTS as i32));
        assert!((different as f64 - expected).abs() < 35.0, "{different}, not about {expected}");
    }
}

/// On a graph without edges to others, walks use up their moves, which are in proportion to their places.
#[test]
fn walks_in_vain_end() {
    let graph =
        ProximityGraph::new((0..1000).map(SampleId::new).collect(), vec![0.0; 1000], 1, GraphVersion(1)).unwrap();
    let config = WalkConfig { starts: 7.0.into(), random_share: 0.25.into(), ..walk_config(100) };
    let mut epoch = EpochSampler::new(1000, &config, 5, 0);
    let mut counts = WalkCounts::default();
    while let Some(draw) = epoch.next(&graph) {
        assert!(draw.counts.moves <= 75 * 256 && draw.counts.uniform_draws == 25, "{:?}", draw.counts);
        counts += draw.counts;
    }
    // Each walk begins somewhere; all others of the walks' places come by new starts and top-ups.
    assert!(counts.new_starts + counts.uniform_top_ups >= 10 * (75 - 7), "{counts:?}");
}

/// With feedback, mini-batches of a real graph have the similarity that is asked for; out of reach, they say so.
#[test]
fn feedback_holds_the_similarity_of_a_real_graph() {
    const LEN: usize = 4000;
    const SIZE: usize = 40;
    let table = table(LEN, 8, 30, 3);
    let graph = graph::build(&table, &graph_config(400, 12), 1, GraphVersion(1)).unwrap();
    let mean = |config: &WalkConfig, mut feedback: Option<Feedback>| {
        let mut similarities = Vec::new();
        for epoch in 0..4 {
            let mut sampler = EpochSampler::new(LEN, config, 3, epoch);
            loop {
                feedback.iter().for_each(|feedback| sampler.set_random_share(feedback.random_share()));
                let Some(draw) = sampler.next(&graph) else { break };
                let similarity = f64::from(table.mean_similarity(&draw.ids));
                feedback.iter_mut().for_each(|feedback| feedback.observe(similarity));
                similarities.push(similarity);
            }
        }
        let late = &similarities[100..];
        (late.iter().sum::<f64>() / late.len() as f64, feedback)
    };
    let (hard, _) = mean(&walk_config(SIZE), None);
    let (uniform, _) = mean(&WalkConfig { sampler: SamplerKind::Uniform, ..walk_config(SIZE) }, None);
    assert!(hard > uniform + 0.1, "{hard} and {uniform}");
    for place in [0.25, 0.5, 0.75] {
        let target = uniform + place * (hard - uniform);
        let (found, feedback) = mean(&walk_config(SIZE), Some(Feedback::new(target)));
        assert!((found - target).abs() < 0.05 * (hard - uniform), "{found}, not {target}");
        assert!(!feedback.unwrap().is_at_bound());
    }
    for (target, share) in [(hard + 0.2, 0.0), (uniform - 0.2, 1.0)] {
        let (_, feedback) = mean(&walk_config(SIZE), Some(Feedback::new(target)));
        assert!(feedback.is_some_and(|feedback| feedback.is_at_bound() && feedback.random_share() == share));
    }
}
