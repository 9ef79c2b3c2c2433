//! Python processes that take mini-batches when told to; `benches/peers/ranks.py` has the protocol.

use std::path::Path;
use std::process::Command;

use super::process::Process;

/// Starts a peer over the rows of a file. One that is not installed says why.
pub fn start(scratch: &Path, peer: &str, file: &Path, uri: &str) -> Result<Process, String> {
    let mut command = Command::new(scratch.join("store-venv/bin/python"));
    command.arg("benches/peers/ranks.py").arg(peer).arg(file).arg(uri);
    let mut process = Process::start(&mut command).map_err(|cause| format!("no Python: {cause}"))?;
    match process.line().split_once(' ') {
        Some(("ready", version)) => println!("  {peer} {version}"),
        Some(("missing", reason)) => return Err(reason.to_owned()),
        answer => panic!("{peer} says {answer:?}"),
    }
    Ok(process)
}

/// Seconds for so many mini-batches.
pub fn take(process: &mut Process, mini_batches: usize) -> f64 {
    process.tell(&mini_batches.to_string());
    let [seconds] = process.numbers();
    seconds
}
