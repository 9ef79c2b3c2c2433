//! Models whose weights lie in files of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch};
use prosampler::arrow::datatypes::Float32Type;
use prosampler::config::{EncodeConfig, FeatureKind, TensorConfig};
use prosampler::encode::{Encoder, OnnxEncoder};
use tempfile::TempDir;

use crate::support::{assert_says, encode, path};

/// The model gives x · w for one row of ones, which is the weights themselves.
fn weights(encoder: &dyn Encoder) -> Vec<f32> {
    let x = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0); 3])], 3);
    let rows = RecordBatch::try_from_iter([("x", Arc::new(x) as ArrayRef)]).unwrap();
    encode(encoder, &rows).remove(0)
}

fn config(model: &Path) -> EncodeConfig {
    EncodeConfig {
        feature: Some(FeatureKind::Tensor),
        tensor: Some(TensorConfig::default()),
        model: Some(model.into()),
        sessions: 1,
        normalize: false,
        ..EncodeConfig::default()
    }
}

fn copy(names: &[&str]) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    for name in names {
        fs::copy(path("tests/data/external").join(name), dir.path().join(name)).unwrap();
    }
    let model = dir.path().join("scaled.onnx");
    (dir, model)
}

#[test]
fn a_model_is_its_external_data_too() {
    let (dir, model) = copy(&["scaled.onnx", "scaled.onnx_data"]);
    let encoder = OnnxEncoder::open(&config(&model)).unwrap();
    assert_eq!(weights(&encoder), [1.0, 2.0, 3.0]);
    assert_eq!(encoder.model_files(), [model.as_path(), &dir.path().join("scaled.onnx_data")]);
}

#[test]
fn missing_external_data_are_named() {
    let (dir, model) = copy(&["scaled.onnx"]);
    let error = OnnxEncoder::open(&config(&model)).unwrap_err().to_string();
    let missing = format!("no such file: `{}`", dir.path().join("scaled.onnx_data").display());
    assert_says(&error, &[&missing, "keeps weights in it"]);
}

/// A model is newer even if only its external data changed, and their size and time are as before.
#[test]
fn newer_external_data_are_a_newer_model() {
    let (dir, model) = copy(&["scaled.onnx", "scaled.onnx_data"]);
    let encoder = OnnxEncoder::open(&config(&model)).unwrap();
    assert!(encoder.newer().unwrap().is_none());
    let (data, incoming) = (dir.path().join("scaled.onnx_data"), dir.path().join("incoming"));
    let time = fs::metadata(&data).unwrap().modified().unwrap();
    fs::copy(path("tests/data/external/renamed.onnx_data"), &incoming).unwrap();
    fs::File::options().write(true).open(&incoming).unwrap().set_modified(time).unwrap();
    fs::rename(&incoming, &data).unwrap();
    assert_eq!(weights(&encoder.newer().unwrap().unwrap()), [3.0, 2.0, 1.0]);
    assert_eq!(weights(&encoder), [1.0, 2.0, 3.0], "the old one stays as it is");
}

/// A link may be changed to lead elsewhere, or a folder may replace another.
#[cfg(unix)]
#[test]
fn a_redirected_link_is_a_newer_model() {
    let (old, _) = copy(&["scaled.onnx", "scaled.onnx_data"]);
    let new = TempDir::new().unwrap();
    fs::copy(path("tests/data/external/renamed.onnx"), new.path().join("scaled.onnx")).unwrap();
    fs::copy(path("tests/data/external/renamed.onnx_data"), new.path().join("renamed.onnx_data")).unwrap();
    let dir = TempDir::new().unwrap();
    let (current, next) = (dir.path().join("current"), dir.path().join("next"));
    std::os::unix::fs::symlink(old.path(), &current).unwrap();
    let encoder = OnnxEncoder::open(&config(&current.join("scaled.onnx"))).unwrap();
    std::os::unix::fs::symlink(new.path(), &next).unwrap();
    fs::rename(&next, &current).unwrap();
    let newer = encoder.newer().unwrap().unwrap();
    assert_eq!(weights(&newer), [3.0, 2.0, 1.0]);
    assert!(newer.newer().unwrap().is_none());
    assert_eq!(newer.model_files()[1], current.join("renamed.onnx_data"));

    fs::remove_file(&current).unwrap();
    fs::rename(old.path(), &current).unwrap();
    assert_eq!(weights(&newer.newer().unwrap().unwrap()), [1.0, 2.0, 3.0]);
    // This is there to be removed.
    fs::create_dir(old.path()).unwrap();
}
