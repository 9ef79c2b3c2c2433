//! Guards are never violated, refuse no sample without need, and leave out no sample that a later mini-batch can take.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use prosampler::arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use prosampler::arrow::datatypes::Int32Type;
use prosampler::config::{Coverage, GuardsConfig, SamplerKind, Similarity, Storage, StoreConfig, WalkConfig, WarmUp};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{self, ProximityGraph};
use prosampler::source::MemorySource;
use prosampler::store::{Key, Store};
use prosampler::walk::{Draw, EpochSampler, Groups, Guards, WalkCounts, mini_batches_per_epoch};
use prosampler::{GraphVersion, ModelVersion, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::{graph_config, vectors, walk_config};

const DIMENSION: usize = 6;

/// The content of some columns, then the values of others.
fn keys(content: &[String], distinct: &[String]) -> Vec<Key> {
    let content = Key::Content(content.iter().map(|column| column.as_str().into()).collect());
    std::iter::once(content).chain(distinct.iter().cloned().map(Key::Value)).collect()
}

/// Samples with a content, a label that may be null, and a list of tags each, and vectors for them.
struct Data {
    contents: Vec<u32>,
    labels: Vec<Option<u32>>,
    tags: Vec<Vec<u32>>,
    table: Arc<EmbeddingTable>,
    pairs: Option<Vec<f32>>,
    graph: ProximityGraph,
    groups: Arc<Groups>,
}

impl Data {
    fn new(kind: usize, len: usize, classes: u32, storage: Storage, pairs: bool, seed: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        // Kind 5: all samples have one value.
        let contents: Vec<_> = (0..len as u32)
            .map(|i| {
                if kind == 5 {
                    0
                } else if i % 7 == 3 {
                    i - 1
                } else {
                    i
                }
            })
            .collect();
        let labels: Vec<_> =
            (0..len).map(|_| generator.random_bool(0.9).then(|| generator.random_range(0..classes))).collect();
        let tags: Vec<Vec<u32>> = (0..len)
            .map(|_| (0..generator.random_range(0..3)).map(|_| generator.random_range(0..3 * classes)).collect())
            .collect();
        let each = vectors(len, DIMENSION, 4, seed);
        let mut flat: Vec<f32> =
            contents.iter().flat_map(|&c| each[c as usize * DIMENSION..][..DIMENSION].to_vec()).collect();
        let mut table =
            EmbeddingTable::with_capacity(len, DIMENSION, storage, Similarity::Cosine, ModelVersion(1)).unwrap();
        table.push(&mut flat).unwrap();
        let pairs = pairs.then(|| (0..len).map(|_| generator.random_range(-0.2..1.0f32)).collect::<Vec<_>>());
        table.push_pair_similarities(pairs.as_deref().unwrap_or_default());
        let degree = 6.min(len - 1);
        let handmade = |next: &dyn Fn(usize, usize) -> usize| {
            let neighbors = (0..len * degree).map(|at| SampleId::new(next(at / degree, at % degree)));
            ProximityGraph::new(neighbors.collect(), vec![0.5; len * degree], degree, GraphVersion(1)).unwrap()
        };
        let graph = match kind {
            // Small islands; a star; samples that are their own only neighbors; a line that ends.
            0 => handmade(&|i, e| (i / 4 * 4 + (i + e) % 4).min(len - 1)),
            1 => handmade(&|_, e| e),
            2 => handmade(&|i, _| i),
            3 => handmade(&|i, e| (i + e + 1).min(len - 1)),
            _ => graph::build(&table, &graph_config(20, 6), seed, GraphVersion(1)).unwrap(),
        };
        let columns: [(&str, ArrayRef); 3] = [
            ("content", Arc::new(StringArray::from_iter_values(contents.iter().map(u32::to_string)))),
            ("label", Arc::new(Int32Array::from_iter(labels.iter().map(|l| l.map(|l| l as i32))))),
            (
                "tags",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                    tags.iter().map(|tags| Some(tags.iter().map(|&tag| Some(tag as i32)))),
                )),
            ),
        ];
        let source = MemorySource::new(vec![RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let names = ["content", "label", "tags"].map(str::to_owned);
        let store = runtime.block_on(Store::build(&source, &names, &StoreConfig::default(), &mut |_| {})).unwrap();
        let groups = Groups::of(&store, &keys(&names[..1], &names[1..])).unwrap().into();
        Self { contents, labels, tags, table: table.into(), pairs, graph, groups }
    }

    fn guards(&self, config: &GuardsConfig) -> Guards {
        Guards::new(config, self.groups.clone(), self.table.clone())
    }

    /// Whether two samples must not come together, by the definitions of the settings.
    fn conflict(&self, config: &GuardsConfig, a: SampleId, b: SampleId) -> bool {
        let (i, j) = (a.index(), b.index());
        let similarity = f64::from(self.table.similarity_of(a, b));
        let first = |id: SampleId| &self.graph.neighbors(id)[..config.skip_nearest.min(self.graph.degree())];
        let relative = |share: f64, i: usize| {
            let pair = self.pairs.as_ref().map_or(0.0, |pairs| pairs[i]);
            pair > 0.0 && similarity >= share * f64::from(pair)
        };
        self.contents[i] == self.contents[j]
            || (self.labels[i].is_some() && self.labels[i] == self.labels[j])
            || self.tags[i].iter().any(|tag| self.tags[j].contains(tag))
            || config.max_similarity.is_some_and(|bound| similarity > bound)
            || config.duplicate_similarity.is_some_and(|bound| similarity >= bound)
            || config.max_relative_to_positive.is_some_and(|share| relative(share, i) || relative(share, j))
            || first(a).contains(&b)
            || first(b).contains(&a)
    }

    /// The first two that must not come together.
    fn violation(&self, config: &GuardsConfig, draw: &Draw) -> Option<(SampleId, SampleId)> {
        let members = draw.ids.iter().enumerate();
        let together = members.flat_map(|(at, &a)| draw.ids[at + 1..].iter().map(move |&b| (a, b)));
        let negatives = draw.ids.iter().flat_map(|&a| draw.negatives.iter().flatten().map(move |&b| (a, b)));
        together.chain(negatives).find(|&(a, b)| a == b || self.conflict(config, a, b))
    }
}

fn bound(range: std::ops::Range<f64>) -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), range.prop_map(Some)]
}

/// All samplers with all that they cover: blocks of a partition come exactly once.
fn samplers() -> impl Strategy<Value = (SamplerKind, Coverage)> {
    use SamplerKind::{Clusters, Communities, Knn, RandomWalk, Uniform};
    let any_coverage = prop_oneof![Just(RandomWalk), Just(Knn), Just(Uniform)];
    let coverage = prop_oneof![3 => Just(Coverage::Exact), 1 => Just(Coverage::Paper)];
    let exact = prop_oneof![Just(Communities), Just(Clusters)];
    prop_oneof![3 => (any_coverage, coverage), 2 => (exact, Just(Coverage::Exact))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_guard_is_ever_violated(
        (kind, len, classes, seed) in (0usize..6, 3usize..200, 2u32..60, any::<u64>()),
        (batch_size, negatives, drop_last) in (2usize..40, 0usize..3, any::<bool>()),
        restart_probability in prop_oneof![Just(0.0), Just(0.1), Just(0.999)],
        (sampler, coverage) in samplers(),
        storage in prop_oneof![Just(Storage::F32), Just(Storage::F16), Just(Storage::I8)],
        (max_similarity, duplicate_similarity) in (bound(0.2..1.0), bound(0.8..1.0)),
        (max_relative_to_positive, skip_nearest) in (bound(0.3..1.2), 0usize..8),
        (starts, random_share) in (1u8..5, prop_oneof![Just(0.0), Just(0.3)]),
        warm_up in prop_oneof![3 => Just(None), 1 => Just(Some(WarmUp::Steps(2)))],
    ) {
        let data = Data::new(kind, len, classes, storage, max_relative_to_positive.is_some(), seed);
        let guards = GuardsConfig {
            max_similarity, duplicate_similarity, max_relative_to_positive, skip_nearest, ..GuardsConfig::default()
        };
        let restart_probability = Some(restart_probability.into());
        let starts = f64::from(starts).into();
        let random_share = random_share.into();
        let config = WalkConfig {
            batch_size, sampler, restart_probability, coverage, negatives, drop_last, starts, random_share, warm_up,
            ..WalkConfig::default()
        };
        let mut epoch = EpochSampler::new(len, &config, seed, 0);
        let (applied, mut seen, mut count) = (data.guards(&guards), HashSet::new(), 0);
        while let Some(draw) = epoch.next_guarded(&data.graph, &applied) {
            count += 1;
            prop_assert!(!drop_last || draw.ids.len() == batch_size);
            prop_assert_eq!(data.violation(&guards, &draw), None);
            let fresh = draw.ids.iter().filter(|id| seen.insert(**id)).count();
            let expected = if coverage == Coverage::Exact { draw.ids.len() } else { 1 };
            prop_assert!(fresh >= expected, "{} of {:?} are fresh", fresh, draw);
            prop_assert_eq!(epoch.left(), len - seen.len());
            // All samples were looked at before a place was left empty, since there are fewer than 64 B.
            if draw.counts.short > 0 && coverage == Coverage::Exact {
                let stays = (0..len).map(SampleId::new).find(|id| {
                    !seen.contains(id) && !draw.ids.iter().any(|&member| data.conflict(&guards, *id, member))
                });
                prop_assert!(stays.is_none_or(|_| 64 * batch_size < len), "{:?} could have come", stays);
            }
            prop_assert_eq!(draw.negatives.len(), draw.ids.len() * negatives);
            let drawn: Vec<_> = draw.negatives.iter().flatten().collect();
            let unlike = drawn.iter().collect::<HashSet<_>>().len();
            prop_assert_eq!(unlike + draw.counts.negatives_repeated as usize, drawn.len());
        }
        if coverage == Coverage::Exact {
            prop_assert!(count <= mini_batches_per_epoch(len, &config));
        }
    }

    /// Before there is a graph, the guards of groups hold all the same, and those by similarity wait.
    #[test]
    fn guards_of_groups_hold_without_a_graph(
        (len, classes, seed) in (3usize..200, 2u32..60, any::<u64>()),
        (batch_size, negatives, drop_last) in (2usize..40, 0usize..3, any::<bool>()),
    ) {
        let data = Data::new(4, len, classes, Storage::F32, false, seed);
        let by_groups = GuardsConfig::default();
        let with_bounds = GuardsConfig { max_similarity: Some(-1.0), skip_nearest: 5, ..by_groups.clone() };
        let config = WalkConfig { batch_size, negatives, drop_last, ..WalkConfig::default() };
        let guards = Guards::of_groups(&by_groups, data.groups.clone());
        let waiting = Guards::of_groups(&with_bounds, data.groups.clone());
        let mut epoch = EpochSampler::new(len, &config, seed, 0);
        let mut again = EpochSampler::new(len, &config, seed, 0);
        let mut seen = HashSet::new();
        while let Some(draw) = epoch.next_uniform(&guards) {
            prop_assert_eq!(data.violation(&by_groups, &draw), None);
            prop_assert!(draw.ids.iter().all(|id| seen.insert(*id)));
            prop_assert!(draw.counts.uniform_draws as usize <= draw.ids.len());
            prop_assert_eq!((draw.counts.moves, draw.counts.negatives_topped_up), (0, 0));
            prop_assert_eq!(Some(draw), again.next_uniform(&waiting));
        }
        prop_assert!(epoch.drawn() <= mini_batches_per_epoch(len, &config));
    }

    /// If no value has more samples than an epoch has mini-batches, every sample is drawn, because mini-batches begin
    /// with samples of large groups.
    #[test]
    fn distinct_values_leave_nobody_out(
        (batches, batch_size, missing) in (2usize..20, 2usize..24, 0usize..20),
        (sampler, _) in samplers(),
        seed in any::<u64>(),
    ) {
        let len = batches * batch_size - missing.min(batch_size - 1);
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::new();
        for value in 0.. {
            values.extend(std::iter::repeat_n(value, generator.random_range(1..=batches)));
            if values.len() >= len {
                break;
            }
        }
        values.truncate(len);
        let column: ArrayRef = Arc::new(Int32Array::from(values.clone()));
        let source = MemorySource::new(vec![RecordBatch::try_from_iter([("value", column)]).unwrap()]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let names = vec!["value".to_owned()];
        let store = runtime.block_on(Store::build(&source, &names, &StoreConfig::default(), &mut |_| {})).unwrap();
        let groups = Groups::of(&store, &keys(&[], &names)).unwrap();
        let table = Arc::new(crate::support::table(len, DIMENSION, 4, seed));
        let degree = 5.min(len - 1);
        let graph = graph::build(&table, &graph_config(20.max(degree), degree), 1, GraphVersion(1)).unwrap();
        let guards = Guards::new(&GuardsConfig::default(), groups.into(), table);
        let config = WalkConfig { sampler, ..walk_config(batch_size) };
        let mut epoch = EpochSampler::new(len, &config, seed, 0);
        let mut count = 0;
        while let Some(draw) = epoch.next_guarded(&graph, &guards) {
            count += 1;
            let unlike: HashSet<_> = draw.ids.iter().map(|id| values[id.index()]).collect();
            prop_assert_eq!(unlike.len(), draw.ids.len());
        }
        prop_assert_eq!((epoch.left(), count), (0, batches as u64));
    }

    /// Two lists are the same content if they are equal as a whole; one common item is not enough.
    #[test]
    fn lists_are_copies_only_as_wholes(len in 2usize..60, items in 1usize..4, values in 1i32..6, seed in any::<u64>()) {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let lists: Vec<Vec<_>> =
            (0..len).map(|_| (0..items).map(|_| Some(generator.random_range(0..values))).collect()).collect();
        let column: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists.iter().cloned().map(Some)));
        let source = MemorySource::new(vec![RecordBatch::try_from_iter([("list", column)]).unwrap()]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let names = vec!["list".to_owned()];
        let store = runtime.block_on(Store::build(&source, &names, &StoreConfig::default(), &mut |_| {})).unwrap();
        let groups = Groups::of(&store, &keys(&names, &names)).unwrap();
        for i in 0..len {
            for j in 0..i {
                let shared = |key: usize| {
                    let of = |i| groups.groups_of(SampleId::new(i)).iter().filter(|g| groups.of_key(key).contains(*g));
                    of(i).any(|group| of(j).any(|other| other == group))
                };
                prop_assert_eq!(shared(0), lists[i] == lists[j]);
                prop_assert_eq!(shared(1), lists[i].iter().any(|item| lists[j].contains(item)));
            }
        }
    }

    /// Groups are compared with a comparison of all pairs.
    #[test]
    fn groups_are_the_samples_that_share_a_value(len in 1usize..60, classes in 1u32..40, seed in any::<u64>()) {
        let data = Data::new(2, len.max(2), classes, Storage::F32, false, seed);
        let shares: [&dyn Fn(usize, usize) -> bool; 3] = [
            &|i, j| data.contents[i] == data.contents[j],
            &|i, j| data.labels[i].is_some() && data.labels[i] == data.labels[j],
            &|i, j| data.tags[i].iter().any(|tag| data.tags[j].contains(tag)),
        ];
        for (key, shares) in shares.into_iter().enumerate() {
            for i in 0..len.max(2) {
                let groups = data.groups.groups_of(SampleId::new(i)).iter().filter(|g| data.groups.of_key(key).contains(g));
                let members: HashSet<_> = groups.flat_map(|&g| data.groups.members(g)).map(|id| id.index()).collect();
                let expected: HashSet<_> = (0..len.max(2)).filter(|&j| shares(i, j)).collect();
                // A sample whose values no other has is in no group.
                prop_assert!(members == expected || (members.is_empty() && expected.len() <= 1));
            }
        }
    }
}

/// Each guard counts its refusals in a counter of its own.
#[test]
fn refusals_are_counted_by_guard() {
    let data = Data::new(4, 180, 8, Storage::F32, true, 3);
    let nothing = GuardsConfig::default();
    let total = |config: GuardsConfig, groups: &Arc<Groups>| {
        let guards = Guards::new(&config, groups.clone(), data.table.clone());
        let mut epoch = EpochSampler::new(180, &walk_config(6), 1, 0);
        let mut counts = WalkCounts::default();
        while let Some(draw) = epoch.next_guarded(&data.graph, &guards) {
            counts += draw.counts;
        }
        counts
    };
    let none = Arc::new(Groups::default());
    assert_eq!(total(nothing.clone(), &none).refused(), 0);
    let counts = total(nothing.clone(), &data.groups);
    assert!(counts.refused_duplicates > 0 && counts.refused_distinct > 0, "{counts:?}");
    assert_eq!(counts.refused(), counts.refused_duplicates + counts.refused_distinct);
    let counts = total(GuardsConfig { max_similarity: Some(0.5), ..nothing.clone() }, &none);
    assert!(counts.refused_similar > 0 && counts.refused() == counts.refused_similar, "{counts:?}");
    let counts = total(GuardsConfig { duplicate_similarity: Some(0.9), ..nothing.clone() }, &none);
    assert!(counts.refused_duplicates > 0 && counts.refused() == counts.refused_duplicates, "{counts:?}");
    let counts = total(GuardsConfig { max_relative_to_positive: Some(0.9), ..nothing.clone() }, &none);
    assert!(counts.refused_relative > 0 && counts.refused() == counts.refused_relative, "{counts:?}");
    let counts = total(GuardsConfig { skip_nearest: 3, ..nothing }, &none);
    assert!(counts.refused_nearest > 0 && counts.refused() == counts.refused_nearest, "{counts:?}");
}
