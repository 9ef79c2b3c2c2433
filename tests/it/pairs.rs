//! Rows that are an anchor and its positive, from the data to mini-batches with explicit negatives.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{GraphOver, GuardsConfig, PairsConfig, Similarity, Storage, WalkConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::{Encoder, PairEncoder, encode_all};
use prosampler::error::{ColumnError, ModelError};
use prosampler::source::MemorySource;
use prosampler::store::Store;
use prosampler::{Error, MiniBatch, ModelVersion, Pipeline, PipelineBuilder, Result, SampleId};
use tempfile::TempDir;

use crate::support::{DIMENSION, TestEncoder, graph_config, path, vectors, walk_config};

const ROWS: usize = 600;

/// Vectors of a column of numbers, longer or shorter than 1.
fn numbers(column: &str, scale: f32) -> Arc<dyn Encoder> {
    let encoder = TestEncoder::new(2 * ROWS).reading(column);
    Arc::new(encoder.altered(move |_, _, vector| vector.iter_mut().for_each(|x| *x *= scale)))
}

fn anchor_of(row: usize) -> usize {
    row
}

/// Three anchors have one positive; the vectors' clusters have a period of ten.
fn positive_of(row: usize) -> usize {
    ROWS + row / 30 * 10 + row % 10
}

fn batch() -> RecordBatch {
    let column = |of: fn(usize) -> usize| Arc::new(UInt32Array::from_iter_values((0..ROWS).map(|row| of(row) as u32)));
    let columns = [("question", column(anchor_of) as ArrayRef), ("answer", column(positive_of) as ArrayRef)];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn encoder(over: GraphOver) -> PairEncoder {
    PairEncoder::new(numbers("question", 3.0), numbers("answer", 0.5), over).unwrap()
}

/// The cosine of the encoder's vectors of two rows, computed here.
fn unit(n: usize) -> Vec<f64> {
    let vectors = vectors(2 * ROWS, DIMENSION, 10, 3);
    let vector: Vec<f64> = vectors[n * DIMENSION..][..DIMENSION].iter().map(|&x| f64::from(x)).collect();
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn vectors_and_similarities_of_pairs() {
    let source = MemorySource::new(vec![batch()]).unwrap();
    let columns = ["question", "answer"].map(str::to_owned);
    let store = Store::build(&source, &columns, &Default::default(), &mut |_| {}).await.unwrap();
    for over in [GraphOver::Anchors, GraphOver::Positives, GraphOver::Mean, GraphOver::Cross] {
        let (storage, similarity) = (Storage::F32, Similarity::Dot);
        let table = encode_all(&encoder(over), &store, storage, similarity, ModelVersion(1), &mut |_| {}).unwrap();
        for row in 0..ROWS {
            let (anchor, positive) = (unit(anchor_of(row)), unit(positive_of(row)));
            let expected: Vec<f64> = match over {
                GraphOver::Anchors => anchor.clone(),
                GraphOver::Positives => positive.clone(),
                GraphOver::Mean => anchor.iter().zip(&positive).map(|(a, p)| (a + p) / 2.0).collect(),
                GraphOver::Cross => [&anchor[..], &positive].concat(),
            };
            let found = table.get(SampleId::new(row));
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(&x, y)| (f64::from(x) - y).abs() < 1e-6));
            let pair = f64::from(table.pair_similarity(SampleId::new(row)).unwrap());
            assert!((pair - dot(&anchor, &positive)).abs() < 1e-6);
        }
        let dir = TempDir::new().unwrap();
        table.save(dir.path().join("pairs.arrow")).unwrap();
        assert_eq!(EmbeddingTable::open(dir.path().join("pairs.arrow")).unwrap(), table);
    }
}

fn pipeline(over: GraphOver) -> PipelineBuilder {
    let (anchor, positive) = (Some("question".into()), Some("answer".into()));
    let pairs = PairsConfig { anchor, positive, graph_over: over, ..PairsConfig::default() };
    Pipeline::builder()
        .source(MemorySource::new(vec![batch()]).unwrap())
        .encoder(encoder(over))
        .pairs(pairs)
        .graph(graph_config(60, 12))
        .seed(3)
}

async fn all(builder: PipelineBuilder) -> Vec<MiniBatch> {
    builder.start().await.unwrap().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_rows_share_their_positive_and_negatives_come_as_columns() {
    for over in [GraphOver::Anchors, GraphOver::Positives, GraphOver::Mean, GraphOver::Cross] {
        let mini_batches = all(pipeline(over).walk(WalkConfig { negatives: 3, ..walk_config(24) })).await;
        let mut seen = HashSet::new();
        for mini_batch in &mini_batches {
            let answers: HashSet<_> = mini_batch.ids.iter().map(|id| positive_of(id.index())).collect();
            assert_eq!(answers.len(), mini_batch.ids.len());
            assert!(mini_batch.ids.iter().all(|id| seen.insert(*id)));
            let names: Vec<_> = mini_batch.rows.schema().fields().iter().map(|f| f.name().clone()).collect();
            assert_eq!(names, ["question", "answer", "negative_1", "negative_2", "negative_3"]);
            for (at, negative) in mini_batch.negatives.iter().enumerate() {
                let column = &mini_batch.rows[format!("negative_{}", at % 3 + 1).as_str()];
                let answer = positive_of(negative.unwrap().index());
                assert_eq!(column.as_primitive::<UInt32Type>().value(at / 3) as usize, answer);
                assert!(!answers.contains(&answer));
            }
        }
        // An epoch has 25 mini-batches, and a positive at most three samples, so all can be drawn.
        assert_eq!((mini_batches.len(), seen.len()), (25, ROWS));
    }
}

/// Explicit negatives are more similar to their own row than to other rows of the mini-batch, and than chance.
#[tokio::test(flavor = "multi_thread")]
async fn explicit_negatives_are_hard() {
    let builder = pipeline(GraphOver::Mean).walk(WalkConfig { negatives: 2, ..walk_config(16) });
    let mut stream = builder.start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let (mut near, mut far, mut count) = (0.0, 0.0, 0.0);
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        for (at, negative) in mini_batch.negatives.iter().enumerate() {
            let id = mini_batch.ids[at / 2];
            near += f64::from(snapshot.embeddings.similarity_of(id, negative.unwrap()));
            let any = SampleId::new((id.index() * 7 + at * 13 + 1) % ROWS);
            far += f64::from(snapshot.embeddings.similarity_of(id, any));
            count += 1.0;
        }
    }
    assert!(near / count > far / count + 0.2, "{} and {}", near / count, far / count);
}

#[tokio::test(flavor = "multi_thread")]
async fn negatives_are_less_similar_than_the_own_positive() {
    let guards = GuardsConfig { max_relative_to_positive: Some(0.95), ..GuardsConfig::default() };
    let walk = WalkConfig { negatives: 1, ..walk_config(12) };
    let mut stream = pipeline(GraphOver::Mean).guards(guards).walk(walk).start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let mut counts = prosampler::walk::WalkCounts::default();
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        counts += mini_batch.counts;
        let others = mini_batch.ids.iter().chain(mini_batch.negatives.iter().flatten());
        for (&a, &b) in mini_batch.ids.iter().flat_map(|a| others.clone().map(move |b| (a, b))).filter(|(a, b)| a != b)
        {
            let similarity = snapshot.embeddings.similarity_of(a, b);
            for id in [a, b] {
                let pair = snapshot.embeddings.pair_similarity(id).unwrap();
                assert!(pair <= 0.0 || f64::from(similarity) < 0.95 * f64::from(pair), "{similarity} and {pair}");
            }
        }
    }
    assert!(counts.refused_relative > 100, "{counts:?}");
}

#[tokio::test]
async fn settings_of_pairs_that_contradict_are_refused() {
    let message = |result: Result<_>| match result {
        Ok(_) => panic!("it starts"),
        Err(
            error @ (Error::Config(_)
            | Error::Column(ColumnError::Missing { .. })
            | Error::Model(ModelError::Dimension { .. })),
        ) => error.to_string(),
        Err(other) => panic!("{other:?}"),
    };
    let relative = GuardsConfig { max_relative_to_positive: Some(0.9), ..GuardsConfig::default() };
    let plain = || pipeline(GraphOver::Mean).encoder(numbers("question", 1.0)).walk(walk_config(8));
    let said = message(plain().guards(relative.clone()).start().await);
    assert!(said.contains("guards.max_relative_to_positive") && said.contains("PairEncoder"), "{said}");
    let said = message(plain().pairs(PairsConfig::default()).guards(relative).start().await);
    assert!(said.contains("name pairs.anchor and pairs.positive"), "{said}");
    let half = PairsConfig { anchor: Some("question".into()), ..PairsConfig::default() };
    let said = message(plain().pairs(half).start().await);
    assert!(said.contains("pairs.positive"), "{said}");
    let other =
        PairsConfig { positive: Some("reply".into()), anchor: Some("question".into()), ..PairsConfig::default() };
    let said = message(plain().pairs(other).start().await);
    assert!(said.contains("`reply`"), "{said}");
}

/// By the model that is shipped, from a pipeline file.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_texts_from_a_pipeline_file() {
    let texts = |end: &str| {
        let animals = ["dog", "cat", "horse", "whale", "sparrow", "ant"];
        let does = ["sleeps", "runs", "eats", "sings", "hides", "waits", "swims", "jumps"];
        let text = |i: usize| format!("a {} that {} {end}", animals[i % 6], does[i / 6 % 8]);
        Arc::new(prosampler::arrow::array::StringArray::from_iter_values((0..48).map(text))) as ArrayRef
    };
    let dir = TempDir::new().unwrap();
    let rows = RecordBatch::try_from_iter([("short", texts("")), ("long", texts("near the old house"))]).unwrap();
    crate::support::write_parquet(&dir.path().join("pairs.parquet"), &rows, 100);
    let model = path("data/models/gloss-encoder/model.onnx");
    let text = format!(
        "source.uri = '{}'\nencode.model = '{}'\npairs = {{ anchor = 'short', positive = 'long' }}\n\
         graph = {{ candidates = 40, neighbors = 8 }}\nwalk = {{ batch_size = 8, negatives = 1 }}\n\
         guards.max_similarity = 0.999\n",
        dir.path().join("pairs.parquet").display(),
        model.display()
    );
    let config = prosampler::PipelineConfig::from_toml(&text).unwrap();
    let mut stream = Pipeline::from_config(config).start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let pair = |i| snapshot.embeddings.pair_similarity(SampleId::new(i)).unwrap();
    assert!((0..48).all(|i| pair(i) > 0.3), "{:?}", (0..48).map(pair).collect::<Vec<_>>());
    let first = stream.try_next().await.unwrap().unwrap();
    assert_eq!(first.rows["negative_1"].len(), 8);
    assert_eq!(first.rows["negative_1"].null_count(), 0);
}
