//! The command over a folder of its own, with a small pipeline of vectors.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::Float32Type;
use tempfile::TempDir;

use super::{assert_says, vectors, write_parquet};

pub const SAMPLES: usize = 200;

/// A folder with vectors and a pipeline file over them, to which `more` is added.
pub fn pipeline(more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..SAMPLES as u32));
    // All numbers are above zero, so that all similarities are.
    let vectors = vectors(SAMPLES, 8, 10, 3);
    let vectors = vectors.chunks(8).map(|vector| Some(vector.iter().map(|x| Some(x.abs())).collect::<Vec<_>>()));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 8));
    let rows = RecordBatch::try_from_iter([("n", numbers), ("v", vectors)]).unwrap();
    write_parquet(&dir.path().join("rows.parquet"), &rows, 100);
    let text = format!(
        "source.uri = 'rows.parquet'\nencode = {{ feature = 'vector', column = 'v' }}\n\
         graph = {{ candidates = 40, neighbors = 8 }}\nwalk.batch_size = 16\n{more}\n"
    );
    fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prosampler"));
    command.current_dir(dir);
    command
}

pub fn prosampler(dir: &Path, arguments: &[&str]) -> Output {
    command(dir).args(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn ends_with(output: &Output, status: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_says(&said, parts);
    assert!(!said.contains("panicked"), "{said}");
}
