//! What a newcomer meets in this order: `init` writes a pipeline file, `tune` finds how hard mini-batches should be,
//! and `report` shows who is in them.

mod export;
mod init;
mod report;
mod tune;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch, StringArray};
use prosampler::arrow::datatypes::Float32Type;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// A path in the repository.
fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn prosampler(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prosampler")).current_dir(dir).args(arguments).output().unwrap()
}

/// What a command printed on standard output, and on standard error; it must have this status.
#[track_caller]
fn ends_with(output: &Output, status: i32) -> (String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(status), "{err}");
    (out, err)
}

/// Unit vectors around so many centers, the rows of one center not beside each other.
fn vectors(len: usize, dimension: usize, centers: usize, spread: f32) -> Vec<Vec<f32>> {
    let mut generator = ChaCha8Rng::seed_from_u64(11);
    let mut random = |scale: f32| -> Vec<f32> {
        (0..dimension).map(|_| (0..8).map(|_| generator.random_range(-scale..scale)).sum::<f32>()).collect()
    };
    let centers: Vec<Vec<f32>> = (0..centers).map(|_| random(1.0)).collect();
    let near = |i: usize| -> Vec<f32> {
        let noise = random(spread);
        let vector: Vec<f32> = centers[i % centers.len()].iter().zip(noise).map(|(x, e)| x + e).collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter().map(|x| x / length).collect()
    };
    (0..len).map(near).collect()
}

/// Rows `text`, `label` and `vector`; the text of row 7 is hostile to pages.
fn rows(vectors: &[Vec<f32>], labels: usize) -> RecordBatch {
    let name = |i: usize| if i == 7 { HOSTILE.to_owned() } else { format!("text number {i}") };
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..vectors.len()).map(name)));
    let label = |i: usize| format!("class {}", i % labels);
    let labels: ArrayRef = Arc::new(StringArray::from_iter_values((0..vectors.len()).map(label)));
    let dimension = vectors[0].len() as i32;
    let lists = vectors.iter().map(|vector| Some(vector.iter().map(|&x| Some(x)).collect::<Vec<_>>()));
    let lists: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(lists, dimension));
    RecordBatch::try_from_iter([("text", texts), ("label", labels), ("vector", lists)]).unwrap()
}

/// Writes `rows.arrow` into a folder.
fn write_arrow(dir: &tempfile::TempDir, rows: &RecordBatch) {
    let file = std::fs::File::create(dir.path().join("rows.arrow")).unwrap();
    let mut writer = prosampler::arrow::ipc::writer::FileWriter::try_new(file, &rows.schema()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
}

const HOSTILE: &str = "<script>alert('owned')</script> & \"quotes\"";

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}
