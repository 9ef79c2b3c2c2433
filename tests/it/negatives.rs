//! Explicit negatives by rank and margin, against a loop over the neighbors.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use prosampler::config::{
    CheckpointConfig, GraphConfig, GuardsConfig, NegativeChoice, RefreshConfig, SamplerKind, StreamConfig, WalkConfig,
};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{self, ProximityGraph};
use prosampler::walk::{Draw, EpochSampler, Groups, Guards};
use prosampler::{Error, GraphVersion, MiniBatch, MiniBatchStream, PipelineBuilder, SampleId, State};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{assert_says, graph_config, pipeline, table, walk_config};

/// Vectors with the similarity of each sample's own pair, some below 0, and their graph.
fn data(len: usize, degree: usize, seed: u64) -> (Arc<EmbeddingTable>, ProximityGraph) {
    let mut table = table(len, 6, 5, seed);
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let pairs: Vec<f32> = (0..len).map(|_| generator.random_range(-0.2..1.0)).collect();
    table.push_pair_similarities(&pairs);
    let graph = graph::build(&table, &graph_config(40.max(degree), degree), 1, GraphVersion(1)).unwrap();
    (Arc::new(table), graph)
}

/// Whether margins allow a negative of a sample.
fn is_apart(table: &EmbeddingTable, config: &WalkConfig, id: SampleId, other: SampleId) -> bool {
    let (own, similarity) = (f64::from(table.pair_similarity(id).unwrap()), f64::from(table.similarity_of(id, other)));
    config.negative_absolute_margin.is_none_or(|margin| similarity <= own - margin)
        && config.negative_relative_margin.is_none_or(|margin| similarity <= own - own.abs() * margin)
}

/// Checks the negatives of a mini-batch, sample by sample, as they are found.
fn check(
    draw: &Draw,
    table: &EmbeddingTable,
    graph: &ProximityGraph,
    config: &WalkConfig,
) -> Result<(), TestCaseError> {
    let (mut topped_up, mut repeated) = (0, 0);
    let mut used: HashSet<SampleId> = draw.ids.iter().copied().collect();
    prop_assert_eq!(draw.negatives.len(), draw.ids.len() * config.negatives);
    for (&id, negatives) in draw.ids.iter().zip(draw.negatives.chunks(config.negatives)) {
        let [first, end] = config.negative_ranks.unwrap_or_default();
        let (nearest, ranked) = (&graph.neighbors(id)[..first], &graph.neighbors(id)[first..end]);
        let is_free = |other: &&SampleId| !used.contains(other) && is_apart(table, config, id, **other);
        let ranked: Vec<Option<SampleId>> = ranked.iter().filter(is_free).copied().map(Some).collect();
        let (by_rank, others) = negatives.split_at(ranked.len().min(config.negatives));
        match config.negative_choice {
            NegativeChoice::Top => prop_assert_eq!(by_rank, &ranked[..by_rank.len()]),
            NegativeChoice::Random => {
                prop_assert!(by_rank.iter().all(|negative| ranked.contains(negative)));
                prop_assert_eq!(by_rank.iter().collect::<HashSet<_>>().len(), by_rank.len());
            }
        }
        used.extend(by_rank.iter().flatten());
        for &other in others.iter().flatten() {
            prop_assert!(is_apart(table, config, id, other) && !nearest.contains(&other));
            *(if used.insert(other) { &mut topped_up } else { &mut repeated }) += 1;
        }
    }
    prop_assert_eq!(draw.counts.negatives_repeated, repeated);
    if config.negative_ranks.is_some() {
        prop_assert_eq!(draw.counts.negatives_topped_up, topped_up);
    }
    Ok(())
}

fn margin() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), (-0.1..0.6).prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn negatives_have_an_allowed_rank_and_margin_or_are_counted(
        (len, batch_size, negatives, seed) in (30usize..250, 2usize..20, 1usize..4, any::<u64>()),
        ranks in prop_oneof![
            1 => Just(None),
            3 => (0usize..10, 3usize..10).prop_map(|(first, count)| Some([first, first + count])),
        ],
        is_top in any::<bool>(),
        (negative_absolute_margin, negative_relative_margin) in (margin(), margin()),
        sampler in prop_oneof![Just(SamplerKind::RandomWalk), Just(SamplerKind::Knn), Just(SamplerKind::Uniform)],
    ) {
        let (table, graph) = data(len, 20, seed);
        let is_top = is_top && ranks.is_some();
        let config = WalkConfig {
            sampler,
            negatives,
            negative_ranks: ranks,
            negative_choice: if is_top { NegativeChoice::Top } else { NegativeChoice::Random },
            negative_absolute_margin,
            negative_relative_margin,
            ..walk_config(batch_size)
        };
        let guards = Guards::new(&GuardsConfig::default(), Arc::new(Groups::default()), table.clone());
        let mut epoch = EpochSampler::new(len, &config, seed, 0);
        let mut again = epoch.clone();
        while let Some(draw) = epoch.next_guarded(&graph, &guards) {
            check(&draw, &table, &graph, &config)?;
            prop_assert_eq!(Some(draw), again.next_guarded(&graph, &guards));
        }
    }
}

/// Random choices reach all ranks alike, and others in another epoch.
#[test]
fn random_negatives_are_of_all_ranks() {
    let (table, graph) = data(2000, 20, 5);
    let config = WalkConfig { negatives: 2, negative_ranks: Some([4, 12]), ..walk_config(10) };
    let guards = Guards::new(&GuardsConfig::default(), Arc::new(Groups::default()), table);
    let negatives_of = |epoch| {
        let mut epoch = EpochSampler::new(2000, &config, 3, epoch);
        let draws = std::iter::from_fn(|| epoch.next_guarded(&graph, &guards));
        let pairs =
            |draw: Draw| draw.ids.into_iter().zip(draw.negatives.chunks(2).map(<[_]>::to_vec).collect::<Vec<_>>());
        let mut negatives: Vec<_> = draws.flat_map(pairs).collect();
        negatives.sort_unstable();
        negatives
    };
    let (one, other) = (negatives_of(0), negatives_of(1));
    let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
    assert!(same < 200, "{same} of 2,000 are the same");
    let mut counts = [0; 20];
    for (id, negatives) in one {
        let rank = |other| graph.neighbors(id).iter().position(|neighbor| Some(*neighbor) == other);
        negatives.into_iter().filter_map(rank).for_each(|rank| counts[rank] += 1);
    }
    println!("{counts:?}");
    // Each rank has 500 if none is taken; the nearer ones are more often in the mini-batch already.
    assert!(counts[4..12].iter().all(|count| (250..750).contains(count)), "{counts:?}");
    assert!(counts[..4].iter().all(|count| *count == 0), "{counts:?}");
}

fn builder(walk: WalkConfig) -> PipelineBuilder {
    pipeline(500, 20).walk(WalkConfig { batch_size: 20, negatives: 2, ..walk })
}

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<(Vec<SampleId>, Vec<Option<SampleId>>)> {
    let seen = |mini_batch: MiniBatch| (mini_batch.ids, mini_batch.negatives);
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_has_the_same_negatives() {
    let dir = TempDir::new().unwrap();
    let builder = |folder: &str, choice| {
        builder(WalkConfig { negative_ranks: Some([2, 8]), negative_choice: choice, ..WalkConfig::default() })
            .refresh(RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() })
            .stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(dir.path().join(folder)), ..CheckpointConfig::default() })
    };
    for choice in [NegativeChoice::Random, NegativeChoice::Top] {
        let name = format!("{choice:?}");
        let whole = take(&mut builder(&format!("{name} whole"), choice).start().await.unwrap(), usize::MAX).await;
        assert_eq!(whole.len(), 50);
        let mut stream = builder(&name, choice).start().await.unwrap();
        let mut all = take(&mut stream, 17).await;
        let state: State = stream.state();
        drop(stream);
        all.extend(take(&mut builder(&name, choice).resume(state).start().await.unwrap(), usize::MAX).await);
        assert!(all == whole, "{name}");
    }
}

/// Ranks that only the finished graph shows to be beyond its neighbors.
#[tokio::test]
async fn ranks_beyond_the_graph_are_refused_with_the_remedy() {
    let walk = WalkConfig { negative_ranks: Some([3, 30]), ..WalkConfig::default() };
    let config = GraphConfig { candidates: 40.into(), ..GraphConfig::default() };
    let refused = builder(walk).graph(config).start().await;
    let Err(error @ Error::Config(_)) = refused else { panic!("it starts, or fails otherwise") };
    assert_says(
        &error.to_string(),
        &["walk.negative_ranks", "[3, 30]", "have 5 neighbors", "raise graph.neighbors to 30"],
    );
}
