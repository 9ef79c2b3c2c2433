//! Processes that run many cases each. A crash or a hang fails only the case that it happened in.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use crate::log;
use crate::outcome::{Outcome, Tally};

/// What a child runs.
pub trait Target {
    /// The case of this number, by the run's seed.
    fn case(&mut self, seed: u64, number: u64) -> Outcome;
}

/// Runs cases of a target in children.
pub fn run(target: &str, seed: u64, cases: Range<u64>) -> Tally {
    let mut tally = Tally::default();
    let mut next = cases.start;
    while next < cases.end {
        let mut child = Running::start(target, seed, next..cases.end);
        while next < cases.end {
            let outcome = child.outcome(next);
            let crashed = outcome.is_none();
            let outcome = outcome.unwrap_or_else(|| Outcome::Fault(child.end()));
            let repeat = format!("make soak-case CASE='{target} {seed} {next}'");
            tally.add(Tally::of(target, outcome, &repeat));
            next += 1;
            if crashed {
                break;
            }
        }
    }
    tally
}

struct Running {
    process: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(target: &str, seed: u64, cases: Range<u64>) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inputs::child", "--nocapture", "--test-threads", "1"])
            .env("PROSAMPLER_SOAK_CHILD", format!("{target} {seed} {} {}", cases.start, cases.end))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, lines) = channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mine = out.lines().map_while(Result::ok).filter_map(|line| Some(line.strip_prefix(MARK)?.to_owned()));
            mine.for_each(|line| drop(told.send(line)));
        });
        Self { process, lines }
    }

    /// What the child reports of a case, or nothing if it died or hangs.
    fn outcome(&mut self, number: u64) -> Option<Outcome> {
        let line = self.lines.recv_timeout(PATIENCE).ok()?;
        let (found, outcome) = line.split_once(' ').unwrap();
        assert_eq!(found, number.to_string());
        Some(serde_json::from_str(outcome).unwrap())
    }

    /// How it died, or that it had to be killed.
    fn end(&mut self) -> String {
        let hung = self.process.try_wait().unwrap().is_none() && {
            // The child has closed its output and is about to end, or it hangs.
            std::thread::sleep(Duration::from_millis(500));
            self.process.try_wait().unwrap().is_none()
        };
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        let mut said = Vec::new();
        let _ = self.process.stderr.take().unwrap().read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(400)..]).into_owned();
        if hung { format!("it hangs; it said: {said}") } else { format!("the process died, {status}: {said}") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's side: runs the cases that its environment names, if any.
pub fn serve(target: impl Fn(&str) -> Box<dyn Target>) {
    let Ok(task) = std::env::var("PROSAMPLER_SOAK_CHILD") else { return };
    let words: Vec<_> = task.split(' ').collect();
    let number = |place: usize| words[place].parse::<u64>().unwrap();
    limit_memory();
    note_panics();
    log::collect();
    let mut target = target(words[0]);
    for case in number(2)..number(3) {
        let outcome = one(target.as_mut(), number(1), case);
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{MARK}{case} {}", serde_json::to_string(&outcome).unwrap()).unwrap();
        out.flush().unwrap();
    }
}

/// Runs a case, and notes whether a panic was printed. A fault has the warnings that were logged during the case.
pub fn one(target: &mut dyn Target, seed: u64, case: u64) -> Outcome {
    log::take();
    let outcome = target.case(seed, case);
    let outcome = match PANIC.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(panic) => Outcome::Fault(format!("a panic was printed: {panic}; then {outcome:?}")),
        None => outcome,
    };
    let warnings = log::take();
    match outcome {
        Outcome::Fault(fault) if !warnings.is_empty() => {
            Outcome::Fault(format!("{fault}; it logged: {}", warnings.join(" | ")))
        }
        other => other,
    }
}

static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// A panic that reaches this hook would be printed for a user.
pub fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            eprintln!("{info}");
            *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string().replace('\n', ": "));
        }));
    });
}

/// Limits the memory of the process, since a damaged length that is believed would take all of it.
pub fn limit_memory() {
    let limit = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

const MARK: &str = "@case ";
const PATIENCE: Duration = Duration::from_secs(60);

/// The limit of the address space, in bytes; ONNX Runtime, thread stacks and maps take a part of it.
const MEMORY: u64 = 8 << 30;
