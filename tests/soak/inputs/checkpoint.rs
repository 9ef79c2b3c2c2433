//! The files in a run's checkpoint folder and the command's state file are damaged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use prosampler::config::Resume;
use prosampler::{MiniBatch, Pipeline, PipelineConfig, Result, State};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::Target;
use crate::ipc_edit::IpcLayout;
use crate::mutate::Mutant;
use crate::outcome::Outcome;
use crate::small_run;
use crate::support::{random, runtime};

/// The run that is resumed.
struct Begun {
    runtime: Runtime,
    dir: TempDir,
    /// The files of the checkpoint folder.
    files: Vec<(PathBuf, Vec<u8>)>,
    state: State,
    whole: Vec<Vec<u32>>,
}

impl Begun {
    fn new() -> Self {
        let (runtime, dir) = (runtime(), TempDir::new().unwrap());
        small_run::write(dir.path());
        let run = |name| Pipeline::from_config(config(dir.path(), &dir.path().join(name))).start();
        let (state, whole) = runtime.block_on(async {
            let mut stream = run("begun").await.unwrap();
            let mut state = None;
            for step in 1..=STEP {
                stream.try_next().await.unwrap().unwrap();
                if [STEP - 6, STEP].contains(&step) {
                    stream.handle().keep(&stream.state()).await.unwrap();
                    state = Some(stream.state());
                }
            }
            let whole: Vec<MiniBatch> = run("whole").await.unwrap().try_collect().await.unwrap();
            (state.unwrap(), whole.iter().map(|one| one.ids.iter().map(|id| id.0).collect()).collect())
        });
        // Its tasks end before its lock is released.
        File::open(dir.path().join("begun/lock")).unwrap().lock().unwrap();
        copy(&dir.path().join("begun"), &dir.path().join("kept"));
        let folder = fs::read_dir(dir.path().join("kept")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = folder.filter(|file| !file.ends_with("lock")).collect();
        files.sort();
        let files = files.into_iter().map(|file| (file.file_name().unwrap().into(), fs::read(file).unwrap())).collect();
        Self { runtime, dir, files, state, whole }
    }

    /// The folder as it was, under another name, since a dropped run may not have ended yet.
    fn restore(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        self.files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        folder
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn config(dir: &Path, checkpoints: &Path) -> PipelineConfig {
    let mut config = PipelineConfig::from_file(dir.join("p.toml")).unwrap();
    config.source.uri = vec![dir.join("rows.parquet").display().to_string()];
    config.checkpoint.dir = Some(checkpoints.to_owned());
    config.store.cache_dir = None;
    config
}

/// The mini-batches that follow a state, and how many refreshes have failed meanwhile.
async fn resumed(config: PipelineConfig, state: &State, steps: usize) -> Result<(Vec<Vec<u32>>, u64)> {
    let mut stream = Pipeline::from_config(config).resume(state.clone()).start().await?;
    let mut found = Vec::new();
    while found.len() < steps
        && let Some(mini_batch) = stream.try_next().await?
    {
        found.push(mini_batch.ids.iter().map(|id| id.0).collect());
    }
    Ok((found, stream.handle().counts().failed))
}

pub struct Checkpoint(Begun);

impl Checkpoint {
    pub fn new() -> Self {
        Self(Begun::new())
    }
}

impl Target for Checkpoint {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let mut random = random(seed, "checkpoint", number);
        let Begun { runtime, dir, files, state, whole } = &self.0;
        let folder = self.0.restore(&format!("checkpoints-{number}"));
        let (name, bytes) = &files[random.random_range(0..files.len())];
        let (_, other) = &files[random.random_range(0..files.len())];
        let mutant = damaged(bytes, other, &mut random);
        fs::remove_file(folder.join(name)).unwrap();
        fs::write(folder.join(name), &mutant.bytes).unwrap();
        let exact = runtime.block_on(resumed(config(dir.path(), &folder), state, MORE));
        let outcome = match exact {
            Ok((found, _)) if found == whole[STEP..][..MORE] => return Outcome::Right,
            Ok((found, failed)) => {
                let same = found.iter().zip(&whole[STEP..]).take_while(|(one, other)| one == other).count();
                return Outcome::Fault(format!(
                    "{}: {} mini-batches, of which the first {same} are right; {failed} refreshes failed",
                    name.display(),
                    found.len()
                ));
            }
            Err(error) => super::refused(&error, &["checkpoints"]),
        };
        if outcome != Outcome::Refused {
            return outcome;
        }
        // This is what the message advises.
        let mut latest = config(dir.path(), &folder);
        latest.checkpoint.resume = Resume::Latest;
        match runtime.block_on(resumed(latest, state, 2)) {
            Ok((found, _)) if found.len() == 2 => Outcome::Refused,
            Ok((found, _)) => Outcome::Fault(format!("with resume = \"latest\": {} mini-batches", found.len())),
            Err(error) => super::refused(&error, &["checkpoints"]),
        }
    }
}

/// Damages Arrow files by their layout, and others anywhere.
fn damaged(bytes: &[u8], other: &[u8], random: &mut ChaCha8Rng) -> Mutant {
    let mut mutant = Mutant::new(bytes);
    if bytes.starts_with(b"ARROW1") {
        IpcLayout::of(bytes).damage(&mut mutant, other, random);
    } else if random.random_range(0..4) == 0 {
        mutant.rearrange(other, random);
    } else {
        mutant.change(0..bytes.len(), random);
    }
    mutant
}

/// Damages the command's state file and runs the command.
pub struct StateFile {
    begun: Begun,
    text: Vec<u8>,
}

impl StateFile {
    pub fn new() -> Self {
        let begun = Begun::new();
        let text = serde_json::to_vec_pretty(&begun.state).unwrap();
        Self { begun, text }
    }
}

impl Target for StateFile {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let mut random = random(seed, "state", number);
        let dir = self.begun.dir.path();
        let _ = fs::remove_dir_all(dir.join("checkpoints"));
        self.begun.restore("checkpoints");
        let mutant = damaged(&self.text, &self.text, &mut random);
        fs::write(dir.join("run.json"), &mutant.bytes).unwrap();
        let output = small_run::run(dir, "out.arrows");
        let said = String::from_utf8_lossy(&output.stderr);
        let found = small_run::ids(&dir.join("out.arrows"));
        match output.status.code() {
            _ if said.contains("panicked") => Outcome::Fault(format!("it panics: {said}")),
            Some(0) if found == self.begun.whole[STEP..] => Outcome::Right,
            Some(0) => Outcome::Fault(format!("{} mini-batches, others than without damage", found.len())),
            // A state that cannot be resumed.
            Some(7) if said.contains("run.json") => Outcome::Refused,
            code => Outcome::Fault(format!("status {code:?}, and run.json is not named: {said}")),
        }
    }
}

/// The number of mini-batches before the state, and of those that are compared.
const STEP: usize = 20;
const MORE: usize = 12;
