//! Text pairs, prefixes, pooling and unit length are as with Python's tokenizers and onnxruntime.

use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, BinaryArray, LargeBinaryArray, RecordBatch};
use prosampler::config::{EncodeConfig, Pooling};
use prosampler::encode::{Encoder, OnnxEncoder};

use crate::support::{assert_says, difference, encode, lists, path, read_parquet};

const STATES: &str = "tests/data/states.onnx";
const SHIPPED: &str = "data/models/gloss-encoder/model.onnx";

fn config(model: &str) -> EncodeConfig {
    EncodeConfig {
        model: Some(path(model)),
        tokenizer: Some(path("data/models/gloss-encoder/tokenizer.json")),
        column: Some("left".into()),
        max_tokens: 24,
        sessions: 1,
        ..EncodeConfig::default()
    }
}

fn rows() -> RecordBatch {
    read_parquet("tests/data/features/pairs.parquet")
}

/// The states of this model are (token id, attention, type).
#[test]
fn pairs_have_the_tokens_and_types_of_python() {
    let rows = rows();
    let (ids, types) = (lists(&rows, "pair_ids"), lists(&rows, "pair_types"));
    let mean = |numbers: &[f32]| numbers.iter().sum::<f32>() / numbers.len() as f32;
    let pair = |pooling| {
        let config = EncodeConfig { pair_column: Some("right".into()), pooling, ..config(STATES) };
        let encoder = OnnxEncoder::open(&config).unwrap();
        assert_eq!(encoder.columns(), ["left", "right"]);
        encode(&encoder, &rows)
    };
    let expected = |of: &dyn Fn(&[f32]) -> f32| -> Vec<Vec<f32>> {
        ids.iter().zip(&types).map(|(ids, types)| vec![of(ids), 1.0, of(types)]).collect()
    };
    let last = |numbers: &[f32]| *numbers.last().unwrap();
    assert!(types.iter().any(|types| last(types) == 1.0), "this tokenizer tells the two texts apart");
    assert!(difference(&pair(Pooling::Mean), &expected(&mean)) < 1e-2);
    assert_eq!(pair(Pooling::Cls), expected(&|numbers| numbers[0]));
    assert_eq!(pair(Pooling::Last), expected(&last));
}

#[test]
fn vectors_of_pairs_are_those_of_onnxruntime() {
    let config = EncodeConfig { pair_column: Some("right".into()), ..config(SHIPPED) };
    let rows = rows();
    assert!(difference(&encode(&OnnxEncoder::open(&config).unwrap(), &rows), &lists(&rows, "pair_vector")) < 1e-5);
}

#[test]
fn a_prefix_stands_before_each_text() {
    let config = EncodeConfig { prefix: "query: ".into(), pooling: Pooling::Last, ..config(STATES) };
    let rows = rows();
    let found = encode(&OnnxEncoder::open(&config).unwrap(), &rows);
    let mean = EncodeConfig { pooling: Pooling::Mean, ..config };
    let means = encode(&OnnxEncoder::open(&mean).unwrap(), &rows);
    for ((found, mean), ids) in found.iter().zip(means).zip(lists(&rows, "prefixed_ids")) {
        assert_eq!(found[0], *ids.last().unwrap());
        assert!((mean[0] - ids.iter().sum::<f32>() / ids.len() as f32).abs() < 1e-2);
    }
}

#[test]
fn vectors_are_brought_to_unit_length_if_asked() {
    let rows = rows();
    let plain = encode(&OnnxEncoder::open(&config(STATES)).unwrap(), &rows);
    let unit = encode(&OnnxEncoder::open(&EncodeConfig { normalize: true, ..config(STATES) }).unwrap(), &rows);
    for (plain, unit) in plain.iter().zip(unit) {
        let length = plain.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(length > 2.0);
        assert!(difference(&[plain.iter().map(|x| x / length).collect()], &[unit]) < 1e-6);
    }
}

/// Without pooling, a model of token states is refused; one that pools itself is taken.
#[test]
fn pooling_none_leaves_it_to_the_model() {
    let none = |model| OnnxEncoder::open(&EncodeConfig { pooling: Pooling::None, ..config(model) });
    assert_eq!(none(SHIPPED).unwrap().dimension(), 128);
    let error = none(STATES).unwrap_err().to_string();
    assert_says(
        &error,
        &[
            "`last_hidden_state` the shape [1, ",
            "expected [batch, dimension], since encode.pooling is \"none\"",
            "set encode.pooling",
        ],
    );
}

#[test]
fn utf8_in_binary_columns_is_text() {
    let texts = ["a dog", "naïve café", ""];
    let bytes = || texts.iter().map(|t| t.as_bytes()).collect::<Vec<_>>();
    let columns: [ArrayRef; 2] = [Arc::new(BinaryArray::from(bytes())), Arc::new(LargeBinaryArray::from(bytes()))];
    let strings: ArrayRef = Arc::new(prosampler::arrow::array::StringArray::from(texts.to_vec()));
    let encoder = OnnxEncoder::open(&config(STATES)).unwrap();
    let of = |column: ArrayRef| encode(&encoder, &RecordBatch::try_from_iter([("left", column)]).unwrap());
    let expected = of(strings);
    for column in columns {
        assert_eq!(of(column), expected);
    }
}
