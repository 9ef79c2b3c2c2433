//! Each kind of bad input is an error that names the thing and the remedy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use prosampler::arrow::ipc::writer::FileWriter;
use prosampler::config::{EncodeConfig, PipelineConfig, StoreConfig, WalkConfig};
use prosampler::encode::OnnxEncoder;
use prosampler::error::TooFewError;
use prosampler::source::{FileSource, MemorySource};
use prosampler::{Error, Pipeline};
use tempfile::TempDir;

use crate::support::{TestEncoder, graph_config, path, pipeline, rows, source, walk_config, write_parquet};

const MODEL: &str = "data/models/gloss-encoder/model.onnx";
const TOKENIZER: &str = "data/models/gloss-encoder/tokenizer.json";

/// The error of a start from a pipeline file with these changes.
async fn start(settings: &[String]) -> String {
    let config = PipelineConfig::from_file_with(path("pipelines/text.toml"), settings).unwrap();
    Pipeline::from_config(config).start().await.unwrap_err().to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

#[tokio::test]
async fn no_such_file() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("glosses.parquet"), &rows(3), 10);
    let open = |name: &str| FileSource::open(dir.path().join(name).display().to_string());
    let error = open("gloses.parquet").await.unwrap_err().to_string();
    assert_says(&error, &["no such file", "gloses.parquet`", "did you mean", "glosses.parquet`?"]);
    let error = open("nowhere/x.parquet").await.unwrap_err().to_string();
    assert_says(&error, &["the folder", "nowhere` does not exist either"]);
    let error = open("*.arrow").await.unwrap_err().to_string();
    assert_says(&error, &["no file matches"]);
    let error = FileSource::open("ftp://server/key").await.unwrap_err().to_string();
    assert_says(&error, &["ftp://server/key", "cannot read", "copy the files"]);
}

#[tokio::test]
async fn empty_folder() {
    let dir = TempDir::new().unwrap();
    let error = FileSource::open(dir.path().display().to_string()).await.unwrap_err();
    assert_says(&error.to_string(), &["no file matches"]);
}

#[tokio::test]
async fn no_such_column() {
    let error = start(&["encode.column=gloss".into()]).await;
    assert_says(
        &error,
        &["column `gloss` not found in", "glosses.parquet", "it has `synset`, `label`", "`definition`"],
    );
    let error = pipeline(300, 10).columns(["n", "tex"]).start().await.unwrap_err().to_string();
    assert_eq!(error, "column `tex` not found in `memory`; it has `n` and `text`");
}

#[tokio::test]
async fn wrong_column_type() {
    let text = OnnxEncoder::open(&EncodeConfig { column: Some("n".into()), ..shipped() }).unwrap();
    let error = pipeline(300, 10).encoder(text).start().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "column `n` holds UInt32, but text to encode must be strings; name another column as `encode.column`"
    );
}

#[tokio::test]
async fn too_few_samples() {
    let start = |len: usize, batch_size: usize| async move {
        let error = pipeline(len.max(1), batch_size).source(source(len)).start().await.unwrap_err();
        assert!(matches!(error, Error::TooFew(TooFewError::Samples { .. })));
        error.to_string()
    };
    assert_says(&start(0, 10).await, &["`memory` has 0 rows", "it is empty", "check the path"]);
    assert_says(&start(1, 10).await, &["`memory` has 1 row,", "2 are needed", "give more data"]);
    assert_says(&start(9, 10).await, &["has 9 rows, but 10 make a mini-batch (walk.batch_size); lower it"]);
}

/// A file without rows is not a file with other columns. Alone it has too few samples; beside others it adds nothing.
#[tokio::test]
async fn files_without_rows() {
    let dir = TempDir::new().unwrap();
    let start = async |name: &str| {
        let source = FileSource::open(dir.path().join(name).display().to_string()).await.unwrap();
        let store = StoreConfig { cache_dir: Some(dir.path().join("cache")), ..StoreConfig::default() };
        pipeline(300, 10).source(source).store(store).start().await
    };
    write_parquet(&dir.path().join("none.parquet"), &rows(0), 100);
    let stream = FileWriter::try_new(fs::File::create(dir.path().join("none.arrow")).unwrap(), &rows(0).schema());
    stream.unwrap().finish().unwrap();
    for name in ["none.parquet", "none.arrow", "none.parquet"] {
        let error = start(name).await.unwrap_err();
        assert!(matches!(error, Error::TooFew(TooFewError::Samples { .. })), "{error:?}");
        assert_says(&error.to_string(), &[name, "has 0 rows", "it is empty"]);
    }
    write_parquet(&dir.path().join("some.parquet"), &rows(300), 100);
    assert_eq!(start("*.*").await.unwrap().samples(), 300);
}

#[tokio::test]
async fn null_texts() {
    let texts: StringArray = (0..300).map(|i| (i % 100 != 42).then_some("a text")).collect();
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    let encoder = OnnxEncoder::open(&EncodeConfig { column: Some("text".into()), ..shipped() }).unwrap();
    let source = MemorySource::new(vec![batch]).unwrap();
    let error = Pipeline::builder().source(source).encoder(encoder).start().await.unwrap_err().to_string();
    assert_says(&error, &["column `text` is null at sample 42", "3 of the 300 rows", "fill these rows"]);
}

#[tokio::test]
async fn broken_parquet() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.parquet");
    write_parquet(&file, &rows(1000), 250);
    let whole = fs::read(&file).unwrap();
    let open = || FileSource::open(file.display().to_string());

    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    assert_says(
        &open().await.unwrap_err().to_string(),
        &["a.parquet", "damaged or not Parquet or Arrow IPC", "write it again"],
    );
    fs::write(&file, "hello").unwrap();
    assert_says(&open().await.unwrap_err().to_string(), &["a.parquet", "it is a text"]);
    fs::write(&file, b"\x01\x02\x03\x04").unwrap();
    assert_says(&open().await.unwrap_err().to_string(), &["a.parquet", "damaged or not Parquet or Arrow IPC"]);

    // Whole pages of the third row group's texts are overwritten.
    let metadata =
        parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(whole.clone()));
    let (start, length) = metadata.unwrap().row_group(2).column(1).byte_range();
    let mut damaged = whole.clone();
    damaged[start as usize..(start + length) as usize].fill(0xee);
    fs::write(&file, damaged).unwrap();
    let start = pipeline(1000, 10).source(open().await.unwrap()).start().await;
    assert_says(&start.unwrap_err().to_string(), &["a.parquet", "row group 2, column `text`"]);
}

#[tokio::test]
async fn files_that_disagree() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("a.parquet"), &rows(10), 10);
    let other = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    write_parquet(&dir.path().join("b.parquet"), &other, 10);
    let source = FileSource::open(dir.path().display().to_string()).await.unwrap();
    let error = pipeline(10, 5).source(source).start().await.unwrap_err().to_string();
    assert_says(&error, &["b.parquet", "column `text` is missing", "but Utf8 in the files before"]);
}

fn shipped() -> EncodeConfig {
    EncodeConfig {
        model: Some(path(MODEL)),
        tokenizer: Some(path(TOKENIZER)),
        column: Some("definition".into()),
        sessions: 1,
        ..EncodeConfig::default()
    }
}

fn open(change: impl FnOnce(&mut EncodeConfig)) -> String {
    let mut config = shipped();
    change(&mut config);
    OnnxEncoder::open(&config).unwrap_err().to_string()
}

fn test_model(name: &str) -> Option<PathBuf> {
    Some(path(&format!("tests/data/{name}.onnx")))
}

#[test]
fn a_file_that_is_not_a_model() {
    let error = open(|c| c.model = Some(path("README.md")));
    assert_says(&error, &["README.md` cannot be opened as an ONNX model", "export it again", "ONNX Runtime says"]);
    let error = open(|c| c.model = Some("no/model.onnx".into()));
    assert_says(&error, &["no such file: `no/model.onnx`", "--model"]);
}

#[test]
fn a_model_whose_inputs_do_not_fit() {
    let error = open(|c| c.model = test_model("pixels"));
    assert_says(&error, &["pixels.onnx` declares `pixel_values", "takes `input_ids`", "export it with these names"]);
    let error = open(|c| c.model = test_model("prompted"));
    assert_says(&error, &["declares `prompt", "which text does not give"]);
}

#[test]
fn a_model_whose_output_is_unclear() {
    let error = open(|c| c.model = test_model("two_outputs"));
    assert_says(&error, &["has no output `sentence_embedding`", "it has `a` and `b`", "encode.output"]);
    let error = open(|c| c.output = Some("embedding".into()));
    assert_says(&error, &["has no output `embedding`", "it has `sentence_embedding`"]);
}

#[test]
fn a_model_without_a_finite_vector() {
    let error = open(|c| c.model = test_model("not_finite"));
    assert_says(&error, &["not_finite.onnx` gives no finite vector", "export it again"]);
}

#[test]
fn a_tokenizer_that_is_missing_or_damaged() {
    let error = open(|c| c.tokenizer = Some("no/tokenizer.json".into()));
    assert_says(&error, &["no such file: `no/tokenizer.json`", "--tokenizer"]);
    // If none is named, the tokenizer is looked for beside the model.
    let error = open(|c| (c.tokenizer, c.model) = (None, test_model("states")));
    assert_says(&error, &["tests/data/tokenizer.json"]);
    let error = open(|c| c.tokenizer = Some(path("Cargo.toml")));
    assert_says(&error, &["tokenizer `", "Cargo.toml`", "must be a `tokenizer.json`"]);
}

#[test]
fn an_encoder_without_its_settings() {
    let error = open(|c| (c.model, c.column) = (None, None));
    assert_says(&error, &["2 faults", "encode.model: is required", "encode.column: is required"]);
}

#[tokio::test]
async fn embeddings_that_are_not_finite() {
    let error = |value: f32| {
        let encoder = TestEncoder::new(9000).altered(move |_, n, vector| {
            if n == 8500 {
                vector[3] = value;
            }
        });
        async move { pipeline(9000, 10).encoder(encoder).start().await.unwrap_err().to_string() }
    };
    assert_says(&error(f32::NAN).await, &["sample 8500 cannot be encoded", "column `n`", "component 3 is NaN"]);
    assert_says(&error(f32::INFINITY).await, &["sample 8500 cannot be encoded", "column `n`", "component 3 is inf"]);
}

#[tokio::test]
async fn settings_in_code_are_checked_like_a_file() {
    let walk = WalkConfig { restart_probability: Some(1.0.into()), ..walk_config(1) };
    let error = pipeline(300, 10).walk(walk).graph(graph_config(5, 6)).start().await.unwrap_err().to_string();
    assert_says(
        &error,
        &["3 faults in the settings", "walk.restart_probability", "walk.batch_size", "graph.neighbors"],
    );
    let error = Pipeline::builder().start().await.unwrap_err().to_string();
    assert_says(&error, &["source.uri: is required"]);
    let error = Pipeline::builder().source(source(300)).start().await.unwrap_err().to_string();
    assert_says(&error, &["encode.model: is required", "encode.column: is required"]);
}

#[test]
fn a_cache_folder_that_cannot_be_created() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let below: &Path = &file.path().join("cache");
    let dir = TempDir::new().unwrap();
    let parquet = dir.path().join("a.parquet");
    write_parquet(&parquet, &rows(300), 100);
    let error = runtime.block_on(async {
        let source = FileSource::open(parquet.display().to_string()).await.unwrap();
        let store = prosampler::config::StoreConfig { cache_dir: Some(below.into()), ..Default::default() };
        pipeline(300, 10).source(source).store(store).start().await.unwrap_err().to_string()
    });
    assert_says(&error, &["cannot create a file in the folder of", "cache/"]);
}
