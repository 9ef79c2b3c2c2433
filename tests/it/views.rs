//! Several views of a sample make one embedding.

use std::path::Path;
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, ListArray, RecordBatch};
use prosampler::arrow::datatypes::{DataType, Field, Float32Type};
use prosampler::config::{Combine, EncodeConfig, FeatureKind, GraphOver, PipelineConfig, ViewConfig};
use prosampler::encode::{ColumnEncoder, CombinedEncoder, Encoder, OnnxEncoder, PairEncoder, open};

use crate::support::{assert_says, difference, encode, path, read_parquet};

fn vectors(values: Vec<f32>, dimension: i32) -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    Arc::new(FixedSizeListArray::new(item, dimension, Arc::new(Float32Array::from(values)), None))
}

fn rows() -> RecordBatch {
    let a = vectors(vec![3.0, 4.0, 0.0, 2.0], 2);
    let b = vectors(vec![5.0, 0.0, 0.0, -7.0], 2);
    let c = vectors(vec![0.0, 0.0, 9.0, 1.0, 2.0, 2.0], 3);
    RecordBatch::try_from_iter([("a", a), ("b", b), ("c", c)]).unwrap()
}

fn views(columns: &[&str], combine: Combine) -> EncodeConfig {
    let view = |column: &&str| ViewConfig { column: Some((*column).into()), ..ViewConfig::default() };
    let feature = Some(FeatureKind::Vector);
    EncodeConfig { feature, views: columns.iter().map(view).collect(), combine, ..EncodeConfig::default() }
}

#[test]
fn means_and_concatenations_are_exact() {
    let rows = rows();
    let mean = open(&views(&["a", "b"], Combine::Mean), &rows.schema()).unwrap();
    assert_eq!((mean.dimension(), mean.columns().len(), mean.name()), (2, 2, "a + b"));
    assert!(difference(&encode(&mean, &rows), &[vec![0.8, 0.4], vec![0.0, 0.0]]) < 1e-6);
    let both = open(&views(&["a", "c", "a"], Combine::Concat), &rows.schema()).unwrap();
    assert_eq!((both.dimension(), both.columns()), (7, &["a".to_owned(), "c".to_owned()][..]));
    let third = 1.0 / 3.0;
    let expected = [vec![0.6, 0.8, 0.0, 0.0, 1.0, 0.6, 0.8], vec![0.0, 1.0, third, 2.0 * third, 2.0 * third, 0.0, 1.0]];
    assert!(difference(&encode(&both, &rows), &expected) < 1e-6);
    let error = open(&views(&["a", "c"], Combine::Mean), &rows.schema()).map(|_| ()).unwrap_err().to_string();
    assert_says(
        &error,
        &["encoder `c` gives vectors of 3 numbers where the first view has 2", "encode.combine = \"concat\""],
    );
}

/// If one of its columns is bad, a row is bad, for views and for pairs. It is listed once, with a vector of zeros.
#[test]
fn a_row_is_bad_if_one_of_its_columns_is() {
    let column = |lists: [&[f32]; 4]| -> ArrayRef {
        let lists = lists.map(|list| Some(list.iter().map(|x| Some(*x)).collect::<Vec<_>>()));
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists))
    };
    let (a, b) = (column([&[1., 0.], &[1.], &[1., 0.], &[]]), column([&[0., 2.], &[1., 0.], &[0., 1., 2.], &[3.]]));
    let rows = RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap();
    let half = |column: &str| -> Arc<dyn Encoder> {
        Arc::new(ColumnEncoder::of_dimension(&rows.schema(), column, 2).unwrap())
    };
    let config = EncodeConfig { dimension: Some(2), ..views(&["a", "b"], Combine::Concat) };
    let views = open(&config, &rows.schema()).unwrap();
    let pair: Arc<dyn Encoder> = Arc::new(PairEncoder::new(half("a"), half("b"), GraphOver::Mean).unwrap());
    for (encoder, first) in [(views, vec![1.0, 0.0, 0.0, 1.0]), (pair, vec![0.5, 0.5])] {
        let d = encoder.dimension();
        let mut vectors = vec![0f32; 4 * d];
        let bad = encoder.encode_readable(&rows, &mut vectors).unwrap().bad;
        let named: Vec<_> = bad.iter().map(|bad| (bad.row, bad.column.as_str())).collect();
        assert_eq!(named, [(1, "a"), (2, "b"), (3, "a")]);
        assert_eq!((&vectors[..d], &vectors[d..]), (&first[..], &vec![0.0; 3 * d][..]));
        assert_says(
            &encoder.encode(&rows, &mut vec![0.0; 4 * d]).unwrap_err().to_string(),
            &["column `a` at row 1 has 1 numbers, not 2"],
        );
    }
}

/// A view's settings in a file take precedence over those beside it and over those of the command line.
#[test]
fn a_view_is_the_settings_with_some_of_its_own() {
    let text = "
source.uri = 'a'
[encode]
model = 'm.onnx'
tokenizer = 't.json'
column = 'title'
max_tokens = 40
views = [{}, { column = 'body', max_tokens = 80, prefix = 'x: ' }, { model = 'other.onnx' }]
[[encode.views]]
";
    assert!(PipelineConfig::from_toml(text).is_err(), "a list is written once");
    let text = text.replace("[[encode.views]]\n", "");
    let config = PipelineConfig::from_toml(&text).unwrap().encode;
    let views: Vec<_> = config.views.iter().map(|view| view.over(&config)).collect();
    assert_eq!(views[0], EncodeConfig { views: Vec::new(), ..config.clone() });
    assert_eq!((views[1].column.as_deref(), views[1].max_tokens, views[1].prefix.as_str()), (Some("body"), 80, "x: "));
    assert_eq!(views[1].tokenizer, config.tokenizer);
    assert_eq!((views[2].model.as_deref(), views[2].tokenizer.as_deref()), (Some(Path::new("other.onnx")), None));

    let table = text.replace("views = [{}, ", "views = [{ image = { size = 0 } }, { colum = 'x' }, ");
    let error = PipelineConfig::from_toml(&table).unwrap_err().to_string();
    assert_says(&error, &["encode.views[0].image.size: must lie between 1 and 16,384 pixels"]);
    assert_says(&error, &["line 8: encode.views[1].colum: unknown key; did you mean `column`?"]);
}

/// If two views share a model, a newer model replaces both.
#[test]
fn a_newer_model_is_noticed() {
    let dir = tempfile::TempDir::new().unwrap();
    let model = dir.path().join("model.onnx");
    std::fs::copy(path("tests/data/states.onnx"), &model).unwrap();
    let view = |column: &str| ViewConfig { column: Some(column.into()), ..ViewConfig::default() };
    let config = EncodeConfig {
        model: Some(model.clone()),
        tokenizer: Some(path("data/models/gloss-encoder/tokenizer.json")),
        views: vec![view("left"), view("right")],
        sessions: 1,
        ..EncodeConfig::default()
    };
    let rows = read_parquet("tests/data/features/pairs.parquet");
    let encoder = open(&config, &rows.schema()).unwrap();
    assert_eq!(encoder.model_files(), [model.as_path()]);
    assert!(encoder.newer().unwrap().is_none());
    let before = encode(&encoder, &rows);
    std::fs::copy(path("tests/data/features/graph.onnx"), &model).unwrap();
    assert_says(&encoder.newer().map(|_| ()).unwrap_err().to_string(), &["which text does not give"]);
    std::fs::write(&model, std::fs::read(path("data/models/gloss-encoder/model.onnx")).unwrap()).unwrap();
    let newer = encoder.newer().unwrap().unwrap();
    assert_eq!((newer.dimension(), newer.columns()), (128, encoder.columns()));
    assert_eq!(encode(&encoder, &rows), before, "the old one stays as it is");
}

#[test]
fn one_model_alone_refuses_views() {
    let config = EncodeConfig { model: Some(path("tests/data/states.onnx")), ..views(&["a"], Combine::Mean) };
    let error = OnnxEncoder::open(&config).unwrap_err().to_string();
    assert_says(
        &error,
        &["encode.feature: is `vector`, which needs no model", "encode.views: make a combined encoder"],
    );
    let rows = rows();
    let one: Arc<dyn Encoder> = Arc::new(ColumnEncoder::new(&rows.schema(), "a").unwrap());
    let nested = CombinedEncoder::new(
        vec![one.clone(), Arc::new(CombinedEncoder::new(vec![one], Combine::Mean).unwrap())],
        Combine::Concat,
    );
    let nested = nested.unwrap();
    assert_eq!((nested.dimension(), nested.columns().len()), (4, 1));
}

#[test]
fn a_combined_encoder_needs_an_encoder() {
    for combine in [Combine::Mean, Combine::Concat] {
        let error = CombinedEncoder::new(Vec::new(), combine).unwrap_err();
        assert_says(&error.to_string(), &["encode.views: is empty", "give at least one"]);
    }
}
