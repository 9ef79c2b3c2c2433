//! Several sources in one run: their rows, ids, weights, and what is wrong with them.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, UInt32Type};
use prosampler::config::{
    CheckpointConfig, MixtureConfig, NamedSource, PipelineConfig, Prefix, RefreshConfig, Schedule, SourceConfig, Stop,
    StoreConfig, StreamConfig, WalkConfig, WarmUp,
};
use prosampler::source::{MixtureSource, Source, contract};
use prosampler::store::Store;
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineBuilder, SampleId};
use tempfile::TempDir;

use crate::support::{TestEncoder, assert_says, graph_config, walk_config, write_parquet};

const BATCH_SIZE: usize = 16;

/// Rows with numbers that no two sources share, and a text each.
fn rows(numbers: std::ops::Range<u32>, names: [&str; 2]) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("text {n}"))));
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(numbers));
    RecordBatch::try_from_iter([(names[0], numbers), (names[1], texts)]).unwrap()
}

fn named(name: &str, dir: &Path) -> NamedSource {
    let uri = vec![dir.join(format!("{name}.parquet")).display().to_string()];
    NamedSource { name: name.into(), uri, ..NamedSource::default() }
}

/// Three sources of 60, 200 and 90 rows.
fn write_all(dir: &Path) {
    write_parquet(&dir.join("few.parquet"), &rows(0..60, ["n", "text"]), 25);
    write_parquet(&dir.join("many.parquet"), &rows(60..260, ["n", "text"]), 64);
    write_parquet(&dir.join("some.parquet"), &rows(260..350, ["n", "text"]), 90);
}

fn builder(sources: Vec<NamedSource>, mixture: MixtureConfig) -> PipelineBuilder {
    let config = PipelineConfig { sources, mixture, seed: 7, ..PipelineConfig::default() };
    Pipeline::from_config(config)
        .encoder(TestEncoder::new(400))
        .graph(graph_config(40, 8))
        .walk(walk_config(BATCH_SIZE))
}

fn weighted(dir: &Path, weights: [f64; 3]) -> Vec<NamedSource> {
    let names = ["few", "many", "some"];
    let source = |(name, weight): (&str, f64)| NamedSource { weight: Some(weight.into()), ..named(name, dir) };
    names.into_iter().zip(weights).map(source).collect()
}

async fn all(builder: PipelineBuilder) -> Vec<MiniBatch> {
    builder.start().await.unwrap().try_collect().await.unwrap()
}

fn texts(column: &ArrayRef) -> Vec<Option<String>> {
    let texts = cast(column, &DataType::Utf8).unwrap();
    texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn sources_of(mini_batch: &MiniBatch) -> Vec<String> {
    texts(&mini_batch.rows["source"]).into_iter().flatten().collect()
}

fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|of| *of == name).count()
}

async fn stored(source: &dyn Source, columns: &[&str], config: &StoreConfig) -> (Store, RecordBatch) {
    let columns: Vec<_> = columns.iter().map(|&column| column.to_owned()).collect();
    let store = Store::build(source, &columns, config, &mut |_| {}).await.unwrap();
    let ids: Vec<_> = (0..store.len()).map(SampleId::new).collect();
    let rows = store.gather(&ids).unwrap();
    (store, rows)
}

#[tokio::test]
async fn rows_come_under_their_names_with_their_prefixes() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("few.parquet"), &rows(0..5, ["n", "text"]), 3);
    let other = rows(5..9, ["number", "phrase"]);
    let hints: ArrayRef = Arc::new(StringArray::from(vec![Some("a "), None, Some("c "), Some("d ")]));
    let columns: Vec<_> =
        other.schema().fields().iter().map(|field| field.name().clone()).zip(other.columns().to_vec()).collect();
    let other = RecordBatch::try_from_iter(columns.into_iter().chain([("hint".to_owned(), hints)])).unwrap();
    write_parquet(&dir.path().join("other.parquet"), &other, 2);
    let few = NamedSource {
        filter: Some("n != 2".into()),
        prefix: [("text".to_owned(), Prefix::Text("few: ".into()))].into(),
        ..named("few", dir.path())
    };
    let other = NamedSource {
        rename: [("number".to_owned(), "n".to_owned()), ("phrase".to_owned(), "text".to_owned())].into(),
        prefix: [("text".to_owned(), Prefix::Column { column: "hint".into() })].into(),
        ..named("other", dir.path())
    };
    let source = MixtureSource::open(&[few, other], &SourceConfig::default()).await.unwrap();
    assert_eq!(contract::check(&source).await, Ok(()));
    let names: Vec<_> = source.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["n", "text", "source"], "`hint` is not in all");

    let (_, rows) = stored(&source, &["text", "source", "n"], &StoreConfig::default()).await;
    let texts = texts(&rows["text"]).into_iter().flatten().collect::<Vec<_>>();
    let expected = ["few: text 0", "few: text 1", "few: text 3", "few: text 4"];
    assert_eq!(texts, [&expected[..], &["a text 5", "text 6", "c text 7", "d text 8"]].concat());
    let numbers = rows["n"].as_primitive::<UInt32Type>();
    assert_eq!(numbers.values(), &[0, 1, 3, 4, 5, 6, 7, 8]);
    let (_, alone) = stored(&source, &["source"], &StoreConfig::default()).await;
    assert_eq!(alone["source"].as_ref(), rows["source"].as_ref());
}

/// Ids stay, and rows are read once, if a source is added anywhere behind the first.
#[tokio::test]
async fn ids_stay_as_sources_are_added() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    let config = StoreConfig { cache_dir: Some(dir.path().join("cache")), ..StoreConfig::default() };
    let open = |names: &'static [&str]| {
        let sources: Vec<_> = names.iter().map(|name| named(name, dir.path())).collect();
        async move { MixtureSource::open(&sources, &SourceConfig::default()).await.unwrap() }
    };
    let columns = ["n", "text", "source"];
    let (_, before) = stored(&open(&["few", "some"]).await, &columns, &config).await;
    assert_eq!(before.num_rows(), 150);
    let (store, after) = stored(&open(&["few", "many", "some"]).await, &columns, &config).await;
    assert_eq!(after.num_rows(), 350);
    assert_eq!(after.slice(0, 150), before);
    assert!(texts(&after.slice(150, 200)["source"]).iter().all(|name| name.as_deref() == Some("many")));

    // The same when a file comes to a source while the store is open.
    let folder = dir.path().join("few.parquet");
    let grown = store.grow(&open(&["few", "many", "some"]).await).await.unwrap();
    assert!(grown.is_none(), "{folder:?}");
    // Other names are other rows.
    let mut renamed = vec![named("few", dir.path()), named("many", dir.path())];
    renamed[1].prefix = [("text".to_owned(), Prefix::Text("x".into()))].into();
    let source = MixtureSource::open(&renamed, &SourceConfig::default()).await.unwrap();
    let (_, other) = stored(&source, &columns, &config).await;
    assert_eq!(texts(&other["text"])[60].as_deref(), Some("xtext 60"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_weights_an_epoch_has_every_row_once() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    let sources = ["few", "many", "some"].map(|name| named(name, dir.path())).to_vec();
    let mini_batches = all(builder(sources, MixtureConfig::default())).await;
    let mut ids: Vec<_> = mini_batches.iter().flat_map(|mini_batch| mini_batch.ids.clone()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..350).map(SampleId::new).collect::<Vec<_>>());
    for mini_batch in &mini_batches {
        let numbers = mini_batch.rows["n"].as_primitive::<UInt32Type>();
        for (number, name) in numbers.values().iter().zip(sources_of(mini_batch)) {
            let expected = ["few", "many", "some"][[60, 260].partition_point(|end| end <= number)];
            assert_eq!(name, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_shares_of_every_mini_batch() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    for (mixture, weights, per_epoch) in [
        // 4, 8 and 4 of 16: the 60 rows last for 15 mini-batches, the 200 for 25.
        (MixtureConfig::default(), Some([1.0, 2.0, 1.0]), 15),
        (MixtureConfig { stop: Stop::All, ..MixtureConfig::default() }, Some([1.0, 2.0, 1.0]), 25),
        // All alike: 5 1/3 of each.
        (MixtureConfig { temperature: Some(0.0), ..MixtureConfig::default() }, None, 11),
    ] {
        let sources = match weights {
            Some(weights) => weighted(dir.path(), weights),
            None => ["few", "many", "some"].map(|name| named(name, dir.path())).to_vec(),
        };
        let stream = StreamConfig { epochs: 2, ..StreamConfig::default() };
        let stream = builder(sources, mixture).stream(stream).start().await.unwrap();
        assert_eq!(stream.mini_batches_per_epoch(), per_epoch);
        let mini_batches: Vec<_> = stream.try_collect().await.unwrap();
        assert_eq!(mini_batches.len() as u64, 2 * per_epoch);
        let weights = weights.unwrap_or([1.0; 3]);
        for mini_batch in &mini_batches {
            let names = sources_of(mini_batch);
            for (name, weight) in ["few", "many", "some"].into_iter().zip(weights) {
                let expected = BATCH_SIZE as f64 * weight / weights.iter().sum::<f64>();
                assert!((count(&names, name) as f64 - expected).abs() < 1.0 + 1e-9);
            }
            // Every walk stays in its source: neighbors are of the same one.
            assert_eq!(mini_batch.counts.short, 0);
        }
    }
}

/// Neighbors are of the same source, and are the nearest of its candidates.
#[tokio::test]
async fn a_graph_is_built_within_each_source() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    let all_others = graph_config(1000, 8);
    let mut stream =
        builder(weighted(dir.path(), [1.0; 3]), MixtureConfig::default()).graph(all_others).start().await.unwrap();
    stream.try_next().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let source = |id: usize| [60, 260].partition_point(|end| *end <= id);
    for id in 0..350 {
        let mut expected: Vec<_> = (0..350)
            .filter(|&other| other != id && source(other) == source(id))
            .map(|other| (-snapshot.embeddings.similarity_of(SampleId::new(id), SampleId::new(other)), other))
            .collect();
        expected.sort_by(|a, b| a.0.total_cmp(&b.0));
        let found = snapshot.graph.similarities(SampleId::new(id));
        for (found, (expected, _)) in found.iter().zip(&expected) {
            assert!((found + expected).abs() < 1e-5);
        }
        let neighbors = snapshot.graph.neighbors(SampleId::new(id));
        assert!(neighbors.iter().all(|neighbor| source(neighbor.index()) == source(id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mini_batches_of_one_source() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    let sources = ["few", "many", "some"].map(|name| named(name, dir.path())).to_vec();
    let same = WalkConfig { same: Some("source".into()), ..walk_config(BATCH_SIZE) };
    let stream = builder(sources, MixtureConfig::default()).walk(same.clone()).start().await.unwrap();
    // 60, 200 and 90 rows.
    assert_eq!(stream.mini_batches_per_epoch(), 4 + 13 + 6);
    let mini_batches: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(mini_batches.len(), 23);
    let mut names = Vec::new();
    for mini_batch in &mini_batches {
        let mut of = sources_of(mini_batch);
        of.dedup();
        assert_eq!(of.len(), 1);
        names.extend(of);
    }
    names.dedup();
    assert!(names.len() > 6, "sources come in turn: {names:?}");

    // For four ranks, 60, 200 and 90 leave 12, 8 and 10, of which each rank gets its share.
    let mut ids = Vec::new();
    for rank in 0..4 {
        let sources = ["few", "many", "some"].map(|name| named(name, dir.path())).to_vec();
        let stream = StreamConfig { rank, world_size: 4, ..StreamConfig::default() };
        let stream =
            builder(sources, MixtureConfig::default()).walk(same.clone()).stream(stream).start().await.unwrap();
        assert_eq!(stream.mini_batches_per_epoch(), 23);
        let mini_batches: Vec<_> = stream.try_collect().await.unwrap();
        assert_eq!(mini_batches.len(), 23);
        ids.extend(mini_batches.into_iter().flat_map(|mini_batch| mini_batch.ids));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 348, "two of the last ten of `some` have no rank");
}

type Seen = (u64, u64, Vec<u32>);

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let seen =
        |m: MiniBatch| (m.epoch, m.graph_version.map_or(0, |version| version.0), m.ids.iter().map(|id| id.0).collect());
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

/// While weights change, with refreshes in between, after a warm-up, over epochs of different lengths.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_resumed_at_every_step() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    let change = |stop: Stop, same: Option<&str>, name: &str| {
        let mut sources = weighted(dir.path(), [1.0; 3]);
        sources[0].weight = Some(Schedule::Steps { from: 0.0, to: 2.0, steps: 25 });
        let refresh = RefreshConfig { every_steps: Some(6), swap_after_steps: Some(2), ..RefreshConfig::default() };
        let walk = WalkConfig {
            same: same.map(str::to_owned),
            warm_up: Some(WarmUp::Steps(3)),
            negatives: 1,
            ..walk_config(BATCH_SIZE)
        };
        builder(sources, MixtureConfig { stop, ..MixtureConfig::default() })
            .walk(walk)
            .refresh(refresh)
            .stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(dir.path().join(name)), ..CheckpointConfig::default() })
    };
    for (stop, same) in [(Stop::First, None), (Stop::All, None), (Stop::All, Some("source"))] {
        let name = format!("{stop:?} {same:?}");
        let whole = take(&mut change(stop, same, &name).start().await.unwrap(), usize::MAX).await;
        assert!(whole.len() > 20 && whole.last().unwrap().0 == 1, "{name}: {}", whole.len());
        for step in (0..whole.len()).step_by(3) {
            let name = format!("{name} {step}");
            let mut stream = change(stop, same, &name).start().await.unwrap();
            let mut seen = take(&mut stream, step).await;
            let state = stream.state();
            drop(stream);
            let mut resumed = change(stop, same, &name).resume(state).start().await.unwrap();
            seen.extend(take(&mut resumed, usize::MAX).await);
            assert!(seen == whole, "{name}");
        }
    }

    // Other weights are another run.
    let mut stream = change(Stop::First, None, "other").start().await.unwrap();
    take(&mut stream, 4).await;
    let state = stream.state();
    drop(stream);
    let other = builder(weighted(dir.path(), [1.0; 3]), MixtureConfig::default())
        .checkpoint(CheckpointConfig { dir: Some(dir.path().join("other")), ..CheckpointConfig::default() })
        .walk(WalkConfig { warm_up: Some(WarmUp::Steps(3)), negatives: 1, ..walk_config(BATCH_SIZE) });
    assert_says(&other.resume(state).start().await.unwrap_err().to_string(), &["sources.weight"]);
}

#[tokio::test]
async fn what_cannot_be_mixed_says_so() {
    let dir = TempDir::new().unwrap();
    write_all(dir.path());
    let refused = async |sources: Vec<NamedSource>, mixture: MixtureConfig, walk: WalkConfig, part: &str| {
        let error = builder(sources, mixture).walk(walk).start().await.unwrap_err();
        assert_says(&error.to_string(), &[part]);
    };
    let plain = || ["few", "many"].map(|name| named(name, dir.path())).to_vec();
    let walk = || walk_config(BATCH_SIZE);
    let none = MixtureConfig::default;

    // 14 of 16 are of the source with 60 rows in the first one, 15 of 16 of a source with 10 in the second.
    write_parquet(&dir.path().join("ten.parquet"), &rows(350..360, ["n", "text"]), 10);
    let mut sources = vec![named("few", dir.path()), named("ten", dir.path())];
    sources[0].weight = Some(1.0.into());
    sources[1].weight = Some(15.0.into());
    refused(sources, none(), walk(), "`ten`, which has 10 rows, and its share of a mini-batch is 15").await;

    let mut sources = weighted(dir.path(), [1.0; 3]);
    sources[1].filter = Some("n < 0".into());
    refused(sources, none(), walk(), "`many`, which has a weight and no rows").await;

    let mut sources = plain();
    sources[0].rename = [("n".to_owned(), "text".to_owned())].into();
    refused(sources, none(), walk(), "rename a column of `few` to `text`").await;
    let mut sources = plain();
    sources[0].rename = [("m".to_owned(), "text".to_owned())].into();
    refused(sources, none(), walk(), "column `m` not found in `few: ").await;
    let mut sources = plain();
    sources[1].prefix = [("m".to_owned(), Prefix::Text("a".into()))].into();
    refused(sources, none(), walk(), "column `m` not found in `many: ").await;
    let mut sources = plain();
    sources[1].prefix = [("n".to_owned(), Prefix::Text("a".into()))].into();
    refused(sources, none(), walk(), "name a text column").await;
    let mut sources = plain();
    sources[1].rename = [("text".to_owned(), "source".to_owned())].into();
    refused(sources, none(), walk(), "add a column `source`, which `many` has").await;

    let same = |column: &str| WalkConfig { same: Some(column.into()), ..walk() };
    refused(weighted(dir.path(), [1.0; 3]), none(), same("text"), "and sources have weights").await;
    refused(plain(), none(), same("task"), "column `task` not found").await;
    let share = WalkConfig { same_share: 0.5, ..same("source") };
    refused(weighted(dir.path(), [1.0; 3]), none(), share, "takes samples of all sources").await;
}

#[test]
fn settings_that_contradict_are_all_told() {
    let text = r#"
        source.uri = "a.parquet"
        encode = { feature = "vector", column = "v" }
        walk = { same_share = 0.5, coverage = "paper", sampler = "clusters" }
        mixture = { temperature = 2, stop = "all" }
        [[sources]]
        name = "a"
        uri = "a.parquet"
        weight = 1
        [[sources]]
        name = "a"
        uri = []
        wieght = 2
        [[sources]]
        uri = "c.parquet"
        weight = -1
        rename = { x = "y", z = "y" }
    "#;
    let error = PipelineConfig::from_toml(text).unwrap_err().to_string();
    for part in [
        "source.uri: is given beside [[sources]]",
        "sources[1].name: is `a`, as that of another source",
        "sources[1].uri: is required",
        "sources[1].wieght: unknown key; did you mean `weight`?",
        "sources[1].weight: is missing",
        "sources[2].name: is required",
        "sources[2].weight: is -1; it must be a number above 0",
        "sources[2].rename: gives two columns the name `y`",
        "mixture.temperature: is 2; it must lie between 0 and 1",
        "mixture.temperature: makes weights, and sources have some",
        "walk.same_share: needs walk.same",
        "walk.coverage: is `paper`, but sources have weights",
        "walk.sampler: is `clusters`, but sources have weights",
    ] {
        let [key, message] = part.splitn(2, ": ").collect::<Vec<_>>()[..] else { panic!() };
        assert!(error.lines().any(|line| line.contains(key) && line.contains(message)), "{part} is not in:\n{error}");
    }
    let lonely = PipelineConfig::from_toml(
        "source.uri = 'a'\nencode = { feature = 'vector', column = 'v' }\nmixture.stop = 'all'",
    );
    assert!(lonely.unwrap_err().to_string().contains("needs several sources"));
}
