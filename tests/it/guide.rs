//! A guide judges which samples are too similar, against cosines of its vectors by plain loops.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use futures::TryStreamExt;
use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::config::{
    CheckpointConfig, FirstRefresh, GraphOver, GuardsConfig, MaskConfig, PipelineConfig, RefreshConfig, Resume,
    StreamConfig, ViewConfig, WalkConfig, WarmUp,
};
use prosampler::encode::Encoder;
use prosampler::source::FileSource;
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineBuilder, SampleId};
use tempfile::TempDir;

use crate::support::pairs::{PAIRS, of_both_sides, pair_rows, pipeline_of_pairs, positive_of};
use crate::support::{
    Cosines, DIMENSION, TestEncoder, assert_says, graph_config, pipeline, rows, trained_vectors, vectors, walk_config,
    write_parquet,
};

const SAMPLES: usize = 400;
const BATCH: usize = 16;
const BOUND: f64 = 0.6;

fn cosines(flat: &[f32]) -> Cosines {
    Cosines::of(flat, DIMENSION)
}

fn guide_vectors(len: usize) -> Vec<f32> {
    vectors(len, DIMENSION, 6, 99)
}

/// An encoder of other vectors than the run's.
fn guide(len: usize, column: &str) -> TestEncoder {
    let all = guide_vectors(len);
    TestEncoder::with_vectors(DIMENSION, move |_, n, vector| {
        vector.copy_from_slice(&all[n as usize * DIMENSION..][..DIMENSION]);
    })
    .reading(column)
}

fn guarded() -> GuardsConfig {
    GuardsConfig { max_similarity: Some(BOUND), ..GuardsConfig::default() }
}

fn index_pairs(ids: &[SampleId]) -> impl Iterator<Item = (usize, usize)> {
    ids.iter().enumerate().flat_map(|(at, a)| ids[..at].iter().map(|b| (a.index(), b.index())))
}

async fn all(builder: PipelineBuilder) -> Vec<MiniBatch> {
    builder.start().await.unwrap().try_collect().await.unwrap()
}

/// Also in a warm-up without embeddings; and what the run's own embeddings say does not count.
#[tokio::test]
async fn its_bound_holds_from_the_first_mini_batch() {
    let (of_guide, own) = (cosines(&guide_vectors(SAMPLES)), cosines(&trained_vectors(0, SAMPLES)));
    let walk = WalkConfig { warm_up: Some(WarmUp::Steps(9)), negatives: 1, ..walk_config(BATCH) };
    let encoder = guide(SAMPLES, "n");
    let refresh = RefreshConfig { first: FirstRefresh::AfterWarmUp, ..RefreshConfig::default() };
    let stream = StreamConfig { epochs: 2, ..StreamConfig::default() };
    let builder = pipeline(SAMPLES, BATCH).walk(walk).refresh(refresh).stream(stream);
    let (mut nearest, mut too_near_by_own, mut steps) = (f64::MIN, 0, 0);
    for mini_batch in all(builder.guards(guarded()).guide(encoder.clone())).await {
        steps += 1;
        for (a, b) in index_pairs(&mini_batch.ids) {
            nearest = nearest.max(of_guide.get(a, b));
            too_near_by_own += usize::from(own.get(a, b) > BOUND);
        }
        let negatives: Vec<_> = mini_batch.negatives.iter().flatten().collect();
        for (id, negative) in mini_batch.ids.iter().flat_map(|id| negatives.iter().map(move |negative| (id, negative)))
        {
            nearest = nearest.max(of_guide.get(id.index(), negative.index()));
        }
    }
    assert!(steps > 9 && nearest <= BOUND + 1e-4 && nearest > BOUND - 0.05, "{steps} {nearest}");
    assert!(too_near_by_own > 100, "{too_near_by_own}");
    assert_eq!(encoder.calls.load(Relaxed), 1, "all samples are embedded once, in one record batch");
}

#[tokio::test]
async fn rows_that_come_later_are_judged_too() {
    let dir = TempDir::new().unwrap();
    let all_rows = rows(SAMPLES);
    write_parquet(&dir.path().join("1.parquet"), &all_rows.slice(0, 300), 100);
    let encoder = guide(SAMPLES, "n");
    let walk = WalkConfig { batch_size: BATCH, ..WalkConfig::default() };
    let mut stream = Pipeline::builder()
        .source(FileSource::open(&dir.path().display().to_string()).await.unwrap())
        .encoder(TestEncoder::new(SAMPLES))
        .guide(encoder.clone())
        .guards(guarded())
        .graph(graph_config(40, 10))
        .walk(walk)
        .stream(StreamConfig { epochs: 3, ..StreamConfig::default() })
        .start()
        .await
        .unwrap();
    stream.try_next().await.unwrap().unwrap();
    write_parquet(&dir.path().join("2.parquet"), &all_rows.slice(300, 100), 100);
    assert_eq!(stream.handle().refresh_now().await.unwrap().added, 100);
    assert_eq!(encoder.calls.load(Relaxed), 2);
    let of_guide = cosines(&guide_vectors(SAMPLES));
    let mut new = 0;
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        new += mini_batch.ids.iter().filter(|id| id.index() >= 300).count();
        for (a, b) in index_pairs(&mini_batch.ids) {
            assert!(of_guide.get(a, b) <= BOUND + 1e-4, "{a} and {b}");
        }
    }
    assert!(new >= 100, "{new}");
}

/// GISTEmbed's rule, for guards and for a mask: as similar as either one's own pair, by the guide.
fn of_pairs(guards: GuardsConfig, mask: MaskConfig) -> PipelineBuilder {
    let over = GraphOver::Anchors;
    pipeline_of_pairs(pair_rows(), over)
        .guide(of_both_sides(&guide(2 * PAIRS, "n"), over))
        .walk(walk_config(12))
        .guards(guards)
        .mask(mask)
        .seed(3)
}

/// Whether the rule refuses two pairs; `None` where rounding decides.
fn is_too_near(of_guide: &Cosines, a: usize, b: usize) -> Option<bool> {
    let similarity = of_guide.get(a, b);
    let own = [a, b].map(|row| of_guide.get(row, positive_of(row))).into_iter().filter(|own| *own > 0.0);
    let least = own.fold(f64::INFINITY, f64::min);
    ((similarity - least).abs() > 1e-4).then_some(similarity >= least)
}

#[tokio::test]
async fn pairs_are_judged_by_their_positives() {
    let of_guide = cosines(&guide_vectors(2 * PAIRS));
    let guards = GuardsConfig { max_relative_to_positive: Some(1.0), ..GuardsConfig::default() };
    let mut refused = 0;
    for mini_batch in all(of_pairs(guards, MaskConfig::default())).await {
        refused += mini_batch.counts.refused_relative;
        for (a, b) in index_pairs(&mini_batch.ids) {
            assert_ne!(is_too_near(&of_guide, a, b), Some(true), "{a} and {b}");
        }
    }
    assert!(refused > 50, "{refused}");

    let mask = MaskConfig { max_relative_to_positive: Some(1.0), ..MaskConfig::default() };
    let [mut marked, mut clear] = [0, 0];
    for mini_batch in all(of_pairs(GuardsConfig::default(), mask)).await {
        let marks = mini_batch.mask().expect("a mask");
        for (row, a) in mini_batch.ids.iter().enumerate() {
            let marks = marks.value(row);
            for (column, b) in mini_batch.ids.iter().enumerate().filter(|(column, _)| *column != row) {
                let mark = marks.as_boolean().value(column);
                *(if mark { &mut marked } else { &mut clear }) += 1;
                let expected = is_too_near(&of_guide, a.index(), b.index());
                assert!(expected.is_none_or(|expected| expected == mark), "{a} and {b}");
            }
        }
    }
    assert!(marked > 100 && clear > 100, "{marked} {clear}");
}

type Seen = (u64, Vec<SampleId>);

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let seen = |m: MiniBatch| (m.step, m.ids);
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guided_run_is_resumed() {
    let dir = TempDir::new().unwrap();
    let builder = |name: &str| {
        let refresh = RefreshConfig { every_steps: Some(9), swap_after_steps: Some(2), ..RefreshConfig::default() };
        pipeline(SAMPLES, BATCH)
            .walk(WalkConfig { warm_up: Some(WarmUp::Steps(5)), ..walk_config(BATCH) })
            .guide(guide(SAMPLES, "n"))
            .guards(guarded())
            .refresh(refresh)
            .checkpoint(CheckpointConfig { dir: Some(dir.path().join(name)), ..CheckpointConfig::default() })
    };
    let whole = take(&mut builder("whole").start().await.unwrap(), usize::MAX).await;
    for step in [2, 5, 11, 20] {
        let name = step.to_string();
        let mut stream = builder(&name).start().await.unwrap();
        let mut seen = take(&mut stream, step).await;
        let state = stream.state();
        drop(stream);
        seen.extend(take(&mut builder(&name).resume(state).start().await.unwrap(), usize::MAX).await);
        assert!(seen == whole, "from {step}");
    }
}

/// A guide whose vectors are told apart by a name.
struct Identified(TestEncoder, &'static str);

impl Encoder for Identified {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn columns(&self) -> &[String] {
        self.0.columns()
    }

    fn dimension(&self) -> usize {
        self.0.dimension()
    }

    fn identity(&self) -> Option<String> {
        Some(self.1.to_owned())
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> prosampler::Result<()> {
        self.0.encode(rows, vectors)
    }
}

/// With another one, what was left of the epoch could not be told: samples would come twice or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_resumed_with_the_same_guide() {
    let dir = TempDir::new().unwrap();
    let with = |name: &'static str, resume: Resume| {
        let checkpoint = CheckpointConfig { dir: Some(dir.path().into()), resume, ..CheckpointConfig::default() };
        pipeline(SAMPLES, BATCH).guide(Identified(guide(SAMPLES, "n"), name)).guards(guarded()).checkpoint(checkpoint)
    };
    let mut stream = with("large", Resume::Exact).start().await.unwrap();
    take(&mut stream, 7).await;
    let state = stream.state();
    stream.handle().keep(&state).await.unwrap();
    drop(stream);

    let refused = with("larger", Resume::Exact).resume(state.clone()).start().await.unwrap_err().to_string();
    assert_says(&refused, &["guide had other vectors", "checkpoint.resume = \"latest\""]);
    let same = take(&mut with("large", Resume::Exact).resume(state.clone()).start().await.unwrap(), 1).await;
    assert_eq!(same[0].0, 7);
    let again = take(&mut with("larger", Resume::Latest).resume(state).start().await.unwrap(), usize::MAX).await;
    assert_eq!(again[0].0, 0, "the epoch begins again");
    let ids: Vec<_> = again.into_iter().flat_map(|(_, ids)| ids).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "no sample comes twice");
}

#[test]
fn settings_are_laid_over_those_of_the_encoder() {
    let text = r#"
        source.uri = "rows.parquet"
        encode = { model = "small.onnx", column = "text", prefix = "query: ", max_tokens = 64 }
        guards.max_similarity = 0.9
        [guards.guide]
        model = "large.onnx"
        prefix = ""
    "#;
    let config = PipelineConfig::from_toml(text).unwrap();
    let guide = config.guards.guide.as_ref().unwrap().over(&config.encode);
    assert_eq!((guide.model, guide.prefix.as_str(), guide.max_tokens), (Some("large.onnx".into()), "", 64));
    assert_eq!(guide.column.as_deref(), Some("text"));
}

#[tokio::test]
async fn what_a_guide_cannot_do_is_an_error() {
    let fails = |text: &str| PipelineConfig::from_toml(text).unwrap_err().to_string();
    let with =
        |more: &str| format!("source.uri = \"a.parquet\"\nencode = {{ model = \"a.onnx\", column = \"t\" }}\n{more}");
    assert_says(&fails(&with("guards.guide = { model = \"b.onnx\" }")), &["guards.guide", "guards.max_similarity"]);
    let same = "guards = { max_similarity = 0.9, guide = { prefix = \"query: \" } }";
    assert_says(&fails(&with(same)), &["guards.guide.model", "encoder of the run itself"]);
    let tokens = "guards = { max_similarity = 0.9, guide = { model = \"b.onnx\", max_tokens = 1 } }";
    assert_says(&fails(&with(tokens)), &["guards.guide.max_tokens"]);
    let typo = "guards = { max_similarity = 0.9, guide = { modle = \"b.onnx\" } }";
    assert_says(&fails(&with(typo)), &["guards.guide", "did you mean `model`"]);

    let error = pipeline(SAMPLES, BATCH).guide(guide(SAMPLES, "n")).start().await.unwrap_err().to_string();
    assert_says(&error, &["guards.guide", "judges nothing"]);
    let missing = pipeline(SAMPLES, BATCH).guide(guide(SAMPLES, "m")).guards(guarded()).start().await.unwrap_err();
    assert_says(&missing.to_string(), &["`m`"]);
    let guards = GuardsConfig { guide: Some(ViewConfig::default()), ..guarded() };
    let error = pipeline(SAMPLES, BATCH).guards(guards).start().await.unwrap_err().to_string();
    assert_says(&error, &["guards.guide.model"]);
}
