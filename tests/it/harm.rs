//! Runs warn where neighbors are likely to be false negatives, and only there.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::Float32Type;
use tempfile::TempDir;

use crate::support::{vectors, write_parquet};

const SAMPLES: usize = 400;
const DIMENSION: usize = 16;

fn column(vectors: &[f32]) -> ArrayRef {
    let vectors = vectors.chunks(DIMENSION).map(|vector| Some(vector.iter().map(|&x| Some(x)).collect::<Vec<_>>()));
    Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, DIMENSION as i32))
}

/// What a run over `rows` with the settings `more` says on standard error.
fn warnings(rows: &RecordBatch, more: &str) -> String {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("rows.parquet"), rows, 100);
    let text = format!(
        "source.uri = 'rows.parquet'\nencode.feature = 'vector'\n\
         graph = {{ candidates = 399, neighbors = 8, builder = 'exact' }}\nwalk.batch_size = 16\n{more}\n"
    );
    fs::write(dir.path().join("p.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_prosampler"));
    let output = command.current_dir(dir.path()).args(["run", "p.toml"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// The first `twins` of the second half are nearly those of the first half.
fn with_twins(twins: usize) -> RecordBatch {
    let mut all = vectors(SAMPLES, DIMENSION, SAMPLES, 3);
    let (first, second) = all.split_at_mut(SAMPLES / 2 * DIMENSION);
    second[..twins * DIMENSION].copy_from_slice(&first[..twins * DIMENSION]);
    second[..twins * DIMENSION].iter_mut().step_by(DIMENSION).for_each(|x| *x += 0.05);
    let half = (SAMPLES / 2) as u32;
    let twin: ArrayRef = Arc::new(UInt32Array::from_iter_values((0..SAMPLES as u32).map(|row| row % half)));
    RecordBatch::try_from_iter([("v", column(&all)), ("twin", twin)]).unwrap()
}

#[test]
fn near_copies_are_warned_of_unless_they_are_few_or_kept_apart() {
    let warned = "a neighbor that is nearly the same";
    let column = "encode.column = 'v'\n";
    let said = warnings(&with_twins(50), column);
    assert!(said.contains(warned) && said.contains("share=0.25"), "{said}");
    for (twins, guards) in [(19, ""), (50, "guards.duplicate_similarity = 0.999"), (50, "guards.distinct = ['twin']")] {
        let said = warnings(&with_twins(twins), &format!("{column}{guards}"));
        assert!(!said.contains(warned), "{twins} {guards}: {said}");
    }
    // All samples look alike to this encoder: it knows nothing yet, and nobody is a copy.
    let alike: Vec<f32> = vectors(SAMPLES, DIMENSION, SAMPLES, 3).iter().map(|x| x / 100.0 + 1.0).collect();
    let said = warnings(&RecordBatch::try_from_iter([("v", self::column(&alike))]).unwrap(), column);
    assert!(!said.contains(warned), "{said}");
}

/// Anchors whose positives are the same vectors, but for the first `opposite` ones, whose positives are the opposite.
fn pairs(opposite: usize) -> RecordBatch {
    let anchors = vectors(SAMPLES, DIMENSION, SAMPLES, 3);
    let mut positives = anchors.clone();
    positives[..opposite * DIMENSION].iter_mut().for_each(|x| *x *= -0.9);
    RecordBatch::try_from_iter([("a", column(&anchors)), ("p", column(&positives))]).unwrap()
}

#[test]
fn neighbors_above_the_positive_are_warned_of() {
    let warned = "more similar to a sample than its own positive";
    let columns = "pairs = { anchor = 'a', positive = 'p', graph_over = 'anchors' }\n";
    let said = warnings(&pairs(340), columns);
    assert!(said.contains(warned) && said.contains("share=0.85"), "{said}");
    assert!(!warnings(&pairs(300), columns).contains(warned));
    let bounded = format!("{columns}guards.max_similarity = 0.99\n");
    assert!(!warnings(&pairs(340), &bounded).contains(warned));
}
