//! Pipeline files are damaged.

use std::fs;

use futures::TryStreamExt;
use prosampler::{Pipeline, PipelineConfig, Result};
use rand::RngExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::Target;
use crate::mutate::{self, Mutant};
use crate::outcome::Outcome;
use crate::small_run;
use crate::support::{random, runtime};

pub struct PipelineFile {
    runtime: Runtime,
    dir: TempDir,
    text: String,
    whole: Vec<Vec<u32>>,
}

impl PipelineFile {
    pub fn new() -> Self {
        let (runtime, dir) = (runtime(), TempDir::new().unwrap());
        small_run::write(dir.path());
        let text = fs::read_to_string(dir.path().join("p.toml")).unwrap() + MORE;
        fs::write(dir.path().join("p.toml"), &text).unwrap();
        let whole = runtime.block_on(mini_batches(&dir)).unwrap();
        Self { runtime, dir, text, whole }
    }
}

impl Target for PipelineFile {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let mut random = random(seed, "pipeline", number);
        let bytes = self.text.as_bytes();
        let mut mutant = Mutant::new(bytes);
        match random.random_range(0..4) {
            0 => mutant.rearrange(bytes, &mut random),
            1 => mutant.change(0..bytes.len(), &mut random),
            _ => {
                // A number is replaced by another.
                let starts = |i: &usize| bytes[*i].is_ascii_digit() && !bytes[i - 1].is_ascii_digit();
                let numbers: Vec<_> = (1..bytes.len()).filter(starts).collect();
                let at = numbers[random.random_range(0..numbers.len())];
                let end = (at..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap();
                let old = self.text[at..end].parse().unwrap();
                mutant.put(at..end, mutate::number(old, &mut random).to_string().as_bytes());
            }
        }
        for folder in ["cache", "checkpoints"] {
            let _ = fs::remove_dir_all(self.dir.path().join(folder));
        }
        fs::write(self.dir.path().join("p.toml"), mutant.bytes).unwrap();
        match self.runtime.block_on(mini_batches(&self.dir)) {
            Ok(found) if found == self.whole => Outcome::Right,
            Ok(_) => Outcome::NotKnowable("another setting".to_owned()),
            // Settings that are valid but do not fit the data are reported with one of these names.
            Err(error) => super::refused(&error, NAMES),
        }
    }
}

async fn mini_batches(dir: &TempDir) -> Result<Vec<Vec<u32>>> {
    let config = PipelineConfig::from_file(dir.path().join("p.toml"))?;
    let mut stream = Pipeline::from_config(config).start().await?;
    let mut found = Vec::new();
    while found.len() < 10
        && let Some(mini_batch) = stream.try_next().await?
    {
        found.push(mini_batch.ids.iter().map(|id| id.0).collect());
    }
    Ok(found)
}

/// Settings of kinds that the file does not have.
const MORE: &str = "\
source.filter = 'n >= 10 and n < 290'
source.on_corrupt = 'fail'
guards = { skip_nearest = 1, distinct = ['n'] }
walk.restart_probability = 0.2
";

/// An error must name one of these: a file or folder, or a setting by its section.
const NAMES: &[&str] = &[
    "p.toml",
    "rows.parquet",
    "checkpoints",
    "cache",
    "seed",
    "source.",
    "encode.",
    "graph.",
    "walk.",
    "guards.",
    "refresh.",
    "stream.",
    "store.",
    "checkpoint.",
    "the filter `",
    "the filter compares",
    "no such file: `",
];
