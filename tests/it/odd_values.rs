//! Values at the edge of what a model reads give the vector that they give alone, or are bad samples with a reason.

use std::slice::from_ref;
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StringDictionaryBuilder};
use prosampler::arrow::array::{Float64Builder, ListBuilder, NullArray, TimestampSecondArray};
use prosampler::arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use prosampler::config::{EncodeConfig, GraphInputConfig, OnBadSample, TensorConfig};
use prosampler::encode::{Encoder, OnnxEncoder, encode_all};
use prosampler::source::MemorySource;
use prosampler::store::Store;
use prosampler::{ModelVersion, SampleId};
use serde_json::Value;
use tempfile::TempDir;
use tokenizers::Tokenizer;

use crate::support::{TestEncoder, assert_says, difference, path, pipeline};

fn model(name: &str) -> EncodeConfig {
    EncodeConfig { model: Some(path(&format!("tests/data/{name}.onnx"))), sessions: 1, ..EncodeConfig::default() }
}

/// The vector of each row, or why there is none. Each vector is the one that the row has alone.
fn judged(encoder: &dyn Encoder, columns: Vec<(&str, ArrayRef)>) -> Vec<Result<Vec<f32>, String>> {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    encoder.accepts("rows", &rows.schema()).unwrap();
    let one = |rows: &RecordBatch| {
        let mut vectors = vec![0f32; rows.num_rows() * encoder.dimension()];
        let bad = encoder.encode_readable(rows, &mut vectors).unwrap().bad;
        let mut all: Vec<_> = vectors.chunks(encoder.dimension()).map(|v| Ok(v.to_vec())).collect();
        bad.into_iter().for_each(|bad| all[bad.row] = Err(format!("{} {}", bad.column, bad.reason)));
        all
    };
    let together = one(&rows);
    for (row, found) in together.iter().enumerate() {
        match (found, &one(&rows.slice(row, 1))[0]) {
            (Ok(found), Ok(alone)) => assert!(difference(from_ref(found), from_ref(alone)) < 1e-3, "row {row}"),
            (found, alone) => assert_eq!(found, alone, "row {row}"),
        }
    }
    together
}

/// What is wrong with each row that is bad.
fn reasons(found: &[Result<Vec<f32>, String>]) -> Vec<(usize, &str)> {
    found.iter().enumerate().filter_map(|(row, found)| Some((row, found.as_ref().err()?.as_str()))).collect()
}

/// A tokenizer that adds no tokens of its own, beside a model whose vectors are the means of the tokens' ids.
fn bare(dir: &TempDir) -> (EncodeConfig, Tokenizer) {
    let text = std::fs::read_to_string(path("data/models/gloss-encoder/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    tokenizer["post_processor"] = Value::Null;
    let file = dir.path().join("tokenizer.json");
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let mut plain = Tokenizer::from_file(&file).unwrap();
    plain.with_padding(None).with_truncation(None).unwrap();
    (EncodeConfig { tokenizer: Some(file), column: Some("t".into()), ..model("states") }, plain)
}

fn column(texts: &[&str]) -> Vec<(&'static str, ArrayRef)> {
    vec![("t", Arc::new(StringArray::from(texts.to_vec())))]
}

const TEXTS: [&str; 12] = [
    "a dog",
    "",
    "   \n\t",
    "\u{0}",
    "\u{feff}",
    "\u{feff}a dog",
    "a\u{0}dog barks",
    "\u{200b}",
    "\u{301}",
    "👩‍👩‍👧 café",
    "\u{202e}god",
    "\u{fffd}",
];

#[test]
fn texts_without_a_token_are_bad_and_others_are_read_whole() {
    let dir = TempDir::new().unwrap();
    let (config, tokenizer) = bare(&dir);
    let found = judged(&OnnxEncoder::open(&config).unwrap(), column(&TEXTS));
    let mut without = 0;
    for (text, found) in TEXTS.iter().zip(found) {
        let ids = tokenizer.encode(*text, true).unwrap().get_ids().to_vec();
        if ids.is_empty() {
            assert_eq!(found, Err(no_token(&config)), "{text:?}");
            without += 1;
        } else {
            let mean = ids.iter().sum::<u32>() as f32 / ids.len() as f32;
            assert!((found.unwrap()[0] - mean).abs() < 1e-2, "{text:?}");
        }
    }
    assert!(without >= 3);

    // If a prefix or the tokenizer adds tokens, there is something to embed.
    let prefixed = EncodeConfig { prefix: "query: ".into(), ..config.clone() };
    assert_eq!(reasons(&judged(&OnnxEncoder::open(&prefixed).unwrap(), column(&TEXTS))), []);
    let special = path("data/models/gloss-encoder/tokenizer.json");
    let special = EncodeConfig { tokenizer: Some(special), ..config.clone() };
    assert_eq!(reasons(&judged(&OnnxEncoder::open(&special).unwrap(), column(&TEXTS))), []);

    let pair = EncodeConfig { pair_column: Some("u".into()), ..config };
    let other = |texts: [&str; 3]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
    let columns = vec![("t", other(["", "", "a"])), ("u", other(["", "b", ""]))];
    let found = judged(&OnnxEncoder::open(&pair).unwrap(), columns);
    assert_eq!(reasons(&found), [(0, no_token(&pair).as_str())]);
}

/// What is said of a text without a token: the tokenizer may be the cause.
fn no_token(config: &EncodeConfig) -> String {
    format!("t is a text without a token by `{}`", config.tokenizer.as_ref().unwrap().display())
}

#[test]
fn a_text_of_megabytes_is_cut_like_any_other() {
    let dir = TempDir::new().unwrap();
    let (config, _) = bare(&dir);
    let (long, short) = ("dog ".repeat(500_000), "dog ".repeat(128));
    let found = judged(&OnnxEncoder::open(&config).unwrap(), column(&[&long, &short, "a dog"]));
    assert_eq!(found[0], found[1]);
}

/// Nulls may be in the values of a dictionary, or the whole column may be of the type null.
#[tokio::test]
async fn nulls_within_a_dictionary_are_nulls() {
    let mut texts = StringDictionaryBuilder::<Int32Type>::new();
    for i in 0..40 {
        texts.append(format!("text {}", i % 7)).unwrap();
    }
    let texts = texts.finish();
    let values: StringArray = (0..7).map(|i| (i != 4).then(|| format!("text {i}"))).collect();
    let numbers: ArrayRef = Arc::new(prosampler::arrow::array::UInt32Array::from_iter_values(0..40));
    let texts: ArrayRef = Arc::new(texts.with_values(Arc::new(values)));
    let rows = RecordBatch::try_from_iter_with_nullable([("t", texts, true), ("n", numbers, false)]).unwrap();
    let config = EncodeConfig {
        tokenizer: Some(path("data/models/gloss-encoder/tokenizer.json")),
        column: Some("t".into()),
        ..model("states")
    };
    let start = |on_bad_sample| {
        let source = MemorySource::new(vec![rows.clone()]).unwrap();
        let encode = EncodeConfig { on_bad_sample, ..config.clone() };
        pipeline(40, 5).source(source).encoder(OnnxEncoder::open(&encode).unwrap()).encode(encode).start()
    };
    let error = start(OnBadSample::Fail).await.unwrap_err().to_string();
    assert_says(&error, &["column `t` is null at sample 4 (6 of the 40 rows", "set encode.on_bad_sample = \"skip\""]);
    let stream = start(OnBadSample::Skip).await.unwrap();
    let skipped: Vec<_> =
        (0..40).filter(|&id| stream.snapshot().unwrap().embeddings.is_skipped(SampleId(id))).collect();
    assert_eq!(skipped, [4, 11, 18, 25, 32, 39]);

    let nothing: ArrayRef = Arc::new(NullArray::new(40));
    let nothing = RecordBatch::try_from_iter_with_nullable([("n", nothing, true)]).unwrap();
    let source = MemorySource::new(vec![nothing]).unwrap();
    let store = Store::build(&source, &["n".to_owned()], &Default::default(), &mut |_| {}).await.unwrap();
    let encoder = TestEncoder::new(40);
    let error = encode_all(&encoder, &store, Default::default(), Default::default(), ModelVersion(1), &mut |_| {});
    assert_says(&error.unwrap_err().to_string(), &["column `n` is null at sample 0 (40 of the 40 rows"]);
}

fn whole(rows: &[&[i64]]) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
        rows.iter().map(|row| Some(row.iter().map(|&n| Some(n)))),
    ))
}

/// Lists of lists; of numbers below `f64::MAX`, which stands for null.
fn nested(rows: &[&[&[f64]]]) -> ArrayRef {
    let mut lists = ListBuilder::new(ListBuilder::new(Float64Builder::new()));
    for row in rows {
        for inner in *row {
            inner.iter().for_each(|&x| lists.values().values().append_option((x != f64::MAX).then_some(x)));
            lists.values().append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

fn tensor(name: &str) -> OnnxEncoder {
    let config = EncodeConfig { tensor: Some(TensorConfig::default()), ..model(&format!("features/{name}")) };
    OnnxEncoder::open(&config).unwrap()
}

/// The model takes any number of points, of two numbers each.
#[test]
fn lists_of_another_shape_are_bad_even_with_as_many_numbers() {
    let points: [&[&[f64]]; 8] = [
        &[&[1., 2.], &[3., 4.], &[5., 6.]],
        &[&[1., 2., 3.], &[4., 5., 6.]],
        &[&[1., 2., 3.], &[4.]],
        &[&[1., 2.], &[f64::MAX, 4.]],
        &[],
        &[&[], &[]],
        &[&[1., f64::NAN]],
        &[&[7., 8.]],
    ];
    let found = judged(&tensor("tensor_states"), vec![("points", nested(&points))]);
    assert_eq!(
        reasons(&found),
        [
            (1, "points has lists of [2, 3] where the model takes [any, 2]"),
            (2, "points has lists of 3 and of 1 where all must be of one length"),
            (3, "points has a null within"),
            (4, "points has no numbers"),
            (5, "points has no numbers"),
            (6, "points has a value of NaN"),
        ]
    );
    assert_eq!((&found[0], &found[7]), (&Ok(vec![3., 4., 1.]), &Ok(vec![7., 8., 1.])));

    // Eight rows of six pixels, in 16 bits; six of eight are as many, and upside down.
    let grid = |rows: usize, columns: usize, x: f64| {
        let row = vec![x; columns];
        vec![row; rows]
    };
    let mut grids = [grid(8, 6, 1.0), grid(6, 8, 1.0), grid(8, 6, 1e5), grid(8, 6, 65504.0)];
    grids[2][3][2] = -1e5;
    let mut cubes = ListBuilder::new(ListBuilder::new(ListBuilder::new(Float64Builder::new())));
    for grid in &grids {
        for row in grid {
            cubes.values().values().values().append_slice(row);
            cubes.values().values().append(true);
        }
        cubes.values().append(true);
        cubes.append(true);
    }
    let found = judged(&tensor("image_f16"), vec![("pixels", Arc::new(cubes.finish()))]);
    assert_eq!(
        reasons(&found),
        [
            (1, "pixels has lists of [1, 6, 8] where the model takes [1, 8, 6]"),
            (2, "pixels has 100000, which does not fit the 16 bits of the model's input `pixels`"),
        ]
    );
}

/// The model looks codes up in a table of ten, and takes them in 32 bits.
#[test]
fn numbers_that_a_model_cannot_take_are_bad_alone() {
    let lists = [vec![1.0], vec![2.0, 3.0], vec![4.0], vec![5.0], vec![6.0, 7.0, 8.0], vec![9.0]];
    let lists = lists.map(|list| Some(list.into_iter().map(Some).collect::<Vec<_>>()));
    let signal: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists));
    let gain: ArrayRef = Arc::new(Int64Array::from(vec![1; 6]));
    let codes = whole(&[&[0, 1], &[2, 99], &[3_000_000_000, 4], &[5, 6], &[-11, 0], &[9, 9]]);
    let found = judged(&tensor("tensor"), vec![("signal", signal), ("codes", codes), ("gain", gain)]);
    let reasons = reasons(&found);
    let rows: Vec<_> = reasons.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [1, 2, 4]);
    assert_says(reasons[0].1, &["signal is refused by the model (ONNX Runtime says: ", "idx=99 must be within"]);
    assert_eq!(reasons[1].1, "codes has 3000000000, which does not fit the 32 bits of the model's input `codes`");
    assert_says(reasons[2].1, &["idx=-11 must be within"]);
}

fn graph(name: &str, num_nodes: Option<&str>) -> OnnxEncoder {
    let num_nodes = num_nodes.map(str::to_owned);
    let graph = GraphInputConfig { num_nodes, ..GraphInputConfig::default() };
    OnnxEncoder::open(&EncodeConfig { graph: Some(graph), ..model(name) }).unwrap()
}

/// The model takes any number of features for each node, the same for all graphs of a batch. Rows beside each other may
/// differ in it.
#[test]
fn graphs_are_batched_with_graphs_of_the_same_width() {
    let features: [&[&[f64]]; 8] = [
        &[&[1., 2.], &[3., 4.]],
        &[&[1., 2., 3.], &[4., 5., 6.]],
        &[&[1., 2.], &[3.]],
        &[&[7., 8., 9.]],
        &[&[], &[]],
        &[],
        &[&[1., 2., 3.], &[f64::MAX, 5., 6.]],
        &[&[1.], &[2.], &[3.]],
    ];
    let none: &[i64] = &[];
    let ends = || whole(&[&[0], &[0, 1], none, none, none, none, none, &[2]]);
    let columns = || vec![("node_features", nested(&features)), ("edge_sources", ends()), ("edge_targets", ends())];
    let found = judged(&graph("values/graph_open", None), columns());
    let unsound = [
        (2, "node_features has lists of 2 and of 1 where all must be of one length"),
        (4, "node_features has no nodes"),
        (5, "node_features has no nodes"),
        (6, "node_features has a null within"),
    ];
    assert_eq!(reasons(&found), unsound);
    for (row, sum) in [(0, 10.), (1, 21.), (3, 24.), (7, 6.)] {
        assert_eq!(found[row], Ok([1., 2., 3., 4.].map(|times| times * sum).to_vec()));
    }

    // If the settings say how many there are, rows with another number are bad.
    let three = GraphInputConfig { node_width: Some(3), ..GraphInputConfig::default() };
    let three = EncodeConfig { graph: Some(three), ..model("values/graph_open") };
    let found = judged(&OnnxEncoder::open(&three).unwrap(), columns());
    let other = |row, width| (row, format!("node_features has {width} numbers for each node where the model takes 3"));
    let reasons: Vec<_> = reasons(&found).into_iter().map(|(row, reason)| (row, reason.to_owned())).collect();
    let [a, b, c, d] = unsound.map(|(row, reason)| (row, reason.to_owned()));
    assert_eq!(reasons, [other(0, 2), a, b, c, d, other(7, 1)]);
}

#[test]
fn edges_must_lead_to_existing_nodes() {
    let kinds = whole(&[&[0, 1, 2], &[3, 4], &[5], &[1, 2], &[0, 9], &[0], &[2, 3]]);
    let none: &[i64] = &[];
    let from = whole(&[&[0, 1], &[0, 2], &[i64::MIN], &[0, 1], &[0], none, &[0]]);
    let to = whole(&[&[1, 2], &[1, 1], &[0], &[1], &[1], none, &[i64::MAX]]);
    let counts: ArrayRef = Arc::new(Int64Array::from(vec![3, 2, 1, 2, 2, -1, 2]));
    let columns =
        || vec![("node_features", kinds.clone()), ("edge_sources", from.clone()), ("edge_targets", to.clone())];
    let found = judged(&graph("features/graph_kinds", None), columns());
    let reasons_of = reasons(&found);
    assert_eq!(
        reasons_of[..3],
        [
            (1, "edge_sources has node 2 at edge 1, but there are nodes 0 to 1"),
            (2, "edge_sources has node -9223372036854775808 at edge 0, but there are nodes 0 to 0"),
            (3, "edge_targets has 1 edges, but `edge_sources` has 2"),
        ]
    );
    assert_says(reasons_of[3].1, &["node_features is refused by the model", "idx=9"]);
    assert_eq!(
        reasons_of[4..],
        [(6, "edge_targets has node 9223372036854775807 at edge 0, but there are nodes 0 to 1")]
    );
    let columns = [columns(), vec![("count", counts)]].concat();
    let found = judged(&graph("features/graph_kinds", Some("count")), columns);
    assert!(reasons(&found).contains(&(5, "count says -1 nodes")));
}

/// Columns of times are refused, although Arrow stores them as numbers.
#[test]
fn times_are_not_taken_for_numbers() {
    let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1, 2]));
    let rows =
        RecordBatch::try_from_iter([("signal", times.clone()), ("codes", times.clone()), ("gain", times)]).unwrap();
    let error = tensor("tensor").accepts("rows", &rows.schema()).unwrap_err().to_string();
    assert_says(&error, &["column `signal` holds Timestamp", "must be numbers or lists of numbers"]);
}
