//! Opens what an earlier run has left in a checkpoint folder.

use std::path::Path;
use std::sync::Arc;

use super::manifest::{self, Manifest, SnapshotRecord};
use super::saved_pushes::{SavedPushes, Waiting};
use super::{CheckpointFolder, SavedSnapshot, State, numbers};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::graph::ProximityGraph;
use crate::telemetry;
use crate::walk::Left;

impl CheckpointFolder {
    /// Opens the snapshot with graph `version`; without one, the newest that is not damaged.
    pub fn open(&self, version: Option<u64>) -> Result<SavedSnapshot> {
        let manifest = Manifest::read(self.dir())?.unwrap_or_default();
        let is_wanted = |record: &&SnapshotRecord| version.is_none_or(|version| record.graph_version == version);
        let mut damage = None;
        for record in manifest.snapshots.iter().rev().filter(is_wanted) {
            match self.open_files(record) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) if version.is_none() => {
                    telemetry::snapshot_damaged(record.graph_version, &error);
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let name = version.map_or_else(|| "graph".to_owned(), |version| format!("graph {version}"));
        let remedy = "set checkpoint.resume = \"latest\" to go on with the newest, or start anew";
        Err(damage.unwrap_or_else(|| self.refused(&format!("has no {name} any more; {remedy}"))))
    }

    fn open_files(&self, record: &SnapshotRecord) -> Result<SavedSnapshot> {
        let graph = self.dir().join(manifest::graph_file(record));
        let embeddings = self.dir().join(manifest::embeddings_file(record));
        let pushed = self.dir().join(manifest::pushed_file(record));
        // Mapped, ranks on one host have one copy of them all.
        let open = if self.is_shared() { EmbeddingTable::map } else { EmbeddingTable::open };
        let snapshot = SavedSnapshot {
            graph: ProximityGraph::open(&graph).map_err(|error| unusable(&graph, error))?,
            embeddings: open(&embeddings).map_err(|error| unusable(&embeddings, error))?.into(),
            embeddings_since_graph: record.embeddings_since_graph,
            begun_at_step: record.begun_at_step,
            embedded_at_step: record.embedded_at_step,
            pushed_at_step: numbers::open(&pushed, 0).map_err(|error| unusable(&pushed, error))?.0.into(),
            losses: if record.has_losses { self.open_losses(record)? } else { [].into() },
        };

        if snapshot.graph.version().0 != record.graph_version {
            return Err(damaged(&graph, format!("(it is graph {})", snapshot.graph.version())));
        }
        let samples = snapshot.graph.len();
        let embedded = snapshot.embeddings.len();
        let times = snapshot.pushed_at_step.len();
        if ![0, samples].contains(&snapshot.losses.len()) {
            let place = format!("(it has {} losses, and the graph {samples} samples)", snapshot.losses.len());
            return Err(damaged(&self.dir().join(manifest::losses_file(record)), place));
        }
        if embedded != samples || ![0, samples].contains(&times) {
            let place = format!("(it has {embedded} samples with {times} times, and the graph {samples})");
            return Err(damaged(&embeddings, place));
        }
        Ok(snapshot)
    }

    fn open_losses(&self, record: &SnapshotRecord) -> Result<Arc<[f32]>> {
        let path = self.dir().join(manifest::losses_file(record));
        let (bits, _) = numbers::open(&path, 0).map_err(|error| unusable(&path, error))?;
        Ok(bits.into_iter().map(|bits| f32::from_bits(bits as u32)).collect())
    }

    /// Opens what was pushed when the state was kept and is not in its graph.
    ///
    /// There is nothing if the state was not kept, which is logged if vectors may be lost.
    ///
    /// Without a snapshot, `samples` is the size of the data set.
    pub fn open_waiting(&self, state: &State, snapshot: Option<&SavedSnapshot>, samples: usize) -> Result<Waiting> {
        let manifest = Manifest::read(self.dir())?.unwrap_or_default();
        let mut losses = SavedPushes::default();
        if manifest.losses_waiting_at_steps.contains(&state.step) {
            let path = self.dir().join(manifest::waiting_losses_file(state.step));
            let samples = snapshot.map_or(samples, |snapshot| snapshot.embeddings.len());
            losses = SavedPushes::open(&path, samples, Some(1)).map_err(|error| unusable(&path, error))?;
        }
        Ok(Waiting { vectors: self.open_waiting_vectors(&manifest, state, snapshot, samples)?, losses })
    }

    fn open_waiting_vectors(
        &self,
        manifest: &Manifest,
        state: &State,
        snapshot: Option<&SavedSnapshot>,
        samples: usize,
    ) -> Result<SavedPushes> {
        if !manifest.waiting_at_steps.contains(&state.step) {
            let is_in_snapshot = snapshot.is_some_and(|snapshot| !snapshot.pushed_at_step.is_empty());
            let has_pushes = is_in_snapshot || !manifest.waiting_at_steps.is_empty();
            let is_kept = manifest.states.iter().any(|kept| kept.step == state.step);
            if has_pushes && !is_kept {
                telemetry::state_not_kept(state.step);
            }
            return Ok(SavedPushes::default());
        }
        let path = self.dir().join(manifest::waiting_file(state.step));
        let samples = snapshot.map_or(samples, |snapshot| snapshot.embeddings.len());
        let dimension = snapshot.map(|snapshot| snapshot.embeddings.dimension());
        SavedPushes::open(&path, samples, dimension).map_err(|error| unusable(&path, error))
    }

    /// Opens what was left of an epoch at `step`; `samples` is the size of the data set.
    pub fn open_left(&self, step: u64, samples: usize) -> Result<Left> {
        let path = self.dir().join(manifest::left_file(step));
        if !path.exists() {
            let remedy = "set checkpoint.resume = \"latest\" to begin that epoch again, or start anew";
            return Err(self.refused(&format!("does not know any more what was left at step {step}; {remedy}")));
        }
        let (bits, more) = numbers::open(&path, 2).map_err(|error| unusable(&path, error))?;
        let (total, drawn) = (more[0], more[1]);
        // Older releases did not tell the samples of an epoch from all.
        let of_epoch = more.get(2).copied().unwrap_or(total);
        let has_others = (samples..bits.len() * 64).any(|id| bits[id / 64] & (1 << (id % 64)) != 0);
        if has_others || of_epoch > total || total > samples as u64 {
            return Err(damaged(&path, format!("(it has more samples than the {samples} that there are)")));
        }
        let unplaced = more.get(3).map(|&unplaced| unplaced as usize);
        Ok(Left { id_end: total as usize, samples: of_epoch as usize, drawn, bits, unplaced })
    }
}

/// The error for a file of a checkpoint that is not as it was written.
fn unusable(path: &Path, error: Error) -> Error {
    let place = match error {
        Error::Damaged { place, .. } => place,
        Error::Corrupt { cause, .. } => Some(format!("({cause})")),
        other => return other,
    };
    damaged(path, place)
}

fn damaged(path: &Path, place: impl Into<Option<String>>) -> Error {
    let remedy = "set checkpoint.resume = \"latest\" to go on with another snapshot, or resume from an older state";
    Error::Damaged { path: path.to_owned(), place: place.into(), remedy: Some(remedy.into()) }
}
