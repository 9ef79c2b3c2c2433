//! Processes that build a graph when told to; `benches/peers/graph.py` has the protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::THREADS;
use super::data::Data;
use super::measure::Run;

pub struct Peers {
    python: Process,
    rust: Process,
    out: PathBuf,
}

impl Peers {
    pub fn start(folder: &Path) -> Self {
        Self {
            python: Process::start(Command::new(folder.join("venv/bin/python")).arg("benches/peers/graph.py")),
            rust: Process::start(&mut Command::new(folder.join("rust/release/graph-peers"))),
            out: folder.join("graph/neighbors.i32"),
        }
    }

    /// `peer`: its name and arguments.
    pub fn run(&mut self, peer: &str, data: &Data, k: usize) -> Run {
        let (name, arguments) = peer.split_once(' ').unwrap_or((peer, ""));
        let process = if RUST.contains(&name) { &mut self.rust } else { &mut self.python };
        let (dimension, rows) = (data.table.dimension(), data.table.len());
        let (path, out) = (data.path.display(), self.out.display());
        writeln!(process.stdin, "{name} {path} {dimension} {rows} {k} {out} {arguments}").expect("job");
        // hnsw_rs prints lines of its own.
        let (seconds, done) = loop {
            if let Some(answer) = answer(&process.line()) {
                break answer;
            }
        };
        let bytes = std::fs::read(&self.out).expect("neighbors");
        let ids: Vec<i32> = bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect();
        assert_eq!(ids.len(), done * k);
        Run { spent: seconds, seconds: seconds * rows as f64 / done as f64, ids, graph: None }
    }
}

/// Seconds and rows, where a line says these.
fn answer(line: &str) -> Option<(f64, usize)> {
    let (seconds, done) = line.split_once(' ')?;
    Some((seconds.parse().ok()?, done.parse().ok()?))
}

const RUST: [&str; 2] = ["hnsw_rs", "instant-distance"];

struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it and prints its versions.
    fn start(command: &mut Command) -> Self {
        for threads in ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(threads, THREADS.to_string());
        }
        // Meant for another processor, these slow OpenBLAS down.
        command.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("peers");
        let stdin = child.stdin.take().expect("stdin");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut process = Self { stdin, stdout, child };
        println!("{}", process.line().strip_prefix("ready ").expect("ready"));
        process
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("line");
        assert!(!line.is_empty(), "the peers died");
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
