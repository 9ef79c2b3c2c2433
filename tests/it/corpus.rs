//! Texts beyond the pairs are explicit negatives, and nothing else.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, FixedSizeListArray, RecordBatch, StringArray, UInt32Array};
use prosampler::arrow::datatypes::{Float32Type, UInt32Type};
use prosampler::config::{
    CheckpointConfig, Coverage, FirstRefresh, GraphBuilder, GraphConfig, GraphOver, NegativeChoice, PairsConfig,
    PipelineConfig, RefreshConfig, SourceConfig, StreamConfig, WalkConfig, WarmUp,
};
use prosampler::encode::{Encoder, PairEncoder};
use prosampler::source::MemorySource;
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineBuilder, SampleId};
use tempfile::TempDir;

use crate::support::pairs::{PAIRS, pair_rows, positive_of};
use crate::support::{DIMENSION, TestEncoder, assert_says, graph_config, trained_vectors, walk_config, write_parquet};

const BATCH: usize = 12;
const NEGATIVES: usize = 2;

/// The texts of the corpus: all positives, and as many others.
fn corpus_texts() -> Vec<u32> {
    (PAIRS..2 * PAIRS).map(|text| text as u32).collect()
}

fn corpus() -> RecordBatch {
    RecordBatch::try_from_iter([("answer", Arc::new(UInt32Array::from(corpus_texts())) as ArrayRef)]).unwrap()
}

fn pairs(over: GraphOver) -> PairsConfig {
    let [anchor, positive] = ["question", "answer"].map(|column| Some(column.to_owned()));
    PairsConfig { anchor, positive, graph_over: over, ..PairsConfig::default() }
}

/// Anchors have another model than positives.
fn side(column: &str, version: u64) -> Arc<dyn Encoder> {
    let vectors = trained_vectors(version, 2 * PAIRS);
    let write =
        move |_, n: u32, vector: &mut [f32]| vector.copy_from_slice(&vectors[n as usize * DIMENSION..][..DIMENSION]);
    Arc::new(TestEncoder::with_vectors(DIMENSION, write).reading(column))
}

fn encoder(over: GraphOver) -> PairEncoder {
    PairEncoder::new(side("question", 4), side("answer", 0), over).unwrap().with_corpus()
}

fn builder(over: GraphOver, walk: WalkConfig) -> PipelineBuilder {
    Pipeline::builder()
        .source(MemorySource::new(vec![pair_rows()]).unwrap())
        .corpus(MemorySource::new(vec![corpus()]).unwrap())
        .encoder(encoder(over))
        .pairs(pairs(over))
        .graph(graph_config(80, 16))
        .walk(WalkConfig { negatives: NEGATIVES, ..walk })
        .seed(3)
}

async fn all(builder: PipelineBuilder) -> Vec<MiniBatch> {
    builder.start().await.unwrap().try_collect().await.unwrap()
}

fn text_of(id: SampleId) -> u32 {
    if id.index() < PAIRS { positive_of(id.index()) as u32 } else { corpus_texts()[id.index() - PAIRS] }
}

fn numbers(rows: &RecordBatch, column: &str) -> Vec<u32> {
    rows[column].as_primitive::<UInt32Type>().values().to_vec()
}

#[tokio::test]
async fn its_texts_are_negatives_and_in_no_epoch() {
    let warm_up = |walk| WalkConfig { warm_up: Some(WarmUp::Steps(20)), ..walk };
    for (over, walk) in [
        (GraphOver::Mean, walk_config(BATCH)),
        (GraphOver::Cross, warm_up(walk_config(BATCH))),
        (GraphOver::Anchors, WalkConfig { negative_ranks: Some([1, 12]), ..walk_config(BATCH) }),
    ] {
        let stream = builder(over, walk.clone()).stream(StreamConfig { epochs: 2, ..StreamConfig::default() });
        let refresh = RefreshConfig { first: FirstRefresh::AfterWarmUp, ..RefreshConfig::default() };
        let mut stream = stream.refresh(refresh).start().await.unwrap();
        assert_eq!((stream.samples(), stream.in_corpus(), stream.mini_batches_per_epoch()), (2 * PAIRS, PAIRS, 50));
        assert_eq!(stream.schema().fields().len(), 2 + NEGATIVES, "no column says which rows are of the corpus");
        let mut epochs = vec![HashSet::new(); 2];
        let mut of_corpus = 0;
        while let Some(mini_batch) = stream.try_next().await.unwrap() {
            let epoch = &mut epochs[mini_batch.epoch as usize];
            assert!(mini_batch.ids.iter().all(|id| id.index() < PAIRS && epoch.insert(*id)));
            let positives = numbers(&mini_batch.rows, "answer");
            for (number, column) in ["negative_1", "negative_2"].into_iter().enumerate() {
                let texts = numbers(&mini_batch.rows, column);
                assert_eq!(mini_batch.rows[column].null_count(), 0);
                for (row, text) in texts.into_iter().enumerate() {
                    let id = mini_batch.negatives[row * NEGATIVES + number].unwrap();
                    assert_eq!(text, text_of(id));
                    assert!(!positives.contains(&text), "a positive of the mini-batch is a negative in it");
                    of_corpus += usize::from(id.index() >= PAIRS);
                }
            }
        }
        assert!(epochs.iter().all(|epoch| epoch.len() == PAIRS), "{over:?}");
        // Half of all samples are of the corpus, and two thirds of the pairs share their positive with others.
        assert!(of_corpus > PAIRS && of_corpus < 2 * PAIRS * NEGATIVES, "{over:?}: {of_corpus}");
    }
}

/// The vectors of the corpus are those of positives on both sides.
#[tokio::test]
async fn a_text_is_embedded_as_a_positive() {
    let unit = |version: u64, n: usize| -> Vec<f32> {
        let all = trained_vectors(version, 2 * PAIRS);
        let vector = &all[n * DIMENSION..][..DIMENSION];
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter().map(|x| x / length).collect()
    };
    let stream = builder(GraphOver::Cross, walk_config(BATCH)).start().await.unwrap();
    let table = stream.snapshot().unwrap().embeddings.clone();
    for id in [0, 5, PAIRS - 1, PAIRS, PAIRS + 7, 2 * PAIRS - 1].map(SampleId::new) {
        let positive = unit(0, text_of(id) as usize);
        let anchor = if id.index() < PAIRS { unit(4, id.index()) } else { positive.clone() };
        let expected = [anchor, positive].concat();
        let found = table.get(id);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a * 2f32.sqrt() - b).abs() < 1e-5 || (a - b).abs() < 1e-5));
    }
}

/// The first row of a mini-batch has the nearest texts that guards allow, by a loop over all of them.
#[tokio::test]
async fn negatives_are_the_nearest_of_pairs_and_corpus() {
    let graph = GraphConfig { builder: GraphBuilder::Exact, neighbors: Some(30), ..GraphConfig::default() };
    let walk = WalkConfig { negative_ranks: Some([0, 30]), negative_choice: NegativeChoice::Top, ..walk_config(BATCH) };
    let mut stream = builder(GraphOver::Positives, walk).graph(graph).start().await.unwrap();
    let table = stream.snapshot().unwrap().embeddings.clone();
    let mut of_corpus = 0;
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        let first = mini_batch.ids[0];
        let texts: HashSet<u32> = mini_batch.ids.iter().map(|&id| text_of(id)).collect();
        let may_be = |id: &SampleId| !mini_batch.ids.contains(id) && !texts.contains(&text_of(*id));
        let best = (0..table.len()).map(SampleId::new).filter(may_be);
        let best = best.map(|id| table.similarity_of(first, id)).max_by(f32::total_cmp).unwrap();
        let found = mini_batch.negatives[0].unwrap();
        assert!((table.similarity_of(first, found) - best).abs() < 1e-3, "{found} is not the nearest of {first}");
        of_corpus += usize::from(found.index() >= PAIRS);
    }
    assert!(of_corpus > 10, "{of_corpus}");
}

type Seen = (u64, Vec<SampleId>, Vec<Option<SampleId>>);

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let seen = |m: MiniBatch| (m.step, m.ids, m.negatives);
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_corpus_is_resumed() {
    let dir = TempDir::new().unwrap();
    let builder = |name: &str| {
        let refresh = RefreshConfig { every_steps: Some(9), swap_after_steps: Some(2), ..RefreshConfig::default() };
        builder(GraphOver::Mean, walk_config(BATCH))
            .refresh(refresh)
            .stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
            .checkpoint(CheckpointConfig { dir: Some(dir.path().join(name)), ..CheckpointConfig::default() })
    };
    let whole = take(&mut builder("whole").start().await.unwrap(), usize::MAX).await;
    assert_eq!(whole.len(), 100);
    for step in [0, 7, 30, 49, 50, 61] {
        let mut stream = builder(&step.to_string()).start().await.unwrap();
        let mut seen = take(&mut stream, step).await;
        let state = stream.state();
        drop(stream);
        seen.extend(take(&mut builder(&step.to_string()).resume(state).start().await.unwrap(), usize::MAX).await);
        assert!(seen == whole, "from {step}");
    }
}

/// Vectors in files, and a column that the corpus lacks.
#[tokio::test]
async fn it_is_read_from_files() {
    let dir = TempDir::new().unwrap();
    let lists = |from: usize, len: usize| -> ArrayRef {
        let all = trained_vectors(0, 500);
        let row = |n: usize| Some(all[n * DIMENSION..][..DIMENSION].iter().copied().map(Some).collect::<Vec<_>>());
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((from..from + len).map(row), 8))
    };
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..200).map(|row| format!("row {row}"))));
    let rows = [("query", lists(0, 200)), ("passage", lists(200, 200)), ("name", names)];
    write_parquet(&dir.path().join("pairs.parquet"), &RecordBatch::try_from_iter(rows).unwrap(), 64);
    let texts = RecordBatch::try_from_iter([("passage", lists(400, 100))]).unwrap();
    write_parquet(&dir.path().join("passages.parquet"), &texts, 64);
    let text = r#"
        source.uri = "pairs.parquet"
        encode.feature = "vector"
        pairs = { anchor = "query", positive = "passage", corpus = "passages.parquet" }
        walk = { batch_size = 20, negatives = 1 }
    "#;
    std::fs::write(dir.path().join("run.toml"), text).unwrap();
    let config = PipelineConfig::from_file(dir.path().join("run.toml")).unwrap();
    assert_eq!(Path::new(&config.pairs.corpus[0]), dir.path().join("passages.parquet"));
    let stream = Pipeline::from_config(config).start().await.unwrap();
    assert_eq!((stream.samples(), stream.in_corpus(), stream.mini_batches_per_epoch()), (300, 100, 10));
    let mini_batches: Vec<MiniBatch> = stream.try_collect().await.unwrap();
    let negatives: Vec<_> = mini_batches.iter().flat_map(|mini_batch| mini_batch.negatives.iter().flatten()).collect();
    assert!(negatives.iter().any(|id| id.index() >= 200));
    assert!(mini_batches.iter().all(|mini_batch| mini_batch.rows["name"].null_count() == 0));
}

/// Without a corpus, a column of that name is like any other.
#[tokio::test]
async fn rows_may_have_a_column_of_that_name() {
    let rows = pair_rows();
    let role: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..PAIRS as u32));
    let columns = [("_role", role), ("question", rows["question"].clone()), ("answer", rows["answer"].clone())];
    let source = MemorySource::new(vec![RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    let side = |column: &str| Arc::new(TestEncoder::new(2 * PAIRS).reading(column)) as Arc<dyn Encoder>;
    let over = GraphOver::Mean;
    let mini_batches = all(Pipeline::builder()
        .source(source)
        .encoder(PairEncoder::new(side("question"), side("answer"), over).unwrap())
        .pairs(pairs(over))
        .walk(walk_config(BATCH)))
    .await;
    for mini_batch in &mini_batches {
        assert!(mini_batch.ids.iter().map(|id| id.0).eq(numbers(&mini_batch.rows, "_role")));
    }
    assert_eq!(mini_batches.len(), PAIRS / BATCH);
}

#[tokio::test]
async fn bad_combinations_are_errors() {
    let over = GraphOver::Mean;
    let fails = async |builder: PipelineBuilder| builder.start().await.unwrap_err().to_string();
    let walk = |walk: WalkConfig| builder(over, walk_config(BATCH)).walk(walk);
    assert_says(&fails(walk(walk_config(BATCH))).await, &["pairs.corpus", "walk.negatives"]);
    let paper = WalkConfig { coverage: Coverage::Paper, negatives: 1, ..walk_config(BATCH) };
    assert_says(&fails(walk(paper)).await, &["pairs.corpus", "walk.coverage"]);
    let same = WalkConfig { same: Some("question".into()), negatives: 1, ..walk_config(BATCH) };
    assert_says(&fails(walk(same)).await, &["pairs.corpus", "walk.same"]);
    let no_pairs = builder(over, walk_config(BATCH)).pairs(PairsConfig::default());
    assert_says(&fails(no_pairs).await, &["pairs.corpus", "pairs.anchor"]);

    let with = |corpus: RecordBatch| builder(over, walk_config(BATCH)).corpus(MemorySource::new(vec![corpus]).unwrap());
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["a", "b"]));
    let other = RecordBatch::try_from_iter([("passage", texts.clone())]).unwrap();
    assert_says(&fails(with(other)).await, &["`answer`", "`passage`"]);
    let of_type = RecordBatch::try_from_iter([("answer", texts)]).unwrap();
    assert_says(&fails(with(of_type)).await, &["answer", "UInt32"]);

    let role: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..PAIRS as u32));
    let mut columns: Vec<(&str, ArrayRef)> = vec![("_role", role)];
    let rows = pair_rows();
    columns.extend(["question", "answer"].map(|name| (name, rows[name].clone())));
    let taken = MemorySource::new(vec![RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    assert_says(&fails(builder(over, walk_config(BATCH)).source(taken)).await, &["pairs.corpus", "`_role`"]);

    // The corpus is no mini-batch.
    let few = PipelineConfig {
        source: SourceConfig { filter: Some("question < 5".into()), ..SourceConfig::default() },
        ..PipelineConfig::default()
    };
    let few = Pipeline::from_config(few)
        .source(MemorySource::new(vec![pair_rows()]).unwrap())
        .corpus(MemorySource::new(vec![corpus()]).unwrap())
        .encoder(encoder(over))
        .pairs(pairs(over))
        .walk(WalkConfig { negatives: 1, ..walk_config(BATCH) });
    assert_says(&fails(few).await, &["5", "12", "pairs.corpus"]);
    assert!(!all(builder(over, walk_config(BATCH))).await.is_empty());
}
