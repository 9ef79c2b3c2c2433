//! Tensors and graphs get the vectors that onnxruntime in Python gives each row alone.

use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, Int64Array, ListArray, RecordBatch};
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, Field, Int64Type};
use prosampler::config::{EncodeConfig, GraphInputConfig, Pooling, TensorConfig};
use prosampler::encode::{Encoder, OnnxEncoder};

use crate::support::{assert_says, difference, encode, lists, path, read_parquet};

fn model(name: &str) -> EncodeConfig {
    EncodeConfig {
        model: Some(path(&format!("tests/data/features/{name}.onnx"))),
        sessions: 1,
        ..EncodeConfig::default()
    }
}

fn tensor(name: &str, inputs: &[(&str, &str)]) -> EncodeConfig {
    let inputs = inputs.iter().map(|(input, column)| ((*input).to_owned(), (*column).to_owned())).collect();
    EncodeConfig { tensor: Some(TensorConfig { inputs }), ..model(name) }
}

fn graph(name: &str, graph: GraphInputConfig) -> EncodeConfig {
    EncodeConfig { graph: Some(graph), ..model(name) }
}

fn tensors() -> RecordBatch {
    read_parquet("tests/data/features/tensors.parquet")
}

fn graphs() -> RecordBatch {
    read_parquet("tests/data/features/graphs.parquet")
}

/// Ragged f64 become f32 with a mask, u8 become i32, and scalars come along; in batches each row is as it is alone.
#[test]
fn tensors_are_filled_up_and_masked() {
    let rows = tensors();
    for batch_tokens in [1, 12, 512] {
        let config = EncodeConfig { batch_tokens, ..tensor("tensor", &[("signal", "samples")]) };
        let encoder = OnnxEncoder::open(&config).unwrap();
        assert_eq!(encoder.columns(), ["samples", "codes", "gain"]);
        assert!(difference(&encode(&encoder, &rows), &lists(&rows, "vector")) < 1e-5);
    }
}

/// The model gives points (i, i²) and takes a mask of booleans, so the vector is the mean of the first n points.
#[test]
fn states_of_tensors_are_pooled() {
    let rows = tensors();
    let lengths: Vec<_> = lists(&rows, "samples").iter().map(|samples| samples.len() as f32).collect();
    let pooled = |name: &str, pooling| {
        encode(&OnnxEncoder::open(&EncodeConfig { pooling, ..tensor(name, &[]) }).unwrap(), &rows)
    };
    let means = pooled("tensor_states", Pooling::Mean);
    // The result is the same with a mask that is named `attention_mask`.
    assert_eq!(pooled("tensor_states_attention", Pooling::Mean), means);
    for ((mean, last), n) in means.iter().zip(pooled("tensor_states", Pooling::Last)).zip(lengths) {
        let squares = (n - 1.0) * (2.0 * n - 1.0) / 6.0;
        assert!(
            difference(std::slice::from_ref(mean), &[vec![(n - 1.0) / 2.0, squares, 1.0]]) < 1e-4,
            "{mean:?} for {n}"
        );
        assert_eq!(last, [n - 1.0, (n - 1.0) * (n - 1.0), 1.0]);
    }
}

/// Numbers of every type, in lists of every layout, reach models of f16, f32 and i32 as the same numbers.
#[test]
fn every_type_of_numbers() {
    use DataType::{Float16, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    const TYPES: [DataType; 11] = [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64];
    let item = |of: DataType| Arc::new(Field::new("item", of, true));
    let numbers = |row: usize| (0..48).map(move |i| ((row * 48 + i) * 7 % 10) as i64);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..3).map(|row| Some(numbers(row).map(Some))));
    let expected: Vec<Vec<f32>> = (0..3).map(|row| numbers(row).map(|n| n as f32).collect()).collect();
    let half = OnnxEncoder::open(&tensor("image_f16", &[("pixels", "x")])).unwrap();
    for of in TYPES {
        let grid = DataType::FixedSizeList(item(of.clone()), 6);
        for kind in [
            DataType::List(item(of.clone())),
            DataType::LargeList(item(of.clone())),
            DataType::FixedSizeList(item(of.clone()), 48),
        ] {
            let column = cast(&lists, &kind).unwrap();
            let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
            half.accepts("rows", &rows.schema()).unwrap();
            assert_eq!(encode(&half, &rows), expected, "{kind}");
        }
        let flat = cast(lists.values(), &of).unwrap();
        let grids: ArrayRef = Arc::new(FixedSizeListArray::new(item(of.clone()), 6, flat, None));
        let column: ArrayRef = Arc::new(FixedSizeListArray::new(item(grid), 8, grids, None));
        assert_eq!(encode(&half, &RecordBatch::try_from_iter([("x", column)]).unwrap()), expected, "{of} in grids");
    }

    // Expected are the mean of the signal and 1, the sum of the codes' rows, and the gain.
    let encoder = OnnxEncoder::open(&tensor("tensor", &[])).unwrap();
    let vectors = |signal: &DataType, codes: &DataType, gain: &DataType| {
        let column = |values: &[i64], each, of: &DataType| -> ArrayRef {
            let list = FixedSizeListArray::new(item(Int64), each, Arc::new(Int64Array::from(values.to_vec())), None);
            cast(&list, &DataType::FixedSizeList(item(of.clone()), each)).unwrap()
        };
        let gains = cast(&Int64Array::from(vec![5, 6]), gain).unwrap();
        let columns = [
            ("signal", column(&[1, 2, 3, 7, 8, 9], 3, signal)),
            ("codes", column(&[0, 1, 9, 9], 2, codes)),
            ("gain", gains),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        encoder.accepts("rows", &rows.schema()).unwrap();
        encode(&encoder, &rows)
    };
    let expected = vectors(&Float32, &Int32, &Float32);
    assert_eq!((expected[0][0], expected[1][0], expected[0][4], expected[1][4]), (3.0, 9.0, 5.0, 6.0));
    for of in &TYPES {
        let whole = if of.is_integer() { of } else { &Int8 };
        assert_eq!(vectors(of, whole, of), expected, "{of}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let error = |inputs: &[(&str, &str)]| {
        let encoder = OnnxEncoder::open(&tensor("tensor", inputs))?;
        encoder.accepts("a.parquet", &tensors().schema())
    };
    assert_says(&error(&[]).unwrap_err().to_string(), &["column `signal` not found in `a.parquet`; it has `samples`"]);
    assert_says(
        &error(&[("sig", "samples")]).unwrap_err().to_string(),
        &[
            "declares no input `sig`, which encode.tensor.inputs names; it has `signal`, `signal_mask`, `codes` and `gain`",
        ],
    );
    assert_says(
        &error(&[("signal", "samples"), ("codes", "points")]).unwrap_err().to_string(),
        &["column `points` holds", "the model's input `codes` must be whole numbers", "encode.tensor.inputs"],
    );
}

/// In the union of several graphs each graph gets the vector that it gets alone.
#[test]
fn joined_graphs_do_not_change_each_other() {
    let rows = graphs();
    let expected = lists(&rows, "vector");
    for batch_tokens in [1, 20, 4096] {
        let config = EncodeConfig { batch_tokens, ..graph("graph", GraphInputConfig::default()) };
        let encoder = OnnxEncoder::open(&config).unwrap();
        assert_eq!(encoder.columns(), ["node_features", "edge_sources", "edge_targets", "edge_attributes"]);
        assert!(difference(&encode(&encoder, &rows), &expected) < 1e-5);
    }
    let flat = GraphInputConfig {
        node_features: "flat_features".into(),
        num_nodes: Some("num_nodes".into()),
        ..GraphInputConfig::default()
    };
    assert!(difference(&encode(&OnnxEncoder::open(&graph("graph", flat)).unwrap(), &rows), &expected) < 1e-5);
}

#[test]
fn categories_of_nodes() {
    let kinds = GraphInputConfig { node_features: "kinds".into(), ..GraphInputConfig::default() };
    let (encoder, rows) = (OnnxEncoder::open(&graph("graph_kinds", kinds)).unwrap(), graphs());
    assert_eq!(encoder.columns(), ["kinds", "edge_sources", "edge_targets"]);
    assert!(difference(&encode(&encoder, &rows), &lists(&rows, "kinds_vector")) < 1e-5);
}

#[test]
fn graphs_that_do_not_fit_are_refused() {
    let error = OnnxEncoder::open(&graph("tensor", GraphInputConfig::default())).unwrap_err().to_string();
    assert_says(
        &error,
        &[
            "declares `signal: ",
            "which a graph does not give",
            "`edge_index` [2, edges] of whole numbers",
            "`ptr` [graphs + 1]",
        ],
    );
    let encoder = OnnxEncoder::open(&graph("graph_kinds", GraphInputConfig::default())).unwrap();
    let error = encoder.accepts("rows", &graphs().schema()).unwrap_err().to_string();
    assert_says(
        &error,
        &["column `node_features` holds", "node features are lists of whole numbers for this model", "[encode.graph]"],
    );
}
