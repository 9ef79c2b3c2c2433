//! Vectors that can stand for no sample stop a run with the sample's name, or are skipped and counted, wherever they
//! come from: a column, a model, several views, a newer model.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, Float64Array, ListArray, RecordBatch, UInt32Array};
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, Field, Float64Type, UInt32Type};
use prosampler::config::{
    Combine, EncodeConfig, FeatureKind, GraphConfig, GraphOver, OnBadSample, Similarity, Storage, StreamConfig,
};
use prosampler::encode::{ColumnEncoder, CombinedEncoder, Encoder, PairEncoder};
use prosampler::source::MemorySource;
use prosampler::{Error, MiniBatchStream, PipelineBuilder, Result, SampleId};

use crate::support::{DIMENSION, TestEncoder, assert_says, graph_config, pipeline, vectors};

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
    let snapshot = stream.snapshot();
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
    let spoil = |n: u32, vector: &mut [f32]| match n {
        3 | 5 => vector[(n % 8) as usize] = f32::NAN,
        8 => vector[1] = f32::NEG_INFINITY,
        13 => vector.fill(0.0),
        21 => vector.iter_mut().for_each(|x| *x *= 1e30),
        34 => vector[6] = -1e5,
        _ => {}
    };
    let start = |on_bad_sample, storage, graph| {
        let encode = EncodeConfig { storage, ..encode(on_bad_sample) };
        pipeline(100, 5).encoder(TestEncoder::spoiled(100, spoil)).encode(encode).graph(graph).start()
    };
    let error = start(OnBadSample::Fail, Storage::F32, graph_config(40, 10)).await.unwrap_err();
    assert!(matches!(error, Error::BadSample { sample: SampleId(3), .. }));
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

/// What is left has the vectors and neighbors that it has alone.
#[tokio::test]
async fn bad_vectors_leave_no_trace_in_others() {
    let spoil = |n: u32, vector: &mut [f32]| {
        if n >= 90 {
            vector.fill(f32::NAN)
        }
    };
    let graph = || GraphConfig { builder: prosampler::config::GraphBuilder::Exact, ..graph_config(40, 10) };
    let with = pipeline(100, 5).encoder(TestEncoder::spoiled(100, spoil)).encode(encode(SKIP)).graph(graph());
    let with = with.start().await.unwrap().snapshot();
    let without = pipeline(90, 5).encoder(TestEncoder::new(100)).graph(graph()).start().await.unwrap().snapshot();
    for id in (0..90).map(SampleId) {
        assert_eq!(with.embeddings.get(id), without.embeddings.get(id));
        assert_eq!(with.graph.neighbors(id), without.graph.neighbors(id));
    }
}

const ROWS: usize = 8192;

/// `spoil` over three record batches of 8,192 rows, of which some are null.
async fn over_three(
    is_null: fn(usize) -> bool,
    spoil: impl Fn(usize) -> bool + Send + Sync + 'static,
    on_bad_sample: OnBadSample,
) -> Result<MiniBatchStream> {
    let numbers: UInt32Array = (0..3 * ROWS).map(|n| (!is_null(n)).then_some(n as u32)).collect();
    let rows = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
    let spoil = move |n: u32, vector: &mut [f32]| {
        if spoil(n as usize) {
            vector.fill(f32::NAN)
        }
    };
    let source = MemorySource::new(vec![rows]).unwrap();
    let encoder = TestEncoder::spoiled(3 * ROWS, spoil);
    pipeline(3 * ROWS, 16).source(source).encoder(encoder).encode(encode(on_bad_sample)).start().await
}

#[tokio::test]
async fn a_model_that_makes_nothing_of_the_first_record_batch_is_at_fault_itself() {
    for on_bad_sample in [OnBadSample::Fail, SKIP] {
        let error = over_three(|_| false, |_| true, on_bad_sample).await.unwrap_err();
        assert!(matches!(error, Error::NoVectors { rows: ROWS, sample: SampleId(0), .. }));
        assert_eq!(
            error.to_string(),
            "encoder `test` makes no usable vector of any of the first 8192 samples it is given: column `n` at sample \
             0 gives a vector whose component 0 is NaN; check the model or the column, or filter these rows out"
        );
    }
    // Nulls are nobody's fault; a model that has done well may fail later, on many.
    let stream = over_three(|n| n < ROWS, |_| false, SKIP).await.unwrap();
    assert_eq!(stream.skipped(), ROWS);
    let stream = over_three(|_| false, |n| n / ROWS == 1, SKIP).await.unwrap();
    assert_eq!((stream.skipped(), reasons(&stream)[0].1), (ROWS, ROWS as u32));
    let error = over_three(|n| n < ROWS, |n| n < 2 * ROWS, SKIP).await.unwrap_err();
    assert!(matches!(error, Error::NoVectors { sample: SampleId(8192), .. }), "{error}");
}

#[tokio::test]
async fn where_all_are_skipped_the_error_says_why() {
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

/// A view or a half of a pair without direction is bad by its own column, and so are opposite ones whose mean is zero.
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

/// Says that it has begun, and waits to go on.
type Gate = (mpsc::Sender<()>, mpsc::Receiver<()>);

/// Its newer versions make nothing of more samples: 1 not of 16, 2 of none. It waits where it is told to.
#[derive(Clone)]
struct Worsening {
    columns: Vec<String>,
    version: u64,
    newest: Arc<AtomicU64>,
    gate: Arc<Mutex<Option<Gate>>>,
}

impl Encoder for Worsening {
    fn name(&self) -> &str {
        "worsening"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let version = self.newest.load(Relaxed);
        Ok((version > self.version).then(|| Arc::new(Self { version, ..self.clone() }) as _))
    }

    fn encode(&self, rows: &RecordBatch, all: &mut [f32]) -> Result<()> {
        if let Some((begun, go_on)) = self.gate.lock().unwrap().take() {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        let table = vectors(100, DIMENSION, 10, 3 + self.version);
        let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
        for (&n, vector) in numbers.iter().zip(all.chunks_exact_mut(DIMENSION)) {
            vector.copy_from_slice(&table[n as usize * DIMENSION..][..DIMENSION]);
            if self.version > 1 || (self.version == 1 && n == 16) {
                vector[2] = f32::NAN;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_model_may_make_nothing_of_some_but_not_of_all() {
    let encoder = Worsening { columns: vec!["n".into()], version: 0, newest: Arc::default(), gate: Arc::default() };
    let start = |on_bad_sample| {
        let stream = StreamConfig { epochs: 4, prefetch: 1, ..StreamConfig::default() };
        pipeline(100, 5).encoder(encoder.clone()).encode(encode(on_bad_sample)).stream(stream).start()
    };
    let stream = start(SKIP).await.unwrap();
    let handle = stream.handle();
    // While the newer model embeds all, a vector comes for the sample that it will skip, and one for another.
    let ((begun, has_begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    *encoder.gate.lock().unwrap() = Some((begun, go_on));
    encoder.newest.store(1, Relaxed);
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
    assert_eq!(handle.refresh_now().await.unwrap().pushed, 1, "the other one is taken");
    assert!(handle.snapshot().embeddings.is_skipped(SampleId(16)));

    encoder.newest.store(2, Relaxed);
    let before = handle.snapshot();
    let error = handle.refresh_now().await.unwrap_err().to_string();
    assert_says(&error, &["encoder `worsening` makes no usable vector of any of the first", "component 2 is NaN"]);
    assert!(Arc::ptr_eq(&before, &handle.snapshot()), "the old snapshot stays");

    encoder.newest.store(0, Relaxed);
    let stream = start(OnBadSample::Fail).await.unwrap();
    encoder.newest.store(1, Relaxed);
    let error = stream.handle().refresh_now().await.unwrap_err().to_string();
    assert_says(&error, &["sample 16 cannot be encoded: column `n` gives a vector whose component 2 is NaN"]);
}

/// The trainer's own are refused by the call, whatever the settings say of bad samples.
#[tokio::test]
async fn bad_pushed_vectors_are_refused_by_the_call() {
    let stream = pipeline(100, 5).encode(encode(SKIP)).start().await.unwrap();
    let handle = stream.handle();
    let mut two = [1.0; 2 * DIMENSION];
    two[DIMENSION + 3] = f32::NAN;
    let error = handle.push_embeddings(&[SampleId(8), SampleId(9)], &two).unwrap_err();
    assert!(matches!(error, Error::NotFinite { sample: SampleId(9), component: 3, .. }), "{error}");
    let error = handle.push_embeddings(&[SampleId(7)], &[0.0; DIMENSION]).unwrap_err();
    assert!(matches!(error, Error::BadLength { sample: SampleId(7), .. }), "{error}");
    assert!(handle.refresh_now().await.unwrap().pushed == 0, "nothing was taken");
}
