//! A trainer in a process of its own, with pushes at fixed steps, that keeps its state every few steps.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use prosampler::refresh::RefreshHandle;
use prosampler::{Pipeline, PipelineConfig, SampleId, State};
use rand::RngExt;
use tempfile::TempDir;

use crate::outcome::{Outcome, Tally};
use crate::small_run::{self, DIMENSION, SAMPLES, STEPS};
use crate::support::random;

/// How a trainer behaves.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// How many steps it takes.
    save_every: u64,
}

/// Kills a trainer ten times, in one run or in several.
pub fn round(seed: u64, number: u64) -> Tally {
    let mut random = random(seed, "trainer", number);
    let habits = Habits { save_every: [1, 2, 5, 9][random.random_range(0..4)] };
    let (whole, takes) = uninterrupted();
    let (mut tally, mut kills) = (Tally::default(), 10);
    while kills > 0 {
        let dir = TempDir::new().unwrap();
        small_run::write(dir.path());
        let outcome = loop {
            let mut trainer = start(dir.path(), habits);
            let ended = if kills > 0 { super::kill(&mut trainer, *takes, &mut random) } else { trainer.wait().ok() };
            match ended {
                None => kills -= 1,
                Some(status) if status.success() => break compare(dir.path(), whole),
                Some(status) => break Err(format!("it does not go on, {status}: {}", said(dir.path()))),
            }
            if let Err(fault) = agree(dir.path(), whole) {
                break Err(fault);
            }
        };
        let repeat = format!("PROSAMPLER_SOAK_SEED={seed}, round {number}, {habits:?}");
        let outcome = outcome.map_or_else(Outcome::Fault, |()| Outcome::Right);
        let failed = matches!(outcome, Outcome::Fault(_));
        tally.add(Tally::of("trainer", outcome, &repeat));
        if failed {
            break;
        }
    }
    tally.count("trainer", "kills", 10 - kills);
    tally
}

fn start(dir: &Path, habits: Habits) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::trainer::trainer_that_is_killed", "--nocapture"])
        .env("PROSAMPLER_SOAK_TRAINER", dir)
        .env("PROSAMPLER_SOAK_HABITS", habits.save_every.to_string())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("stderr")).unwrap())
        .spawn()
        .unwrap()
}

/// The log of a trainer that is not killed, and how long it takes.
fn uninterrupted() -> &'static (Vec<String>, Duration) {
    static WHOLE: OnceLock<(Vec<String>, Duration)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        small_run::write(dir.path());
        let begun = Instant::now();
        let status = start(dir.path(), Habits { save_every: 1 }).wait().unwrap();
        assert!(status.success(), "{}", said(dir.path()));
        let whole = logged(dir.path());
        assert_eq!(whole.len() as u64, STEPS);
        (whole, begun.elapsed())
    })
}

/// Checks that a step that was logged several times is always the same.
fn agree(dir: &Path, whole: &[String]) -> Result<(), String> {
    for line in logged(dir) {
        let step: usize = line.split(' ').next().unwrap().parse().unwrap();
        if whole[step] != line {
            return Err(format!("step {step} is another: {line}, not {}", whole[step]));
        }
    }
    Ok(())
}

/// Checks that all steps were logged.
fn compare(dir: &Path, whole: &[String]) -> Result<(), String> {
    agree(dir, whole)?;
    let mut lines = logged(dir);
    lines.sort_unstable();
    lines.dedup();
    if lines.len() == whole.len() { Ok(()) } else { Err(format!("{} steps of {}", lines.len(), whole.len())) }
}

fn logged(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("log")).unwrap_or_default();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(ToOwned::to_owned).collect()
}

fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("stderr")).unwrap_or_default()
}

/// This is not a test of its own but the trainer's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trainer_that_is_killed() {
    let Some(dir) = std::env::var_os("PROSAMPLER_SOAK_TRAINER").map(PathBuf::from) else { return };
    std::env::set_current_dir(&dir).unwrap();
    let habits = Habits { save_every: std::env::var("PROSAMPLER_SOAK_HABITS").unwrap().parse().unwrap() };
    let mut builder = Pipeline::from_config(PipelineConfig::from_file(dir.join("p.toml")).unwrap());
    let state: Option<State> =
        fs::read("state.json").ok().map(|text| serde_json::from_slice(&text).expect("state.json is whole"));
    if let Some(state) = state {
        builder = builder.resume(state);
    }
    let mut stream = builder.start().await.unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open("log").unwrap();
    while let Some(m) = stream.try_next().await.unwrap() {
        let ids: Vec<_> = m.ids.iter().map(|id| id.0).collect();
        let line = format!("{} {} {:?} {ids:?} {:?}\n", m.step, m.epoch, m.graph_version, m.similarity);
        log.write_all(line.as_bytes()).unwrap();
        let step = m.step + 1;
        push(&stream.handle(), step);
        if step.is_multiple_of(habits.save_every) {
            let state = stream.state();
            // The pushes come first, or a state could be resumed without the vectors that were waiting.
            stream.handle().keep(&state).await.unwrap();
            fs::write("state.tmp", serde_json::to_vec(&state).unwrap()).unwrap();
            fs::rename("state.tmp", "state.json").unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Pushes come at fixed steps, also during a refresh.
fn push(handle: &RefreshHandle, step: u64) {
    if !step.is_multiple_of(2) {
        return;
    }
    let mut random = random(step, "push", 0);
    let mut ids: Vec<_> = (0..40).map(|_| SampleId(random.random_range(0..SAMPLES as u32))).collect();
    ids.sort_unstable();
    ids.dedup();
    let vectors: Vec<f32> = (0..ids.len() * DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
    handle.push_embeddings(&ids, &vectors).unwrap();
}
