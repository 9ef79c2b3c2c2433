//! Damaged inputs give the right rows, or an error that names the file.

mod cache;
mod checkpoint;
pub mod data;
mod model;
mod pipeline_file;

use prosampler::Error;

use crate::child::{self, Target};
use crate::fuzz;
use crate::log;
use crate::outcome::{Outcome, Tally};
use crate::part::{self, Part};

pub const PART: Part = Part { name: "damaged inputs", share: 40, goal: 4005, slice: TARGETS.len() as u64, round };

/// The targets, with their cases of a round.
const TARGETS: [(&str, u64); 9] = [
    ("parquet", 40),
    ("ipc-file", 40),
    ("ipc-stream", 40),
    ("cache", 30),
    ("checkpoint", 20),
    ("state", 10),
    ("model", 15),
    ("tokenizer", 10),
    ("pipeline", 20),
];

fn target(name: &str) -> Box<dyn Target> {
    match name {
        "parquet" | "ipc-file" | "ipc-stream" => Box::new(data::Data::new(name)),
        "cache" => Box::new(cache::Cache::new()),
        "checkpoint" => Box::new(checkpoint::Checkpoint::new()),
        "state" => Box::new(checkpoint::StateFile::new()),
        "model" => Box::new(model::Model::new(false)),
        "tokenizer" => Box::new(model::Model::new(true)),
        "pipeline" => Box::new(pipeline_file::PipelineFile::new()),
        "tables" => Box::new(fuzz::Fuzz::new()),
        other => panic!("no target `{other}`"),
    }
}

fn round(seed: u64, number: u64) -> Tally {
    let (name, cases) = TARGETS[(number % TARGETS.len() as u64) as usize];
    let first = number / TARGETS.len() as u64 * cases;
    child::run(name, seed, first..first + cases)
}

/// Judges an error, which must name one of these.
fn refused(error: &Error, names: &[&str]) -> Outcome {
    let message = error.to_string();
    match error {
        Error::TaskDied { .. } => Outcome::Fault(format!("a task died: {message}")),
        _ if names.iter().any(|name| message.contains(name)) => Outcome::Refused,
        _ => Outcome::Fault(format!("the file is not named: {message}")),
    }
}

/// This is not a test of its own but the process that [`child::run`] starts.
#[test]
fn child() {
    child::serve(target);
}

#[test]
fn damaged_inputs_give_the_right_rows_or_an_error_that_names_the_file() {
    part::slice(&PART);
}

/// `make soak-case CASE='parquet 1 4711'` runs that case alone, and says how it ended.
#[test]
#[ignore = "repeats a case: `make soak-case`"]
fn case() {
    let Ok(wanted) = std::env::var("PROSAMPLER_SOAK_CASE") else { return };
    let words: Vec<_> = wanted.split(' ').collect();
    child::limit_memory();
    child::note_panics();
    log::collect();
    let mut target = target(words[0]);
    let outcome = child::one(target.as_mut(), words[1].parse().unwrap(), words[2].parse().unwrap());
    println!("{outcome:?}");
}
