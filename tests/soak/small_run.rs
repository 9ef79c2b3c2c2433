//! A small run of the command with everything that can be lost: a cache, snapshots at fixed steps, a state. It begins
//! with a warm-up, whose states have no snapshot.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use prosampler::arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::{DataType, Field, UInt32Type};
use prosampler::arrow::ipc::reader::StreamReader;
use rand::RngExt;
use serde_json::Value;

use crate::support::random;

pub const SAMPLES: usize = 300;
pub const DIMENSION: usize = 6;
pub const STEPS: u64 = 45;

/// Writes `rows.parquet` and the pipeline file `p.toml`.
pub fn write(dir: &Path) {
    let mut random = random(0, "vectors", 0);
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..SAMPLES as u32));
    let vectors: Vec<f32> = (0..SAMPLES * DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let vectors = FixedSizeListArray::new(item, DIMENSION as i32, Arc::new(Float32Array::from(vectors)), None);
    let rows = RecordBatch::try_from_iter([("n", numbers), ("vector", Arc::new(vectors) as ArrayRef)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let file = File::create(dir.join("rows.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    fs::write(dir.join("p.toml"), PIPELINE).unwrap();
}

/// An epoch has 15 mini-batches.
const PIPELINE: &str = "\
seed = 7
source.uri = 'rows.parquet'
encode = { feature = 'vector', column = 'vector', dimension = 6 }
graph = { candidates = 30, neighbors = 8 }
walk.batch_size = 20
walk.warm_up = { steps = 5 }
refresh = { every_steps = 6, swap_after_steps = 3 }
stream.epochs = 3
store.cache_dir = 'cache'
checkpoint.dir = 'checkpoints'
";

/// `prosampler run` with a state, under a command such as strace if one is given. Keeps mini-batches in `output`.
pub fn command(dir: &Path, output: &str, step_ms: u64, under: &[String]) -> Command {
    let binary = env!("CARGO_BIN_EXE_prosampler");
    let mut command = match under {
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary);
            command
        }
        [] => Command::new(binary),
    };
    let step_ms = step_ms.to_string();
    command.current_dir(dir).args(["run", "p.toml", "--state", "run.json", "--output", output, "--step-ms", &step_ms]);
    command.env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

pub fn run(dir: &Path, output: &str) -> Output {
    command(dir, output, 0, &[]).output().unwrap()
}

/// The ids of the mini-batches in a file, as far as they reached it.
pub fn ids(file: &Path) -> Vec<Vec<u32>> {
    let Ok(file) = File::open(file) else { return Vec::new() };
    let Ok(batches) = StreamReader::try_new(file, None) else { return Vec::new() };
    let ids = |batch: RecordBatch| batch["sample_id"].as_primitive::<UInt32Type>().values().to_vec();
    batches.map_while(Result::ok).map(ids).collect()
}

/// The step of the state in a run's file, or 0 if there is none.
pub fn step(dir: &Path) -> Result<usize, String> {
    let Ok(text) = fs::read(dir.join("run.json")) else { return Ok(0) };
    let state: Value = serde_json::from_slice(&text).map_err(|error| format!("run.json is damaged: {error}"))?;
    state["step"].as_u64().map(|step| step as usize).ok_or_else(|| "run.json has no step".to_owned())
}
