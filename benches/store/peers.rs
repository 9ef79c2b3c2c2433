//! A Python process that gathers when told to; `benches/peers/store.py` has the protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::BATCH_SIZE;

pub struct Peers {
    child: Child,
    /// Closed, it ends the process.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Peers {
    /// Starts it, which makes what `folder` lacks of the data, and prints its versions.
    pub fn start(scratch: &Path, folder: &Path, rows: usize) -> Self {
        let mut child = Command::new(scratch.join("store-venv/bin/python"))
            .arg("benches/peers/store.py")
            .arg(folder)
            .arg(rows.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut peers = Self { stdin: child.stdin.take(), stdout, child };
        println!("{}", peers.line().strip_prefix("ready ").expect("ready"));
        peers
    }

    /// Seconds for so many mini-batches.
    pub fn run(&mut self, peer: &str, mini_batches: usize, seed: u64) -> f64 {
        let stdin = self.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{peer} {mini_batches} {BATCH_SIZE} {seed}").expect("job");
        self.line().parse().expect("seconds")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("line");
        assert!(!line.is_empty(), "the peers died");
        line.trim().to_owned()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may be gone already.
        let _ = self.child.wait();
    }
}
