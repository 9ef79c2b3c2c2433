//! Guards are never violated, refuse no sample without need, and leave out no sample that a later mini-batch can take.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use proptest::prelude::*;
use prosampler::arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use prosampler::arrow::datatypes::Int32Type;
use prosampler::config::{
    CheckpointConfig, Coverage, GuardsConfig, RefreshConfig, SamplerKind, Similarity, Storage, StoreConfig,
    StreamConfig, WalkConfig, WarmUp,
};
use prosampler::embeddings::EmbeddingTable;
use prosampler::error::ColumnError;
use prosampler::graph::{self, ProximityGraph};
use prosampler::source::MemorySource;
use prosampler::store::{Key, Store};
use prosampler::walk::Groups;
use prosampler::walk::{Draw, EpochSampler, Guards, WalkCounts, mini_batches_per_epoch};
use prosampler::{Error, GraphVersion, ModelVersion, Pipeline, PipelineBuilder, PipelineConfig, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{TestEncoder, graph_config, path, rows, vectors, walk_config, write_parquet};

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
        let restart_probability = restart_probability.into();
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

const SAMPLES: usize = 700;

/// Rows of which each three share a group, embedded and guarded, with refreshes at known steps and negatives.
fn guarded(dir: Option<&std::path::Path>) -> PipelineBuilder {
    let batch = rows(SAMPLES);
    let thirds: ArrayRef = Arc::new(Int32Array::from_iter_values((0..SAMPLES as i32).map(|i| i / 3)));
    let columns = [("n", batch["n"].clone()), ("text", batch["text"].clone()), ("third", thirds)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    Pipeline::builder()
        .source(MemorySource::new(vec![batch]).unwrap())
        .encoder(TestEncoder::new(SAMPLES))
        .graph(graph_config(40, 10))
        .walk(WalkConfig { negatives: 2, ..walk_config(24) })
        .guards(GuardsConfig {
            distinct: vec!["third".into()],
            max_similarity: Some(0.97),
            skip_nearest: 1,
            ..GuardsConfig::default()
        })
        .refresh(RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() })
        .stream(StreamConfig { epochs: 2, prefetch: 3, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: dir.map(Into::into), ..CheckpointConfig::default() })
        .seed(7)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_run_is_resumed_bit_for_bit() {
    let whole: Vec<_> = guarded(None).start().await.unwrap().try_collect().await.unwrap();
    assert!(whole.len() >= 58, "{}", whole.len());
    for mini_batch in &whole {
        let thirds: HashSet<_> = mini_batch.ids.iter().map(|id| id.index() / 3).collect();
        assert_eq!(thirds.len(), mini_batch.ids.len());
        assert!(mini_batch.negatives.iter().flatten().all(|id| !thirds.contains(&(id.index() / 3))));
    }
    let mut generator = ChaCha8Rng::seed_from_u64(2);
    let dir = TempDir::new().unwrap();
    let (mut all, mut state) = (Vec::new(), None);
    loop {
        let builder = guarded(Some(dir.path()));
        let mut stream = match state.take() {
            Some(state) => builder.resume(state),
            None => builder,
        }
        .start()
        .await
        .unwrap();
        let before = all.len();
        for _ in 0..generator.random_range(1..15) {
            all.extend(stream.try_next().await.unwrap());
        }
        state = Some(stream.state());
        if all.len() == before {
            break;
        }
    }
    let ids =
        |all: &[prosampler::MiniBatch]| all.iter().map(|m| (m.ids.clone(), m.negatives.clone())).collect::<Vec<_>>();
    assert!(ids(&all) == ids(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_values_are_refused_and_too_few_places_are_counted() {
    let labelled = |values: i32, batch_size: usize| {
        let batch = rows(SAMPLES);
        let labels: ArrayRef = Arc::new(Int32Array::from_iter_values((0..SAMPLES as i32).map(|i| i % values)));
        let batch = RecordBatch::try_from_iter([("n", batch["n"].clone()), ("label", labels)]).unwrap();
        Pipeline::builder()
            .source(MemorySource::new(vec![batch]).unwrap())
            .encoder(TestEncoder::new(SAMPLES))
            .graph(graph_config(40, 10))
            .walk(walk_config(batch_size))
            .guards(GuardsConfig { distinct: vec!["label".into()], ..GuardsConfig::default() })
    };
    match labelled(5, 24).start().await {
        Err(error @ Error::Config(_)) => {
            let message = error.to_string();
            assert!(message.contains("`label` has 5 values") && message.contains("walk.batch_size to 5"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let missing = labelled(5, 4).guards(GuardsConfig { distinct: vec!["labels".into()], ..GuardsConfig::default() });
    assert!(matches!(missing.start().await, Err(Error::Column(ColumnError::Missing { .. }))));
    // With 5 labels of 140 samples each and 175 mini-batches of 4, all samples are drawn.
    let mut stream = labelled(5, 4).start().await.unwrap();
    let mut samples = 0;
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        samples += mini_batch.ids.len();
    }
    assert_eq!((samples, stream.delivered(), stream.counts().unplaced), (SAMPLES, 175, 0));
    // If a label has half of the samples, and mini-batches are of 4, half of these have no place.
    let batch = rows(SAMPLES);
    let labels: ArrayRef =
        Arc::new(Int32Array::from_iter_values((0..SAMPLES as i32).map(|i| if i % 2 == 0 { -1 } else { i })));
    let batch = RecordBatch::try_from_iter([("n", batch["n"].clone()), ("label", labels)]).unwrap();
    let source = MemorySource::new(vec![batch]).unwrap();
    let mut stream = labelled(5, 4).source(source).start().await.unwrap();
    let mut samples = 0;
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        samples += mini_batch.ids.len();
    }
    assert_eq!(stream.counts().unplaced, (SAMPLES - samples) as u64);
    // One is in every mini-batch until the 350 others are used up, three at a time.
    assert_eq!((samples, stream.delivered()), (350 + 117, 117));
}

/// If one label has half of the rows, mini-batches stay short. A warning says so once, and the empty places are counted
/// in each mini-batch and in total.
#[tokio::test(flavor = "multi_thread")]
async fn short_mini_batches_are_warned_of_and_counted() {
    let dir = TempDir::new().unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..120).map(|i| format!("a text about number {i}"))));
    let labels: ArrayRef = Arc::new(Int32Array::from_iter_values((0..120).map(|i| if i < 60 { -1 } else { i })));
    let batch = RecordBatch::try_from_iter([("text", texts), ("label", labels)]).unwrap();
    write_parquet(&dir.path().join("rows.parquet"), &batch, 120);
    let text = format!(
        "source.uri = 'rows.parquet'\nencode = {{ model = '{}', column = 'text' }}\n\
         graph = {{ candidates = 60, neighbors = 8 }}\nguards.distinct = ['label']\n\
         walk = {{ batch_size = 8, restart_probability = 0.99 }}\nstream.epochs = 3\n",
        path("data/models/gloss-encoder/model.onnx").display()
    );
    let file = dir.path().join("p.toml");
    std::fs::write(&file, text).unwrap();

    let mut stream = Pipeline::from_config(PipelineConfig::from_file(&file).unwrap()).start().await.unwrap();
    let (mut counts, mut short) = (WalkCounts::default(), 0);
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        assert_eq!(mini_batch.counts.short as usize, 8 - mini_batch.ids.len());
        assert!(mini_batch.counts.refused_distinct > 0 || mini_batch.ids.len() == 8, "{:?}", mini_batch.counts);
        short += u64::from(mini_batch.counts.short > 0);
        counts += mini_batch.counts;
    }
    assert_eq!(stream.counts().walks, counts);
    assert!(short > 1 && counts.refused() == counts.refused_distinct + counts.refused_duplicates, "{counts:?}");

    let command = std::process::Command::new(env!("CARGO_BIN_EXE_prosampler")).arg("run").arg(&file).output().unwrap();
    let [said, warned] = [command.stdout, command.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(warned.matches("guards left a mini-batch short").count(), 1, "{warned}");
    let empty = format!(
        "{} with the same value, 0 nearest, 0 similar, 0 relative to pairs; {} places left empty",
        counts.refused_distinct, counts.short
    );
    assert!(said.contains(&empty), "{empty} is missing in {said}");
}

/// With the paper's coverage every sample but possibly one is drawn at least once, and mini-batches may repeat samples.
#[test]
fn the_papers_coverage_repeats_samples_until_all_were_drawn() {
    let data = Data::new(4, 190, 1000, Storage::F32, false, 9);
    for (batch_size, drop_last) in [(19, false), (24, false), (24, true), (27, false)] {
        let config = WalkConfig { coverage: Coverage::Paper, drop_last, ..walk_config(batch_size) };
        let mut epoch = EpochSampler::new(190, &config, 5, 0);
        let (mut times, mut sizes) = (vec![0; 190], Vec::new());
        while let Some(draw) = epoch.next(&data.graph) {
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
