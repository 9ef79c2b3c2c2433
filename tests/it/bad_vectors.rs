//! A vector that is not finite, or has no direction, stops the run with the sample's name, or its sample is skipped and
//! counted; whether it comes from a column, a model, several views or a newer model.

use std::sync::{Arc, Mutex, mpsc};

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, Float64Array, ListArray, RecordBatch, UInt32Array};
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, Field, Float64Type};
use prosampler::config::{
    Combine, EncodeConfig, FeatureKind, GraphConfig, GraphOver, OnBadSample, Similarity, Storage, StreamConfig,
};
use prosampler::encode::{ColumnEncoder, CombinedEncoder, Encoder, PairEncoder};
use prosampler::error::EmbeddingError;
use prosampler::source::MemorySource;
use prosampler::{Error, MiniBatchStream, Pipeline, PipelineBuilder, Result, SampleId};

use crate::support::{DIMENSION, TestEncoder, assert_says, graph_config, pipeline, source, vectors, walk_config};

const SKIP: OnBadSample = OnBadSample::Skip;

fn encode(on_bad_sample: OnBadSample) -> EncodeConfig {
    EncodeConfig { on_bad_sample, ..EncodeConfig::default() }
}

fn dot() -> GraphConfig {
    GraphConfig { similarity: Similarity::Dot, ..graph_config(40, 10) }
}

/// A vector in a column, null or with nulls.
type Row = Option<Vec<Option<f64>>>;

/// 100 vectors of eight numbers; sample 17 has others.
fn column(odd: Row, of: &DataType) -> ArrayRef {
    let good = vectors(100, DIMENSION, 10, 3);
    let row = |i: usize| match i {
        17 => odd.clone(),
        _ => Some(good[i * DIMENSION..][..DIMENSION].iter().map(|&x| Some(f64::from(x))).collect()),
    };
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>((0..100).map(row));
    let to = DataType::List(Arc::new(Field::new_list_field(of.clone(), true)));
    cast(&lists, &to).unwrap()
}

fn of_column(vectors: ArrayRef, on_bad_sample: OnBadSample) -> PipelineBuilder {
    let rows = RecordBatch::try_from_iter([("v", vectors)]).unwrap();
    let encode = EncodeConfig {
        feature: Some(FeatureKind::Vector),
        column: Some("v".into()),
        dimension: Some(DIMENSION),
        ..encode(on_bad_sample)
    };
    let source = MemorySource::new(vec![rows.clone()]).unwrap();
    let encoder = prosampler::encode::open(&encode, &rows.schema()).unwrap();
    pipeline(100, 11).source(source).encoder(encoder).encode(encode)
}

async fn drawn(stream: &mut MiniBatchStream) -> Vec<u32> {
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    let mut ids: Vec<_> = batches.iter().flat_map(|m| m.ids.iter().map(|id| id.0)).collect();
    ids.sort_unstable();
    ids
}

fn all_but(odd: &[u32], len: u32) -> Vec<u32> {
    (0..len).filter(|id| !odd.contains(id)).collect()
}

fn reasons(stream: &MiniBatchStream) -> Vec<(usize, u32, String)> {
    let snapshot = stream.snapshot().unwrap();
    let reasons = snapshot.embeddings.skip_reasons().iter();
    reasons.map(|why| (why.samples, why.first.0, format!("{} {}", why.column, why.reason))).collect()
}

#[tokio::test]
async fn a_column_of_vectors_may_have_bad_ones() {
    let with =
        |at: usize, x: f64| Some((0..DIMENSION).map(|i| Some(if i == at { x } else { 1.0 })).collect::<Vec<_>>());
    let (f64, f32, f16) = (DataType::Float64, DataType::Float32, DataType::Float16);
    let no_cosine = "gives a vector of length 0, which has no cosine similarity";
    let null_within = Some((0..DIMENSION).map(|i| (i != 3).then_some(1.0)).collect());
    let cases: [(Row, &DataType, GraphConfig, &str); 11] = [
        (with(3, f64::NAN), &f32, graph_config(40, 10), "gives a vector whose component 3 is NaN"),
        (with(3, f64::NAN), &f64, dot(), "gives a vector whose component 3 is NaN"),
        (with(0, f64::INFINITY), &f32, graph_config(40, 10), "gives a vector whose component 0 is inf"),
        (with(7, 1e6), &f16, graph_config(40, 10), "gives a vector whose component 7 is inf"),
        (with(7, -1e60), &f64, graph_config(40, 10), "gives a vector whose component 7 is -inf"),
        (Some(vec![Some(0.0); 8]), &f32, graph_config(40, 10), no_cosine),
        (Some(vec![Some(-0.0); 8]), &f64, graph_config(40, 10), no_cosine),
        (with(7, 1e30), &f32, dot(), "which has no dot similarity"),
        (None, &f32, graph_config(40, 10), "is null"),
        (null_within, &f32, graph_config(40, 10), "has 1 nulls among its numbers"),
        (Some(vec![Some(1.0); 9]), &f32, graph_config(40, 10), "has 9 numbers, not 8"),
    ];
    for (odd, of, graph, reason) in cases {
        let values = column(odd, of);
        let error = of_column(values.clone(), OnBadSample::Fail).graph(graph.clone()).start().await.unwrap_err();
        assert_says(&error.to_string(), &["column `v`", reason, "sample 17", "or set encode.on_bad_sample = \"skip\""]);
        let mut stream = of_column(values, SKIP).graph(graph).start().await.unwrap();
        assert_eq!(drawn(&mut stream).await, all_but(&[17], 100), "{reason}");
        assert_eq!(stream.skipped(), 1);
        let [(1, 17, said)] = &reasons(&stream)[..] else { panic!("{:?}", reasons(&stream)) };
        assert!(said.starts_with("v ") && said.contains(reason), "{said}");
    }
    let mut zero =
        of_column(column(Some(vec![Some(0.0); 8]), &f32), OnBadSample::Fail).graph(dot()).start().await.unwrap();
    assert_eq!(drawn(&mut zero).await, all_but(&[], 100), "zeros are a vector like any other to a dot product");
}

#[tokio::test]
async fn a_model_may_give_bad_vectors() {
    let alter = |_: u64, n: u32, vector: &mut [f32]| match n {
        3 | 5 => vector[(n % 8) as usize] = f32::NAN,
        8 => vector[1] = f32::NEG_INFINITY,
        13 => vector.fill(0.0),
        21 => vector.iter_mut().for_each(|x| *x *= 1e30),
        34 => vector[6] = -1e5,
        _ => {}
    };
    let start = |on_bad_sample, storage, graph| {
        let encode = EncodeConfig { storage, ..encode(on_bad_sample) };
        pipeline(100, 5).encoder(TestEncoder::new(100).altered(alter)).encode(encode).graph(graph).start()
    };
    let error = start(OnBadSample::Fail, Storage::F32, graph_config(40, 10)).await.unwrap_err();
    assert!(matches!(error, Error::Embedding(EmbeddingError::BadSample { sample: SampleId(3), .. })));
    assert_eq!(
        error.to_string(),
        "sample 3 cannot be encoded: column `n` gives a vector whose component 3 is NaN; correct or remove that row, \
         or set encode.on_bad_sample = \"skip\""
    );
    for storage in [Storage::F32, Storage::F16, Storage::I8] {
        let mut stream = start(SKIP, storage, graph_config(40, 10)).await.unwrap();
        assert_eq!(drawn(&mut stream).await, all_but(&[3, 5, 8, 13], 100));
        let expected = [
            (2, 3, "n gives a vector whose component 3 is NaN"),
            (1, 8, "n gives a vector whose component 1 is -inf"),
            (1, 13, "n gives a vector of length 0, which has no cosine similarity"),
        ];
        assert_eq!(reasons(&stream), expected.map(|(n, first, why)| (n, first, why.to_owned())));

        let mut stream = start(SKIP, storage, dot()).await.unwrap();
        let ends_at_f16: &[u32] = if storage == Storage::F16 { &[34] } else { &[] };
        assert_eq!(drawn(&mut stream).await, all_but(&[&[3, 5, 8, 21], ends_at_f16].concat(), 100));
        assert_says(&reasons(&stream)[2].2, &["n gives a vector of length ", "which has no dot similarity"]);
        if storage == Storage::F16 {
            let reason = "n gives a vector whose component 6 is -100000, more than encode.storage = \"f16\" holds";
            assert_eq!(reasons(&stream)[3], (1, 34, reason.to_owned()));
        }
    }
}

/// The other samples have the vectors and neighbors that they have without the bad ones.
#[tokio::test]
async fn bad_vectors_do_not_change_other_samples() {
    let alter = |_: u64, n: u32, vector: &mut [f32]| {
        if n >= 90 {
            vector.fill(f32::NAN)
        }
    };
    let graph = || GraphConfig { builder: prosampler::config::GraphBuilder::Exact, ..graph_config(40, 10) };
    let with = pipeline(100, 5).encoder(TestEncoder::new(100).altered(alter)).encode(encode(SKIP)).graph(graph());
    let with = with.start().await.unwrap().snapshot().unwrap();
    let without =
        pipeline(90, 5).encoder(TestEncoder::new(100)).graph(graph()).start().await.unwrap().snapshot().unwrap();
    for id in (0..90).map(SampleId) {
        assert_eq!(with.embeddings.get(id), without.embeddings.get(id));
        assert_eq!(with.graph.neighbors(id), without.graph.neighbors(id));
    }
}

const ROWS: usize = 8192;

/// A run over three record batches of 8,192 rows, some of which are null or get a vector of NaN.
async fn over_three(
    is_null: fn(usize) -> bool,
    is_nan: impl Fn(usize) -> bool + Send + Sync + 'static,
    on_bad_sample: OnBadSample,
) -> Result<MiniBatchStream> {
    let numbers: UInt32Array = (0..3 * ROWS).map(|n| (!is_null(n)).then_some(n as u32)).collect();
    let rows = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
    let alter = move |_: u64, n: u32, vector: &mut [f32]| {
        if is_nan(n as usize) {
            vector.fill(f32::NAN)
        }
    };
    let source = MemorySource::new(vec![rows]).unwrap();
    let encoder = TestEncoder::new(3 * ROWS).altered(alter);
    pipeline(3 * ROWS, 16).source(source).encoder(encoder).encode(encode(on_bad_sample)).start().await
}

#[tokio::test]
async fn a_model_without_a_usable_vector_in_its_first_record_batch_is_an_error() {
    for on_bad_sample in [OnBadSample::Fail, SKIP] {
        let error = over_three(|_| false, |_| true, on_bad_sample).await.unwrap_err();
        assert!(matches!(error, Error::Embedding(EmbeddingError::NoVectors { rows: ROWS, sample: SampleId(0), .. })));
        assert_eq!(
            error.to_string(),
            "encoder `test` makes no usable vector of any of the first 8192 samples it is given: column `n` at sample \
             0 gives a vector whose component 0 is NaN; check the model or the column, or filter these rows out"
        );
    }
    // Nulls do not count against the model, and a model that has given usable vectors may fail on many rows later.
    let stream = over_three(|n| n < ROWS, |_| false, SKIP).await.unwrap();
    assert_eq!(stream.skipped(), ROWS);
    let stream = over_three(|_| false, |n| n / ROWS == 1, SKIP).await.unwrap();
    assert_eq!((stream.skipped(), reasons(&stream)[0].1), (ROWS, ROWS as u32));
    let error = over_three(|n| n < ROWS, |n| n < 2 * ROWS, SKIP).await.unwrap_err();
    assert!(matches!(error, Error::Embedding(EmbeddingError::NoVectors { sample: SampleId(8192), .. })), "{error}");
}

#[tokio::test]
async fn if_all_samples_are_skipped_the_error_says_why() {
    let error = over_three(|_| true, |_| false, SKIP).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "24576 of the 24576 samples of `memory` were skipped, since they cannot be encoded (column `n` is null, sample \
         0 first), but at least 16 must be left for a mini-batch; correct these rows, check encode.column, or lower \
         walk.batch_size"
    );
}

/// Columns `a` and `b` of two numbers, 40 samples: `b` is `a` but for four samples.
fn halves() -> (RecordBatch, Arc<dyn Encoder>, Arc<dyn Encoder>) {
    let a = |n: usize| if n == 3 { [0.0, 0.0] } else { [1.0, n as f64] };
    let b = |n: usize| match n {
        5 => [0.0, 0.0],
        7 => [f64::NAN, 1.0],
        9 => [-1.0, -9.0],
        n => a(n),
    };
    let list = |of: &dyn Fn(usize) -> [f64; 2]| -> ArrayRef {
        let numbers = Float64Array::from_iter_values((0..40).flat_map(of));
        let item = Arc::new(Field::new_list_field(DataType::Float64, false));
        Arc::new(prosampler::arrow::array::FixedSizeListArray::new(item, 2, Arc::new(numbers), None))
    };
    let rows = RecordBatch::try_from_iter([("a", list(&a)), ("b", list(&b))]).unwrap();
    let encoder = |column: &str| Arc::new(ColumnEncoder::new(&rows.schema(), column).unwrap());
    let (a, b) = (encoder("a"), encoder("b"));
    (rows, a, b)
}

/// A view, or half of a pair, without a direction makes the row bad and names its column. So do opposite vectors whose
/// mean is zero.
#[tokio::test]
async fn each_view_and_each_half_of_a_pair_must_have_a_direction() {
    let (rows, a, b) = halves();
    let combined = |combine| Arc::new(CombinedEncoder::new(vec![a.clone(), b.clone()], combine).unwrap());
    let pair = |over| Arc::new(PairEncoder::new(a.clone(), b.clone(), over).unwrap());
    let cases: [(Arc<dyn Encoder>, bool); 5] = [
        (combined(Combine::Mean), true),
        (combined(Combine::Concat), false),
        (pair(GraphOver::Anchors), false),
        (pair(GraphOver::Positives), false),
        (pair(GraphOver::Mean), true),
    ];
    let no_direction = "gives a vector of length 0, which has no cosine similarity";
    for (encoder, is_mean) in cases {
        let start = |on_bad_sample| {
            let source = MemorySource::new(vec![rows.clone()]).unwrap();
            pipeline(40, 5).source(source).encoder(encoder.clone()).encode(encode(on_bad_sample)).start()
        };
        let error = start(OnBadSample::Fail).await.unwrap_err().to_string();
        assert_says(&error, &["sample 3 cannot be encoded: column `a` gives a vector of length 0"]);
        let mut stream = start(SKIP).await.unwrap();
        let odd: &[u32] = if is_mean { &[3, 5, 7, 9] } else { &[3, 5, 7] };
        assert_eq!(drawn(&mut stream).await, all_but(odd, 40));
        let mut expected = vec![
            (1, 3, format!("a {no_direction}")),
            (1, 5, format!("b {no_direction}")),
            (1, 7, "b gives a vector whose component 0 is NaN".to_owned()),
        ];
        expected.extend(is_mean.then(|| (1, 9, format!("a together with `b` {no_direction}"))));
        assert_eq!(reasons(&stream), expected);
    }
}

/// An encoder whose newer versions get worse: version 1 makes nothing of sample 16, version 2 of none.
fn worsening() -> TestEncoder {
    TestEncoder::new(100).altered(|version, n, vector| {
        if version > 1 || (version == 1 && n == 16) {
            vector[2] = f32::NAN;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_model_may_skip_some_samples_but_not_all() {
    // While the newer model embeds all samples, a vector is pushed for the sample that it skips, and one for another.
    let ((begun, has_begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    let (begun, go_on) = (Mutex::new(begun), Mutex::new(go_on));
    let encoder = worsening().before_each_call(move |call| {
        if call == 2 {
            begun.lock().unwrap().send(()).unwrap();
            go_on.lock().unwrap().recv().unwrap();
        }
    });
    let start = |encoder: TestEncoder, on_bad_sample| {
        let stream = StreamConfig { epochs: 4, prefetch: 1, ..StreamConfig::default() };
        pipeline(100, 5).encoder(encoder).encode(encode(on_bad_sample)).stream(stream).start()
    };
    let stream = start(encoder.clone(), SKIP).await.unwrap();
    let handle = stream.handle();
    encoder.train();
    let refreshing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh_now().await }
    });
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    handle.push_embeddings(&[SampleId(16), SampleId(17)], &[1.0; 2 * DIMENSION]).unwrap();
    go.send(()).unwrap();
    let refreshed = refreshing.await.unwrap().unwrap();
    assert!(!refreshed.skipped && refreshed.drift.is_some());
    assert_eq!(reasons(&stream), [(1, 16, "n gives a vector whose component 2 is NaN".to_owned())]);
    assert_eq!(handle.refresh_now().await.unwrap().pushed, 1, "the vector for the other sample is taken");
    assert!(handle.snapshot().unwrap().embeddings.is_skipped(SampleId(16)));

    encoder.train();
    let before = handle.snapshot().unwrap();
    let error = handle.refresh_now().await.unwrap_err().to_string();
    assert_says(&error, &["encoder `test` makes no usable vector of any of the first", "component 2 is NaN"]);
    assert!(Arc::ptr_eq(&before, &handle.snapshot().unwrap()), "the old snapshot stays");

    let encoder = worsening();
    let stream = start(encoder.clone(), OnBadSample::Fail).await.unwrap();
    encoder.train();
    let error = stream.handle().refresh_now().await.unwrap_err().to_string();
    assert_says(&error, &["sample 16 cannot be encoded: column `n` gives a vector whose component 2 is NaN"]);
}

/// Bad vectors that the trainer pushes are refused by the call, whatever the settings say of bad samples.
#[tokio::test]
async fn bad_pushed_vectors_are_refused_by_the_call() {
    let stream = pipeline(100, 5).encode(encode(SKIP)).start().await.unwrap();
    let handle = stream.handle();
    let mut two = [1.0; 2 * DIMENSION];
    two[DIMENSION + 3] = f32::NAN;
    let error = handle.push_embeddings(&[SampleId(8), SampleId(9)], &two).unwrap_err();
    assert!(
        matches!(error, Error::Embedding(EmbeddingError::NotFinite { sample: SampleId(9), component: 3, .. })),
        "{error}"
    );
    let error = handle.push_embeddings(&[SampleId(7)], &[0.0; DIMENSION]).unwrap_err();
    assert!(matches!(error, Error::Embedding(EmbeddingError::BadLength { sample: SampleId(7), .. })), "{error}");
    assert!(handle.refresh_now().await.unwrap().pushed == 0, "nothing was taken");
}

/// The encoder is opened from the columns alone; the message names the file all the same.
#[tokio::test]
async fn a_column_of_vectors_that_is_not_there_is_told_with_its_file() {
    let encode = EncodeConfig {
        feature: Some(FeatureKind::Vector),
        column: Some("vectors".into()),
        dimension: Some(6),
        ..EncodeConfig::default()
    };
    let builder = Pipeline::builder().source(source(100)).encode(encode).walk(walk_config(5));
    let error = builder.start().await.unwrap_err().to_string();
    assert_says(&error, &["column `vectors` not found in `memory`", "it has `n`"]);
}
