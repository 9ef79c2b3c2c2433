//! For every n, the n-th system call of a short run fails. The run ends with an error that names a path, or goes on,
//! and the same command then gives the same mini-batches. strace injects the failures, so the code needs no change.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::outcome::{Outcome, Tally};
use crate::part::{self, Part};
use crate::small_run::{self, STEPS};

pub const PART: Part = Part { name: "failing calls", share: 15, goal: MOST * CALLS.len() as u64, slice: 15, round };

/// Each round has one call that fails.
const CALLS: [(&str, &str); 15] = [
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("read", "EIO"),
    ("pread64", "EIO"),
    ("openat", "EIO"),
    ("openat", "EMFILE"),
    ("fsync", "EIO"),
    ("rename", "EIO"),
    ("mmap", "ENOMEM"),
    ("unlink", "EIO"),
    ("mkdir", "ENOSPC"),
    ("flock", "ENOLCK"),
    ("getdents64", "EIO"),
    ("statx", "EIO"),
    ("lseek", "EIO"),
];

#[test]
fn a_run_whose_disk_fails_names_a_path_and_goes_on_with_the_same_mini_batches() {
    part::slice(&PART);
}

fn round(_: u64, number: u64) -> Tally {
    /// For each call, the n from which on it is not made so often any more.
    static NEVER: Mutex<Option<HashMap<(&str, &str), u64>>> = Mutex::new(None);
    let (call, error) = CALLS[(number % CALLS.len() as u64) as usize];
    // They are not taken in order, since the first calls are the loader's.
    let n = 1 + (number / CALLS.len() as u64 * 37 + 7) % MOST;
    let target = format!("{call} {error}");
    if !can_trace() {
        println!("strace cannot trace here: calls do not fail");
        return Tally::of(&target, Outcome::NotKnowable("strace cannot trace here".to_owned()), "");
    }
    let never = || NEVER.lock().unwrap_or_else(PoisonError::into_inner);
    if never().get_or_insert_default().get(&(call, error)).is_some_and(|least| n >= *least + MARGIN) {
        return Tally::default();
    }
    let (failed, outcome) = case(call, error, n);
    let mut tally = Tally::of(&target, outcome, &format!("{call}:error={error}:when={n}"));
    if failed.is_empty() {
        tally.count(&target, "of these not reached", 1);
        let mut never = never();
        let least = never.get_or_insert_default().entry((call, error)).or_insert(n);
        *least = n.min(*least);
    } else {
        never().get_or_insert_default().remove(&(call, error));
    }
    tally
}

/// Which calls failed, and what came of it. The n-th call of each thread fails, and threads share work differently in
/// each run.
fn case(call: &str, error: &str, n: u64) -> (Vec<String>, Outcome) {
    let dir = TempDir::new().unwrap();
    small_run::write(dir.path());
    let trace = dir.path().join("trace").display().to_string();
    let inject = format!("inject={call}:error={error}:when={n}");
    let strace = ["strace", "-f", "-y", "-o", &trace, "-e", &format!("trace={call}"), "-e", &inject];
    let mut command = small_run::command(dir.path(), "first.arrows", 0, &strace.map(ToOwned::to_owned));
    let Ended { status, said } = end(&mut command, dir.path());
    let trace = fs::read_to_string(&trace).unwrap_or_default();
    let failed: Vec<_> = trace.lines().filter(|l| l.ends_with("(INJECTED)")).map(ToOwned::to_owned).collect();
    // Nor can a message be read whose own `write` failed.
    let stderr = dir.path().join("stderr").display().to_string();
    let is_ours = |line: &String| line.contains(&dir.path().display().to_string()) || is_relative(line);
    let ours = failed.iter().all(|line| is_ours(line) && !line.contains(&stderr)) && !failed.is_empty();
    let Some(status) = status else {
        let outcome = match ours {
            true => Outcome::Fault(format!("it hangs; it failed: {failed:?}; it said: {said}")),
            false => Outcome::NotKnowable(ELSEWHERE.to_owned()),
        };
        return (failed, outcome);
    };
    if let Err(fault) = judge(dir.path(), status.success(), status.code(), &said, ours) {
        return (failed.clone(), Outcome::Fault(format!("{fault}; it failed: {failed:?}; it said: {said}")));
    }
    let outcome = if !status.success() && !ours {
        Outcome::NotKnowable(ELSEWHERE.to_owned())
    } else if status.success() {
        Outcome::Right
    } else {
        Outcome::Refused
    };
    (failed, outcome)
}

struct Ended {
    /// `None` if it did not end.
    status: Option<ExitStatus>,
    said: String,
}

/// Runs a command in a process group of its own, which is killed if it does not end.
fn end(command: &mut Command, dir: &Path) -> Ended {
    let stderr = dir.join("stderr");
    command.process_group(0).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
    let mut process = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        match process.try_wait().unwrap() {
            None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            status => break status,
        }
    };
    if status.is_none() {
        // SAFETY: a plain system call, on a group that was made above.
        unsafe { libc::kill(-(process.id() as i32), libc::SIGKILL) };
        process.wait().unwrap();
    }
    Ended { status, said: fs::read_to_string(&stderr).unwrap_or_default() }
}

/// Judges the run in which calls failed, and the run after it. The error must name a path only if all failed calls are
/// `ours`: those of the system's loader or the async runtime may end a process in any way.
fn judge(dir: &Path, success: bool, code: Option<i32>, said: &str, ours: bool) -> Result<(), String> {
    let whole = uninterrupted();
    let first = small_run::ids(&dir.join("first.arrows"));
    // A snapshot that cannot be saved is not used, and the log says so; mini-batches then come from the old one.
    let keeps_the_old_graph = said.contains("a refresh failed; the old snapshot stays");
    if !keeps_the_old_graph && (first.len() > whole.len() || first != whole[..first.len()]) {
        return Err("the first run has other mini-batches".to_owned());
    }
    if success && first.len() < whole.len() {
        return Err(format!("the first run succeeded with {} mini-batches", first.len()));
    }
    if ours && !success {
        if said.contains("panicked") || !matches!(code, Some(1 | 4..=8)) {
            return Err(format!("the first run ended with status {code:?}"));
        }
        let names = ["rows.parquet", "p.toml", "run.json", "first.arrows", "cache", "checkpoints"];
        if !names.iter().any(|name| said.contains(name)) {
            return Err("the first run names no path".to_owned());
        }
    }
    let from = small_run::step(dir)?;
    let second = small_run::run(dir, "second.arrows");
    if !second.status.success() {
        return Err(format!("the second run fails: {}", String::from_utf8_lossy(&second.stderr)));
    }
    if !keeps_the_old_graph && small_run::ids(&dir.join("second.arrows")) != whole[from..] {
        return Err(format!("the second run, from step {from}, has other mini-batches"));
    }
    Ok(())
}

/// Whether a failed call names a path below the folder that it was made in.
fn is_relative(line: &str) -> bool {
    let takes_a_path = ["openat(", "rename(", "unlink(", "mkdir(", "statx("].iter().any(|call| line.contains(call));
    takes_a_path && line.split('"').nth(1).is_some_and(|path| !path.starts_with('/') && !path.is_empty())
}

fn uninterrupted() -> &'static Vec<Vec<u32>> {
    static WHOLE: OnceLock<Vec<Vec<u32>>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        small_run::write(dir.path());
        let output = small_run::run(dir.path(), "out.arrows");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let whole = small_run::ids(&dir.path().join("out.arrows"));
        assert_eq!(whole.len() as u64, STEPS);
        whole
    })
}

fn can_trace() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success()))
}

/// Threads share work differently in every run, so a call is tried some more times after it was not made.
const MARGIN: u64 = 4;

/// No thread of such a run makes this many calls of one kind.
const MOST: u64 = 100;

const ELSEWHERE: &str = "what failed was no file of the run, but the loader's or a wake-up in the async runtime";

/// The run takes less than a second.
const PATIENCE: Duration = Duration::from_secs(20);
