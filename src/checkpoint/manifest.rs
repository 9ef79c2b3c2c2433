//! What of a checkpoint folder counts.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::State;
use crate::arrow_file::{checksum, sync_folder, to_text};
use crate::error::{Error, Result};

/// The content of `manifest.json`. A file that it does not name does not count, and one that it names is complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    /// Oldest first, by their graphs' versions.
    pub snapshots: Vec<SnapshotRecord>,
    /// The steps at which a graph came into use within an epoch, oldest first: what was left of it then is saved.
    pub left_at_steps: Vec<u64>,
    /// What the trainer has saved, oldest first; the state of step 0 before that.
    pub states: Vec<State>,
    /// The steps of those among them with pushed vectors that were waiting for a graph.
    pub waiting_at_steps: Vec<u64>,
}

/// A snapshot's numbers, of which its files have their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    pub graph_version: u64,
    pub embeddings_of: u64,
    pub begun_at_step: u64,
    pub embedded_at_step: u64,
}

/// What the file looks like: the checksum is that of `content`, to the byte.
#[derive(Serialize, Deserialize)]
struct Sealed {
    format: u32,
    checksum: String,
    content: Box<RawValue>,
}

impl Manifest {
    /// The one of a folder, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
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

    /// Replaces that of a folder: on disk when this returns.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let write = || {
            let content = serde_json::value::to_raw_value(self)?;
            let checksum = to_text(checksum(content.get().as_bytes()));
            let mut file = tempfile::Builder::new().prefix(BUILDING).tempfile_in(dir)?;
            serde_json::to_writer(&mut file, &Sealed { format: FORMAT, checksum, content })?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|cause| Error::Io { action: "write", path: path.clone(), cause })?;
        sync_folder(dir)
    }

    /// Removes that of a folder.
    pub fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|cause| Error::Io { action: "remove", path, cause }),
        }?;
        sync_folder(dir)
    }

    /// The names of all files that it stands for.
    pub fn files(&self) -> Vec<String> {
        let snapshots = self.snapshots.iter().flat_map(|s| [graph(s), embeddings(s), pushed(s)]);
        let left = self.left_at_steps.iter().map(|&step| left(step));
        snapshots.chain(left).chain(self.waiting_at_steps.iter().map(|&step| waiting(step))).collect()
    }
}

pub(super) fn graph(snapshot: &SnapshotRecord) -> String {
    format!("graph-{}.arrow", snapshot.graph_version)
}

pub(super) fn embeddings(snapshot: &SnapshotRecord) -> String {
    format!("embeddings-{}.arrow", snapshot.embeddings_of)
}

/// When the vectors of these embeddings were pushed.
pub(super) fn pushed(snapshot: &SnapshotRecord) -> String {
    format!("pushed-{}.arrow", snapshot.embeddings_of)
}

pub(super) fn left(step: u64) -> String {
    format!("left-{step}.arrow")
}

/// What was pushed and waiting for a graph at a step.
pub(super) fn waiting(step: u64) -> String {
    format!("waiting-{step}.arrow")
}

/// Whether a file of the folder is one that runs leave there.
pub(super) fn is_ours(name: &str) -> bool {
    let numbers = |kind: &&str| name.strip_prefix(*kind).and_then(|rest| rest.strip_suffix(".arrow"));
    let numbers = ["graph-", "embeddings-", "pushed-", "left-", "waiting-"].iter().find_map(numbers);
    name.starts_with(BUILDING) || numbers.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '-'))
}

/// The newest format.
const FORMAT: u32 = 1;

const NAME: &str = "manifest.json";

/// How the names of files begin that are being written.
const BUILDING: &str = ".building-";
