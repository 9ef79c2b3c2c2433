//! Models as people export them give the vectors of onnxruntime in Python, which runs one sample at a time.
//!
//! Some words have far larger vectors than others, and lengths vary, so a vector that depends on its batch is noticed.

use prosampler::arrow::array::RecordBatch;
use prosampler::config::{EncodeConfig, GraphInputConfig, ImageConfig, Pooling, TensorConfig};
use prosampler::encode::{Encoder, OnnxEncoder};

use crate::support::{assert_says, difference, encode, lists, path, read_parquet};

fn config(model: &str, tokenizer: &str) -> EncodeConfig {
    EncodeConfig {
        model: Some(path(&format!("tests/data/exports/{model}.onnx"))),
        tokenizer: Some(path(&format!("tests/data/exports/{tokenizer}.json"))),
        column: Some("text".into()),
        sessions: 1,
        ..EncodeConfig::default()
    }
}

fn texts() -> RecordBatch {
    read_parquet("tests/data/exports/texts.parquet")
}

fn vectors(config: &EncodeConfig) -> Vec<Vec<f32>> {
    encode(&OnnxEncoder::open(config).unwrap(), &texts())
}

fn assert_is(config: &EncodeConfig, column: &str) {
    let (found, expected) = (vectors(config), lists(&texts(), column));
    let off = difference(&found, &expected);
    assert!(off < 1e-5, "{column}: off by {off}");
}

/// The states of this model are (token id, attention, type), so they give the mean, first and last id of each text.
fn ids(config: &EncodeConfig) -> Vec<[f32; 3]> {
    let of = |pooling| {
        let config = EncodeConfig { model: Some(path("tests/data/states.onnx")), pooling, ..config.clone() };
        vectors(&config)
    };
    let [mean, first, last] = [Pooling::Mean, Pooling::Cls, Pooling::Last].map(of);
    mean.iter().zip(first).zip(last).map(|((mean, first), last)| [mean[0], first[0], last[0]]).collect()
}

fn assert_ids(config: &EncodeConfig, column: &str) {
    for (found, expected) in ids(config).into_iter().zip(lists(&texts(), column)) {
        let mean = expected.iter().sum::<f32>() / expected.len() as f32;
        let expected = [mean, expected[0], expected[expected.len() - 1]];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{column}: {found:?}, not {expected:?}");
    }
}

#[test]
fn without_a_mask_texts_are_not_filled_up() {
    for model in ["unmasked", "tensorflow"] {
        assert_is(&config(model, "plain"), model);
        assert_is(&config(model, "fill_left"), model);
    }
    for (pooling, name) in POOLINGS {
        let config = EncodeConfig { pooling, ..config("unmasked_states", "plain") };
        assert_is(&config, &format!("unmasked_states {name}"));
    }
}

/// A tokenizer that fills texts up belongs to a model that was trained on such texts, if that takes no mask.
#[test]
fn without_a_mask_texts_are_filled_up_as_the_tokenizer_says() {
    assert_is(&config("unmasked", "fill_to_12"), "unmasked filled to 12");
    assert_is(&config("unmasked", "fill_by_4"), "unmasked filled by 4");
}

/// These models pool over masked tokens, or compute with the largest number of the batch.
#[test]
fn samples_that_change_each_other_go_alone() {
    for model in ["mask_ignored", "quantized"] {
        assert_is(&config(model, "plain"), model);
    }
}

#[test]
fn positions_are_right_on_either_side_of_padding() {
    for (model, tokenizers) in [
        ("position_ids", &["plain", "fill_left", "fill_by_4", "fill_to_12"][..]),
        // The model counts positions from the first one, so there must be no padding before a text.
        ("places", &["plain", "fill_left", "fill_to_12"]),
    ] {
        for (tokenizer, (pooling, name)) in tokenizers.iter().flat_map(|t| POOLINGS.map(|pooling| (t, pooling))) {
            let config = EncodeConfig { pooling, ..config(model, tokenizer) };
            assert_is(&config, &format!("{model} {name}"));
        }
    }
}

/// The decoder takes int32 ids, a mask of booleans, and caches of 16 and 32 bits whose heads only the outputs declare.
#[test]
fn a_decoder_gets_empty_caches() {
    assert_is(&config("decoder", "plain"), "decoder");
    assert_is(&config("decoder", "fill_left"), "decoder");
}

#[test]
fn fixed_batches_and_lengths_are_filled_up() {
    for model in ["fixed_batch", "fixed_length", "fixed", "fixed_states"] {
        assert_is(&config(model, "plain"), model);
    }
    assert_is(&config("fixed_batch", "fill_left"), "fixed_batch");
    assert_is(&config("fixed_unmasked", "plain"), "fixed_unmasked");
    assert_is(&config("fixed_unmasked", "fill_to_12"), "fixed_unmasked filled");
    let error = OnnxEncoder::open(&EncodeConfig { max_tokens: 16, ..config("fixed", "plain") }).unwrap_err();
    assert_says(&error.to_string(), &["encode.max_tokens: is 16", "texts of exactly 8 tokens", "leave it out"]);
}

#[test]
fn outputs_of_every_type_and_shape() {
    let expected = lists(&texts(), "kinds");
    let shapes = ["float32", "tail", "thin", "flat", "inner", "open"];
    let types = ["float64", "bfloat16", "float16", "uint8", "int8", "int32", "int64"];
    for output in shapes.into_iter().chain(types) {
        let mut config = EncodeConfig { output: Some(output.into()), ..config("kinds", "plain") };
        assert_eq!(vectors(&config), expected, "{output}");
        config.pooling = Pooling::None;
        assert_eq!(vectors(&config), expected, "{output}, not pooled");
    }
}

/// Each output of these models holds its own index among all outputs.
#[test]
fn the_output_that_users_expect_is_chosen() {
    let taken = |config: &EncodeConfig| vectors(config)[0][0];
    for (model, pooling, place) in [
        ("clip", Pooling::Mean, 2.0),
        ("bert", Pooling::Mean, 1.0),
        ("bert", Pooling::None, 0.0),
        ("sentence", Pooling::Mean, 2.0),
        ("bge", Pooling::Mean, 2.0),
    ] {
        let config = EncodeConfig { pooling, ..config(&format!("outputs_{model}"), "plain") };
        assert_eq!(taken(&config), place, "{model}");
        let first = EncodeConfig { output: Some("last_hidden_state".into()), ..config };
        if model == "clip" {
            assert_eq!(taken(&first), 0.0);
        }
    }
    let image = read_parquet("tests/data/features/images.parquet");
    for (model, place) in [("clip", 1.0), ("bert", 0.0)] {
        let config = EncodeConfig {
            column: Some("image".into()),
            tokenizer: None,
            image: Some(ImageConfig::default()),
            ..config(&format!("outputs_{model}_image"), "plain")
        };
        assert_eq!(encode(&OnnxEncoder::open(&config).unwrap(), &image)[0], [place], "{model}");
    }
}

#[test]
fn texts_are_no_longer_than_the_model_takes() {
    assert_is(&config("few_places", "plain"), "few_places");
    assert_is(&EncodeConfig { max_tokens: 8, ..config("few_places", "plain") }, "few_places");
    let error = OnnxEncoder::open(&EncodeConfig { max_tokens: 30, ..config("few_places", "plain") }).unwrap_err();
    assert_says(
        &error.to_string(),
        &["takes texts of 8 tokens at most", "encode.max_tokens is 30", "set it to 8", "ONNX Runtime says"],
    );
}

/// A newer model is tried as the first one was, before it takes its place.
#[test]
fn a_newer_model_that_takes_shorter_texts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.onnx");
    std::fs::copy(path("tests/data/exports/places.onnx"), &model).unwrap();
    let config = EncodeConfig { model: Some(model.clone()), max_tokens: 30, ..config("", "plain") };
    let encoder = OnnxEncoder::open(&config).unwrap();
    assert!(encoder.newer().unwrap().is_none());
    std::fs::copy(path("tests/data/exports/few_places.onnx"), &model).unwrap();
    let error = encoder.newer().map(|_| ()).unwrap_err().to_string();
    assert_says(&error, &["takes texts of 8 tokens at most", "encode.max_tokens is 30"]);
    assert_eq!(encode(&encoder, &texts()).len(), 24);
}

#[test]
fn texts_are_cut_where_the_tokenizer_says() {
    let pair = |config: EncodeConfig| EncodeConfig { pair_column: Some("other".into()), ..config };
    let cut = |tokenizer, max_tokens| EncodeConfig { max_tokens, ..config("", tokenizer) };
    assert_ids(&cut("plain", 6), "cut to 6");
    for max_tokens in [0, 6] {
        assert_ids(&cut("cut_left", max_tokens), "cut_left");
        // A single text has no second text to cut.
        assert_ids(&cut("only_second", max_tokens), "cut_left");
    }
    assert_ids(&pair(cut("cut_left", 9)), "cut_left pair");
    assert_ids(&pair(cut("only_first", 9)), "only_first pair");
    assert_ids(&pair(cut("only_second", 13)), "only_second pair");
}

/// The tokenizer says to cut only the other text, or special tokens leave no space for the text.
#[test]
fn texts_that_cannot_be_cut_are_bad() {
    let model = Some(path("tests/data/states.onnx"));
    let pair = |max_tokens, tokenizer| EncodeConfig {
        model: model.clone(),
        pair_column: Some("other".into()),
        max_tokens,
        ..config("", tokenizer)
    };
    let encoder = OnnxEncoder::open(&pair(9, "only_second")).unwrap();
    let rows = texts();
    let rows = rows.project(&[0, 1]).unwrap();
    let mut found = vec![0.0; rows.num_rows() * encoder.dimension()];
    let bad = encoder.encode_readable(&rows, &mut found).unwrap().bad;
    let long: Vec<_> = (0..24).filter(|i| 1 + 5 * i % 9 > 5).collect();
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), long);
    assert_says(&bad[0].reason, &["a pair of more than 9 tokens", "only the other text", "raise encode.max_tokens"]);
    for max_tokens in [2, 3] {
        let error = OnnxEncoder::open(&pair(max_tokens, "plain")).unwrap_err().to_string();
        assert_says(&error, &["encode.max_tokens: is", "adds 3 special tokens", "give more than that"]);
    }
}

fn tensor(model: &str) -> EncodeConfig {
    EncodeConfig { tensor: Some(TensorConfig::default()), tokenizer: None, column: None, ..config(model, "plain") }
}

#[test]
fn numbers_do_not_depend_on_what_fills_others_up() {
    let rows = read_parquet("tests/data/exports/tensors.parquet");
    for (model, column) in [("tensor_unmasked", "unmasked"), ("tensor_two", "two"), ("tensor_fixed", "fixed")] {
        let found = encode(&OnnxEncoder::open(&tensor(model)).unwrap(), &rows);
        assert!(difference(&found, &lists(&rows, column)) < 1e-5, "{model}");
    }
}

#[test]
fn graphs_do_not_depend_on_each_other() {
    let rows = read_parquet("tests/data/exports/graphs.parquet");
    for (model, column) in [("graph_alone", "alone"), ("graph_mixed", "mixed")] {
        let config = EncodeConfig { tensor: None, graph: Some(GraphInputConfig::default()), ..tensor(model) };
        let found = encode(&OnnxEncoder::open(&config).unwrap(), &rows);
        assert!(difference(&found, &lists(&rows, column)) < 1e-5, "{model}");
    }
}

const POOLINGS: [(Pooling, &str); 3] = [(Pooling::Mean, "mean"), (Pooling::Cls, "cls"), (Pooling::Last, "last")];
