//! The file that names which files of a checkpoint folder count.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::State;
use crate::arrow_file::{checksum, sync_folder, to_text};
use crate::error::{Error, Result};

/// The content of `manifest.json`. Every file that it names is complete, and no other counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    /// The saved snapshots, oldest first.
    pub snapshots: Vec<SnapshotRecord>,
    /// The steps at which a graph came into use within an epoch, oldest first. For each, what was left of the epoch is
    /// saved.
    pub left_at_steps: Vec<u64>,
    /// The states that the trainer has kept, oldest first; before the first of them, the state of step 0.
    pub states: Vec<State>,
    /// The steps of those among them for which pushed vectors were waiting for a graph.
    pub waiting_at_steps: Vec<u64>,
    /// The steps of those for which pushed losses were.
    pub losses_waiting_at_steps: Vec<u64>,
}

/// A snapshot's numbers, after which its files are named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    pub graph_version: u64,
    /// The version of the first graph over these embeddings. Their files are named after it.
    #[serde(rename = "embeddings_of")]
    pub embeddings_since_graph: u64,
    pub begun_at_step: u64,
    pub embedded_at_step: u64,
    /// Whether losses were pushed.
    #[serde(default)]
    pub has_losses: bool,
}

/// The file as it is written. The checksum is that of the bytes of `content`.
#[derive(Serialize, Deserialize)]
struct Sealed {
    format: u32,
    checksum: String,
    content: Box<RawValue>,
}

impl Manifest {
    /// Reads the manifest of a folder, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|cause| Error::Io { action: "read", path: path.clone(), cause })?,
        };
        let damaged = |place: Option<String>| {
            let remedy = "start anew, with an empty folder".to_owned();
            Error::Damaged { path: path.clone(), place, remedy: Some(remedy) }
        };
        let Sealed { format, checksum: expected, content } =
            serde_json::from_slice(&text).map_err(|e| damaged(Some(format!("({e})"))))?;
        if format > FORMAT {
            let reason = format!("`{}` was made by a newer release (format {format}); update", path.display());
            return Err(Error::State { reason });
        }
        if to_text(checksum(content.get().as_bytes())) != expected {
            return Err(damaged(None));
        }
        serde_json::from_str(content.get()).map(Some).map_err(|e| damaged(Some(format!("({e})"))))
    }

    /// Replaces the manifest of a folder; on disk when this returns.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        let write = || {
            let content = serde_json::value::to_raw_value(self)?;
            let checksum = to_text(checksum(content.get().as_bytes()));
            let mut file = tempfile::Builder::new().prefix(UNFINISHED_PREFIX).tempfile_in(dir)?;
            serde_json::to_writer(&mut file, &Sealed { format: FORMAT, checksum, content })?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|cause| Error::Io { action: "write", path: path.clone(), cause })?;
        sync_folder(dir)
    }

    /// Removes the manifest of a folder; on disk when this returns.
    pub fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|cause| Error::Io { action: "remove", path, cause }),
        }?;
        sync_folder(dir)
    }

    /// The names of all files that count.
    pub fn files(&self) -> Vec<String> {
        let snapshots =
            self.snapshots.iter().flat_map(|record| [graph_file(record), embeddings_file(record), pushed_file(record)]);
        let losses = self.snapshots.iter().filter(|record| record.has_losses).map(losses_file);
        let left = self.left_at_steps.iter().map(|&step| left_file(step));
        let waiting = self.waiting_at_steps.iter().map(|&step| waiting_file(step));
        let waiting = waiting.chain(self.losses_waiting_at_steps.iter().map(|&step| waiting_losses_file(step)));
        snapshots.chain(losses).chain(left).chain(waiting).collect()
    }
}

/// The file of a snapshot's graph.
pub(super) fn graph_file(snapshot: &SnapshotRecord) -> String {
    format!("graph-{}.arrow", snapshot.graph_version)
}

/// The file of a snapshot's embeddings; snapshots with the same embeddings share it.
pub(super) fn embeddings_file(snapshot: &SnapshotRecord) -> String {
    format!("embeddings-{}.arrow", snapshot.embeddings_since_graph)
}

/// The file of the steps at which vectors of these embeddings were pushed.
pub(super) fn pushed_file(snapshot: &SnapshotRecord) -> String {
    format!("pushed-{}.arrow", snapshot.embeddings_since_graph)
}

/// The file of the losses that were pushed up to a snapshot's graph.
pub(super) fn losses_file(snapshot: &SnapshotRecord) -> String {
    format!("losses-{}.arrow", snapshot.graph_version)
}

/// The file of what was left of an epoch at a step.
pub(super) fn left_file(step: u64) -> String {
    format!("left-{step}.arrow")
}

/// The file of the losses that were pushed and waiting for a graph at a step.
pub(super) fn waiting_losses_file(step: u64) -> String {
    format!("waiting-losses-{step}.arrow")
}

/// The file of the vectors that were pushed and waiting for a graph at a step.
pub(super) fn waiting_file(step: u64) -> String {
    format!("waiting-{step}.arrow")
}

/// Whether runs write files with such a name into the folder.
pub(super) fn is_ours(name: &str) -> bool {
    let number = |kind: &&str| name.strip_prefix(*kind).and_then(|rest| rest.strip_suffix(".arrow"));
    let number =
        ["graph-", "embeddings-", "pushed-", "losses-", "left-", "waiting-losses-", "waiting-"].iter().find_map(number);
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '-');
    name.starts_with(UNFINISHED_PREFIX) || number.is_some_and(is_number)
}

/// The newest format; raised if older releases could not read a manifest.
const FORMAT: u32 = 1;

const FILE_NAME: &str = "manifest.json";

/// The prefix of a file that is still being written.
const UNFINISHED_PREFIX: &str = ".building-";
