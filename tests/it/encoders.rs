//! Encoders give the vectors of Python and of exact arithmetic, and do better than a bag of words.

use std::sync::Arc;

use prosampler::arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float64Array, LargeListArray, RecordBatch, StringArray,
};
use prosampler::arrow::datatypes::{DataType, Field, Float64Type};
use prosampler::config::{EncodeConfig, Pooling, Similarity, Storage, StoreConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::{ColumnEncoder, Encoder, OnnxEncoder, contract, encode_all};
use prosampler::source::{FileSource, MemorySource, Source};
use prosampler::store::Store;
use prosampler::{ComputePool, ModelVersion, SampleId, graph};
use serde_json::Value;

use crate::support::path;

#[path = "../../examples/custom_encoder.rs"]
#[allow(dead_code)]
mod custom_encoder;

fn config(model: &str, sessions: usize) -> EncodeConfig {
    EncodeConfig {
        model: Some(path(model)),
        tokenizer: Some(path("data/models/gloss-encoder/tokenizer.json")),
        column: Some("text".into()),
        sessions,
        ..EncodeConfig::default()
    }
}

fn encode(encoder: &dyn Encoder, texts: &[&str]) -> Vec<Vec<f32>> {
    let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    let rows = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let mut vectors = vec![0f32; texts.len() * encoder.dimension()];
    encoder.encode(&rows, &mut vectors).unwrap();
    vectors.chunks(encoder.dimension()).map(<[f32]>::to_vec).collect()
}

fn reference() -> Vec<(String, Vec<i64>, Vec<f32>)> {
    let text = std::fs::read_to_string(path("data/models/gloss-encoder/reference.json")).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    let numbers = |entry: &Value, key: &str| entry[key].as_array().unwrap().clone();
    let entry = |e: &Value| {
        let ids = numbers(e, "input_ids").iter().map(|i| i.as_i64().unwrap()).collect();
        let embedding = numbers(e, "embedding").iter().map(|x| x.as_f64().unwrap() as f32).collect();
        (e["text"].as_str().unwrap().to_owned(), ids, embedding)
    };
    entries.iter().map(entry).collect()
}

/// Tokens and vectors are those of Python's tokenizers and onnxruntime, whatever else is in the batch.
#[test]
fn the_shipped_encoder_gives_what_python_gives() {
    let reference = reference();
    assert!(reference.len() >= 8);
    let texts: Vec<_> = reference.iter().map(|(text, ..)| text.as_str()).collect();
    let encoder = OnnxEncoder::open(&config("data/models/gloss-encoder/model.onnx", 2)).unwrap();
    assert_eq!(encoder.dimension(), 128);
    let together = encode(&encoder, &texts);
    for ((text, _, expected), together) in reference.iter().zip(&together) {
        let alone = &encode(&encoder, &[text])[0];
        for ((a, b), e) in alone.iter().zip(together).zip(expected) {
            assert!((a - e).abs() < 1e-5 && (b - e).abs() < 1e-5, "{text}: {a} alone, {b} together, {e} in Python");
        }
    }
}

/// The states of this model are (token id, attention, type), so means are known from the token ids.
#[test]
fn pooling_is_exact() {
    let (mean, first) = (config("tests/data/states.onnx", 1), Pooling::Cls);
    let cls = EncodeConfig { pooling: first, ..mean.clone() };
    let (mean, cls) = (OnnxEncoder::open(&mean).unwrap(), OnnxEncoder::open(&cls).unwrap());
    let reference = reference();
    let texts: Vec<_> = reference.iter().map(|(text, ..)| text.as_str()).collect();
    for ((vectors, firsts), (text, ids, _)) in encode(&mean, &texts).iter().zip(encode(&cls, &texts)).zip(&reference) {
        let expected = ids.iter().sum::<i64>() as f32 / ids.len() as f32;
        assert!((vectors[0] - expected).abs() < 1e-3, "{text}: {} instead of {expected}", vectors[0]);
        // If padding counted, these would be below 1 and not 0.
        assert!((vectors[1] - 1.0).abs() < 1e-6 && vectors[2] == 0.0, "{text}: {vectors:?}");
        assert_eq!(firsts, [ids[0] as f32, 1.0, 0.0]);
    }
}

#[test]
fn long_texts_are_cut_off() {
    let config = EncodeConfig { max_tokens: 4, ..config("tests/data/states.onnx", 1) };
    let long = "dog dog dog dog dog dog dog dog";
    let short = encode(&OnnxEncoder::open(&config).unwrap(), &[long, "dog dog"]);
    assert_eq!(short[0], short[1]);
}

#[test]
fn vectors_do_not_depend_on_threads() {
    let texts: Vec<_> = (0..300).map(|i| format!("{} definition number {i}", "long ".repeat(i % 40))).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let run = |threads: usize| {
        let pool = ComputePool::new(threads).unwrap();
        let encoder = OnnxEncoder::open(&config("data/models/gloss-encoder/model.onnx", threads)).unwrap();
        pool.install(|| encode(&encoder, &texts))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_column_of_vectors_is_taken_as_it_is() {
    let item = Arc::new(Field::new("item", DataType::Float64, false));
    let values = Arc::new(Float64Array::from_iter_values((0..12).map(f64::from)));
    let list: ArrayRef = Arc::new(FixedSizeListArray::new(item, 3, values, None));
    let rows = RecordBatch::try_from_iter([("vector", list)]).unwrap();
    let encoder = ColumnEncoder::new(&rows.schema(), "vector").unwrap();
    let mut vectors = vec![0f32; 6];
    encoder.encode(&rows.slice(1, 2), &mut vectors).unwrap();
    assert_eq!(vectors, [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);

    let text = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
    let error = ColumnEncoder::new(&text.schema(), "t").unwrap_err().to_string();
    assert!(error.contains("column `t` holds Utf8") && error.contains("are lists of numbers"), "{error}");
    assert!(ColumnEncoder::new(&text.schema(), "v").unwrap_err().to_string().contains("it has `t`"));
}

/// Parquet's lists have no fixed length, so the settings give it, and rows of another length cannot be read.
#[test]
fn plain_lists_are_vectors_of_a_given_dimension() {
    let lists = [
        Some(vec![Some(1.0), Some(2.0)]),
        Some(vec![Some(3.0)]),
        Some(vec![Some(4.0), None]),
        Some(vec![Some(5.0), Some(6.0)]),
    ];
    let list: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>(lists));
    let rows = RecordBatch::try_from_iter([("v", list)]).unwrap();
    let error = ColumnEncoder::new(&rows.schema(), "v").unwrap_err().to_string();
    assert!(error.contains("say how many numbers a list has, as encode.dimension"), "{error}");
    let encoder = ColumnEncoder::of_dimension(&rows.schema(), "v", 2).unwrap();
    let mut vectors = vec![0f32; 8];
    let bad = encoder.encode_readable(&rows, &mut vectors).unwrap().bad;
    assert_eq!(vectors, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0]);
    let bad: Vec<_> = bad.iter().map(|bad| (bad.row, bad.reason.as_str())).collect();
    assert_eq!(bad, [(1, "has 1 numbers, not 2"), (2, "has 1 nulls among its numbers")]);
    let mut last = vec![0f32; 2];
    encoder.encode(&rows.slice(3, 1), &mut last).unwrap();
    assert_eq!(last, [5.0, 6.0]);
}

/// Share of samples whose label wins among the 10 exact nearest neighbors.
fn probe(table: &EmbeddingTable, labels: &[String]) -> f64 {
    let graph = graph::exact(table, 10, Default::default()).unwrap();
    let right = (0..table.len()).filter(|&i| {
        let mut votes = std::collections::BTreeMap::<&str, f32>::new();
        let id = SampleId::new(i);
        for (neighbor, similarity) in graph.neighbors(id).iter().zip(graph.similarities(id)) {
            *votes.entry(&labels[neighbor.index()]).or_default() += similarity;
        }
        votes.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0 == labels[i]
    });
    right.count() as f64 / table.len() as f64
}

/// The encoder of the example is one of a user's own.
#[test]
fn the_encoder_of_the_example_keeps_the_contract() {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..50).map(|i| format!("text {i} of {}", i % 7))));
    let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
    contract::check(&custom_encoder::WordHashing::new("text", 16), &rows, 0.0).unwrap();
}

/// Among 4,000 definitions, labels by nearest neighbors are right more often with the shipped encoder than with a bag
/// of words.
#[tokio::test]
async fn the_shipped_encoder_beats_a_bag_of_words() {
    let source = FileSource::open(path("data/wordnet/glosses.parquet").display().to_string()).await.unwrap();
    let columns = ["definition".to_owned(), "label".to_owned()];
    let whole = Store::build(&source, &columns, &StoreConfig::default(), &mut |_| {}).await.unwrap();
    let ids: Vec<_> = (0..4000).map(|i| SampleId::new(i * 29)).collect();
    let some = MemorySource::new(vec![whole.gather(&ids).unwrap()]).unwrap();
    let store = Store::build(&some, &columns, &StoreConfig::default(), &mut |_| {}).await.unwrap();
    let labels: Vec<_> = store.gather(&(0..4000).map(SampleId).collect::<Vec<_>>()).unwrap()["label"]
        .as_string::<i32>()
        .iter()
        .map(|l| l.unwrap().to_owned())
        .collect();

    let column = Some("definition".to_owned());
    let shipped = EncodeConfig { column, ..config("data/models/gloss-encoder/model.onnx", 0) };
    let shipped = OnnxEncoder::open(&shipped).unwrap();
    shipped.accepts("wordnet", &some.schema()).unwrap();
    let words = custom_encoder::WordHashing::new("definition", shipped.dimension());
    let accuracy = |encoder: &dyn Encoder| {
        probe(
            &encode_all(encoder, &store, Storage::F32, Similarity::Cosine, ModelVersion(1), &mut |_| {}).unwrap(),
            &labels,
        )
    };
    let (shipped, words) = (accuracy(&shipped), accuracy(&words));
    println!("accuracy of 10 nearest neighbors: {shipped:.3}, bag of words {words:.3}");
    assert!(shipped > words + 0.1, "{shipped} against {words}");
}
