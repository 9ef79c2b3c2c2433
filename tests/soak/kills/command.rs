//! The command is killed and run again.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::outcome::{Outcome, Tally};
use crate::small_run::{self, STEPS};
use crate::support::random;

/// A run that is killed three times.
pub fn round(seed: u64, number: u64) -> Tally {
    let mut random = random(seed, "command", number);
    let (whole, takes) = uninterrupted();
    let dir = TempDir::new().unwrap();
    small_run::write(dir.path());
    let mut kills = 0;
    let outcome = loop {
        let from = match small_run::step(dir.path()) {
            Ok(step) => step,
            Err(fault) => break Err(fault),
        };
        let mut process = small_run::command(dir.path(), "out.arrows", STEP_MS, &[])
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let ended = if kills < 3 { super::kill(&mut process, *takes, &mut random) } else { process.wait().ok() };
        if let Some(status) = ended.filter(|status| !status.success()) {
            break Err(format!("it does not go on, {status}: {}", said(dir.path())));
        }
        if let Err(fault) = compare(dir.path(), from, ended.is_some(), whole) {
            break Err(fault);
        }
        if ended.is_some() {
            break Ok(());
        }
        kills += 1;
    };
    let repeat = format!("PROSAMPLER_SOAK_SEED={seed}, round {number}");
    let mut tally = Tally::of("command", outcome.map_or_else(Outcome::Fault, |()| Outcome::Right), &repeat);
    tally.count("command", "kills", kills);
    tally
}

/// The mini-batches of a run that began at step `from`, up to the last if it ended by itself.
fn compare(dir: &Path, from: usize, ended: bool, whole: &[Vec<u32>]) -> Result<(), String> {
    let found = small_run::ids(&dir.join("out.arrows"));
    let _ = fs::remove_file(dir.join("out.arrows"));
    let expected = &whole[from..];
    if found.len() > expected.len() || found != expected[..found.len()] {
        return Err(format!("the mini-batches from step {from} on are others"));
    }
    if ended && found.len() < expected.len() {
        return Err(format!("{} mini-batches from step {from} on, not {}", found.len(), expected.len()));
    }
    Ok(())
}

fn uninterrupted() -> &'static (Vec<Vec<u32>>, Duration) {
    static WHOLE: OnceLock<(Vec<Vec<u32>>, Duration)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        small_run::write(dir.path());
        let begun = Instant::now();
        let output = small_run::command(dir.path(), "out.arrows", STEP_MS, &[]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let whole = small_run::ids(&dir.path().join("out.arrows"));
        assert_eq!(whole.len() as u64, STEPS);
        (whole, begun.elapsed())
    })
}

fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("stderr")).unwrap_or_default()
}

/// A state is kept once a second.
const STEP_MS: u64 = 50;
