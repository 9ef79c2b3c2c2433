//! `prosampler init` guesses from data and model what the pipeline files of this repository say.

use std::fs;

use prosampler::PipelineConfig;
use prosampler::config::FeatureKind;
use tempfile::TempDir;

use crate::{ends_with, path, prosampler, write_arrow};

/// Writes a pipeline file for data of this repository, runs it, and returns its settings.
#[track_caller]
fn written(uri: &str, model: Option<&str>) -> PipelineConfig {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("p.toml").display().to_string();
    let mut arguments = vec!["init", uri, "--out", &out];
    arguments.extend(model.iter().flat_map(|model| ["--model", model]));
    let (_, said) = ends_with(&prosampler(&path(""), &arguments), 0);
    assert!(said.contains(&format!("{out} is written; try it: prosampler run {out}")), "{said}");
    PipelineConfig::from_file(out).unwrap()
}

#[test]
fn texts_and_their_label() {
    let config = written("data/wordnet/glosses.parquet", Some("data/models/gloss-encoder/model.onnx"));
    assert_eq!((config.encode.kind(), config.encode.column.as_deref()), (FeatureKind::Text, Some("definition")));
    assert_eq!(config.report.label.as_deref(), Some("label"));
    assert_eq!(config.walk.batch_size, 128);
}

#[test]
fn pairs() {
    let config = written("data/bible/pairs.parquet", Some("data/models/verse-encoder/model.onnx"));
    let pairs = (config.pairs.anchor.as_deref(), config.pairs.positive.as_deref());
    assert_eq!(pairs, (Some("anchor"), Some("positive")));
    assert_eq!(config.guards.max_relative_to_positive, Some(0.95));
}

#[test]
fn images() {
    let config = written("data/fashion-mnist/images.parquet", Some("data/models/fashion-encoder/model.onnx"));
    assert_eq!((config.encode.kind(), config.encode.column.as_deref()), (FeatureKind::Image, Some("image")));
    assert_eq!(config.report.label.as_deref(), Some("label"));
}

#[test]
fn graphs() {
    let config = written("data/b3db/molecules.parquet", Some("data/models/molecule-encoder/model.onnx"));
    assert_eq!(config.encode.kind(), FeatureKind::Graph);
    assert_eq!(config.encode.graph.unwrap().node_features, "node_features");
}

#[test]
fn vectors_without_a_model() {
    let config = written("data/fashion-mnist/embeddings.parquet", None);
    assert_eq!((config.encode.kind(), config.encode.column.as_deref()), (FeatureKind::Vector, Some("embedding")));
    assert_eq!(config.encode.dimension, Some(64));
}

#[test]
fn what_it_writes_runs_as_it_is() {
    let dir = TempDir::new().unwrap();
    fs::copy(path("data/fashion-mnist/embeddings.parquet"), dir.path().join("rows.parquet")).unwrap();
    ends_with(&prosampler(dir.path(), &["init", "rows.parquet"]), 0);
    let (out, said) = ends_with(&prosampler(dir.path(), &["run", "pipeline.toml"]), 0);
    assert!(out.contains("mean in-batch similarity"), "{out}");
    assert!(!said.contains("WARN"), "{said}");
}

#[test]
fn nothing_is_overwritten() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pipeline.toml"), "mine").unwrap();
    let uri = path("data/fashion-mnist/embeddings.parquet").display().to_string();
    let (_, said) = ends_with(&prosampler(dir.path(), &["init", &uri]), 8);
    assert!(said.contains("pipeline.toml") && said.contains("--out"), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("pipeline.toml")).unwrap(), "mine");
}

#[test]
fn without_a_model_it_says_where_one_belongs() {
    let dir = TempDir::new().unwrap();
    let uri = path("data/wordnet/glosses.parquet").display().to_string();
    let (_, said) = ends_with(&prosampler(dir.path(), &["init", &uri]), 0);
    assert!(said.contains("needs a model"), "{said}");
    let text = fs::read_to_string(dir.path().join("pipeline.toml")).unwrap();
    assert!(text.contains("model = \"model.onnx\""), "{text}");
}

#[test]
fn a_file_in_another_folder_has_absolute_paths() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("runs")).unwrap();
    fs::copy(path("data/fashion-mnist/embeddings.parquet"), dir.path().join("rows.parquet")).unwrap();
    ends_with(&prosampler(dir.path(), &["init", "rows.parquet", "--out", "runs/p.toml"]), 0);
    let config = PipelineConfig::from_file(dir.path().join("runs/p.toml")).unwrap();
    assert_eq!(config.source.uri, [dir.path().canonicalize().unwrap().join("rows.parquet").display().to_string()]);
}

#[test]
fn nothing_to_embed_is_said() {
    let dir = TempDir::new().unwrap();
    let numbers = prosampler::arrow::array::UInt32Array::from_iter_values(0..100);
    let rows =
        prosampler::arrow::array::RecordBatch::try_from_iter([("n", std::sync::Arc::new(numbers) as _)]).unwrap();
    write_arrow(&dir, &rows);
    let (_, said) = ends_with(&prosampler(dir.path(), &["init", "rows.arrow"]), 2);
    assert!(said.contains("no column is a text") && said.contains("prosampler inspect"), "{said}");
    assert!(!dir.path().join("pipeline.toml").exists());
}
