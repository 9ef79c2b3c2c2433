//! Ranks as processes, which take a step whenever the test says so, as those of a training do.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Whether this process is a rank, and which.
const RANK: &str = "PROSAMPLER_TEST_RANK";

/// What a rank is started with.
#[derive(Serialize, Deserialize, Debug)]
pub struct Start {
    pub rank: usize,
    pub world_size: usize,
    pub state: Option<serde_json::Value>,
}

/// What this process was started with, if it is a rank.
pub fn started() -> Option<Start> {
    std::env::var(RANK).ok().map(|start| serde_json::from_str(&start).unwrap())
}

/// Tells the test something.
pub fn tell(what: &impl Serialize) {
    println!("\ntold {}", serde_json::to_string(what).unwrap());
}

/// Waits until the test says something; `None` if it has hung up.
pub fn told() -> Option<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.strip_suffix('\n').map(str::to_owned)
}

/// A rank, as the test sees it.
pub struct Rank {
    pub process: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Rank {
    /// Starts the test `name` of this binary in a process of its own.
    pub fn start(name: &str, dir: &Path, start: &Start) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(RANK, serde_json::to_string(start).unwrap())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, input, lines: BufReader::new(output) }
    }

    pub fn say(&mut self, what: &str) {
        writeln!(self.input.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Waits until it tells something.
    pub fn hear<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the rank has ended: {:?}", self.process.wait());
            if let Some(told) = line.strip_prefix("told ") {
                return serde_json::from_str(told).unwrap();
            }
        }
    }

    /// Hangs up, and waits for its end.
    pub fn end(mut self) {
        self.input.take();
        assert!(self.process.wait().unwrap().success());
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
