//! The checkpoint folder as a run writes it; `open.rs` reads it.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::lock::lock;
use super::manifest::{self, Manifest, SnapshotRecord};
use super::saved_pushes::Waiting;
use super::{Decisions, SavedSnapshot, State, decisions, numbers};
use crate::config::{CheckpointConfig, StreamConfig};
use crate::error::{Error, Result};
use crate::telemetry;
use crate::walk::Left;

/// The checkpoint folder of a run. Rank 0 writes to it, the other ranks only read. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointFolder(Arc<Inner>);

/// A handle of the checkpoint folder that does not keep it locked after the run has ended.
#[derive(Clone, Debug)]
pub(crate) struct WeakCheckpointFolder(Weak<Inner>);

impl WeakCheckpointFolder {
    /// The folder; `None` if the run has ended.
    pub fn upgrade(&self) -> Option<CheckpointFolder> {
        self.0.upgrade().map(CheckpointFolder)
    }
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// The number of newest snapshots to keep.
    keep: usize,
    /// The number of mini-batches that the trainer has taken.
    delivered: watch::Receiver<u64>,
    /// Held by rank 0 as long as the run lasts; `None` on other ranks.
    lock: Option<fs::File>,
    /// Whether other ranks read the folder, too.
    is_shared: bool,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    manifest: Manifest,
    /// The graphs that a state which is yet to be made may refer to, oldest first.
    in_use: VecDeque<GraphUse>,
}

/// A graph, and the step from which it is used.
#[derive(Clone, Copy, Debug)]
struct GraphUse {
    from_step: u64,
    graph_version: u64,
}

impl CheckpointFolder {
    /// Takes the folder of the settings, if they name one; rank 0 locks it.
    ///
    /// At most `pending` snapshots may be saved that are not used yet. `delivered` is the number of mini-batches that
    /// the trainer has taken.
    pub async fn take(
        config: &CheckpointConfig,
        pending: usize,
        StreamConfig { rank, world_size, .. }: &StreamConfig,
        delivered: watch::Receiver<u64>,
    ) -> Result<Option<Self>> {
        let Some(dir) = config.dir.clone() else { return Ok(None) };
        let lock = if *rank == 0 { Some(lock(&dir).await?) } else { None };
        let keep = config.keep.saturating_add(pending);
        let is_shared = *world_size > 1;
        Ok(Some(Self(Arc::new(Inner { dir, keep, delivered, lock, is_shared, content: Mutex::default() }))))
    }

    pub fn downgrade(&self) -> WeakCheckpointFolder {
        WeakCheckpointFolder(Arc::downgrade(&self.0))
    }

    pub(super) fn dir(&self) -> &PathBuf {
        &self.0.dir
    }

    pub(super) fn is_shared(&self) -> bool {
        self.0.is_shared
    }

    fn is_writer(&self) -> bool {
        self.0.lock.is_some()
    }

    /// Begins a run, and removes what an earlier one has left.
    ///
    /// Refuses a folder that another run could be resumed from. One in which a trainer has kept only the state of step
    /// 0 is taken over.
    pub fn begin(&self, state: State) -> Result<()> {
        if !self.is_writer() {
            return Ok(());
        }
        let before = Manifest::read(self.dir())?.unwrap_or_default();
        // A trainer that was killed before it had written its first state knows of none, though one is kept here.
        let was_begun_anew = before.states.iter().any(|state| state.step == 0);
        let resumable = before.states.iter().rfind(|state| state.step > 0);
        if let Some(State { step, .. }) = resumable.filter(|_| !was_begun_anew) {
            return Err(self.refused(&format!(
                "holds a run that was saved at step {step}; resume that, clear the folder, or name another"
            )));
        }

        Manifest::remove(self.dir())?;
        let removed = self.remove_unnamed(&Manifest::default())?;
        if removed > 0 {
            let kept_at_step = before.states.last().map_or(0, |state| state.step);
            telemetry::checkpoints_taken_over(self.dir(), removed, kept_at_step);
        }
        self.forget_decisions(0)?;
        let mut content = self.content();
        content.in_use = [GraphUse { from_step: 0, graph_version: state.graph_version }].into();
        content.manifest.states = vec![state.sealed()];
        Ok(())
    }

    /// Goes on from a state of the folder's run, and removes what came after it in that run.
    pub fn resume_from(&self, state: &State) -> Result<()> {
        if !self.is_writer() {
            return Ok(());
        }
        let mut manifest = Manifest::read(self.dir())?.unwrap_or_default();
        manifest.snapshots.retain(|snapshot| snapshot.graph_version <= state.graph_version);
        manifest.left_at_steps.retain(|&step| step <= state.graph_used_from_step);
        manifest.states.retain(|kept| kept.step <= state.step);
        manifest.waiting_at_steps.retain(|&step| step <= state.step);
        manifest.write(self.dir())?;
        self.remove_unnamed(&manifest)?;
        self.forget_decisions(state.step)?;

        let State { graph_used_from_step: from_step, graph_version, .. } = *state;
        let mut content = self.content();
        content.in_use = [GraphUse { from_step, graph_version }].into();
        content.manifest = manifest;
        Ok(())
    }

    /// The decisions of rank 0 about refreshes.
    pub fn decisions(&self) -> Decisions {
        Decisions::in_folder(self.dir(), self.is_writer())
    }

    fn forget_decisions(&self, from_step: u64) -> Result<()> {
        let forgotten = decisions::keep_before(self.dir(), from_step);
        forgotten.map_err(|cause| Error::Io { action: "change a file in", path: self.dir().clone(), cause })
    }

    /// Saves a snapshot, and removes those that are no longer needed.
    pub fn save(&self, snapshot: &SavedSnapshot) -> Result<()> {
        if !self.is_writer() {
            return Ok(());
        }
        let record = SnapshotRecord {
            graph_version: snapshot.graph.version().0,
            embeddings_since_graph: snapshot.embeddings_since_graph,
            begun_at_step: snapshot.begun_at_step,
            embedded_at_step: snapshot.embedded_at_step,
            has_losses: !snapshot.losses.is_empty(),
        };
        // A refresh that was cancelled may have saved this version before. Its files go first: a record must never name
        // files of which some are newer than others.
        let version = record.graph_version;
        if self.content().manifest.snapshots.iter().any(|other| other.graph_version == version) {
            self.change(|content| content.manifest.snapshots.retain(|other| other.graph_version != version))?;
        }
        let same_embeddings = |other: &SnapshotRecord| other.embeddings_since_graph == record.embeddings_since_graph;
        let is_known = self.content().manifest.snapshots.iter().any(same_embeddings);
        if !is_known {
            numbers::save(&self.dir().join(manifest::pushed_file(&record)), &snapshot.pushed_at_step, &[])?;
            snapshot.embeddings.save(self.dir().join(manifest::embeddings_file(&record)))?;
        }
        if record.has_losses {
            let bits: Vec<_> = snapshot.losses.iter().map(|loss| u64::from(loss.to_bits())).collect();
            numbers::save(&self.dir().join(manifest::losses_file(&record)), &bits, &[])?;
        }
        snapshot.graph.save(self.dir().join(manifest::graph_file(&record)))?;
        self.change(|content| content.manifest.snapshots.push(record))
    }

    /// Saves what is left of an epoch at `step`, from which on it draws from another graph.
    pub fn save_left(&self, step: u64, graph_version: u64, left: &Left) -> Result<()> {
        if !self.is_writer() {
            return Ok(());
        }
        self.content().in_use.push_back(GraphUse { from_step: step, graph_version });
        let path = self.dir().join(manifest::left_file(step));
        let more = [left.id_end as u64, left.drawn, left.samples as u64];
        let more: Vec<_> = more.into_iter().chain(left.unplaced.map(|unplaced| unplaced as u64)).collect();
        numbers::save(&path, &left.bits, &more)?;
        self.change(|content| content.manifest.left_at_steps.push(step))
    }

    /// Keeps what a state refers to until two newer ones are kept, and the pushes that wait for a graph.
    ///
    /// On disk when this returns. With several ranks, rank 0 does so.
    pub fn keep(&self, state: &State, Waiting { vectors, losses }: &Waiting) -> Result<()> {
        if !self.is_writer() {
            return Ok(());
        }
        self.check_available(state)?;
        if !vectors.is_empty() {
            vectors.save(&self.dir().join(manifest::waiting_file(state.step)))?;
        }
        if !losses.is_empty() {
            losses.save(&self.dir().join(manifest::waiting_losses_file(state.step)))?;
        }
        self.change(|content| {
            let Manifest { states, waiting_at_steps, losses_waiting_at_steps, .. } = &mut content.manifest;
            states.retain(|kept| kept.step != state.step);
            states.push(state.sealed());
            states.drain(..states.len().saturating_sub(KEPT_STATES));
            for (pushes, at_steps) in [(vectors, waiting_at_steps), (losses, losses_waiting_at_steps)] {
                at_steps.retain(|&step| step != state.step);
                at_steps.extend((!pushes.is_empty()).then_some(state.step));
            }
        })
    }

    /// Refuses a state of another run, and one that refers to a file that is gone.
    fn check_available(&self, state: &State) -> Result<()> {
        let content = self.content();
        let first = content.manifest.states.first();
        if first.is_some_and(|first| (first.seed, &first.rows) != (state.seed, &state.rows)) {
            return Err(Error::State { reason: "the state that is to be kept is of another run".into() });
        }
        let version = state.graph_version;
        if version > 0 && !content.manifest.snapshots.iter().any(|snapshot| snapshot.graph_version == version) {
            return Err(self.refused(&format!("has no graph {version} any more; keep a state when it is made")));
        }
        let step = state.graph_used_from_step;
        if state.needs_left() && !content.manifest.left_at_steps.contains(&step) {
            return Err(self.refused(&format!(
                "could not note what was left of the epoch at step {step}, so that the state cannot be resumed \
                 exactly"
            )));
        }
        Ok(())
    }

    /// The oldest graph that a state which is made from now on may refer to; `u64::MAX` on ranks that keep none.
    pub fn oldest_graph_in_use(&self) -> u64 {
        if !self.is_writer() {
            return u64::MAX;
        }
        let delivered = *self.0.delivered.borrow();
        let mut content = self.content();
        content.forget_unused(delivered);
        content.in_use.front().map_or(0, |oldest| oldest.graph_version)
    }

    /// Changes the manifest, on disk too, and removes the files that it no longer names.
    fn change(&self, change: impl FnOnce(&mut Content)) -> Result<()> {
        let mut content = self.content();
        let before = content.manifest.clone();
        change(&mut content);
        let delivered = *self.0.delivered.borrow();
        content.prune(self.0.keep, delivered);
        if let Err(error) = content.manifest.write(self.dir()) {
            content.manifest = before;
            return Err(error);
        }
        let named = content.manifest.files();
        before.files().iter().filter(|name| !named.contains(name)).try_for_each(|name| self.remove(name))
    }

    /// Removes the files of runs that a manifest does not name; gives their number.
    fn remove_unnamed(&self, manifest: &Manifest) -> Result<usize> {
        let named = manifest.files();
        let io = |cause| Error::Io { action: "list", path: self.dir().clone(), cause };
        let mut removed = 0;
        for entry in fs::read_dir(self.dir()).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            if manifest::is_ours(&name) && !named.contains(&name) {
                self.remove(&name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir().join(name);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|cause| Error::Io { action: "remove", path, cause }),
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refused(&self, reason: &str) -> Error {
        Error::State { reason: format!("checkpoint.dir `{}` {reason}", self.dir().display()) }
    }
}

impl Content {
    /// Forgets graphs that no state which is yet to be made can refer to.
    fn forget_unused(&mut self, delivered: u64) {
        // The last mini-batch that was delivered is that of step `delivered` − 1.
        while self.in_use.get(1).is_some_and(|next| next.from_step < delivered) {
            self.in_use.pop_front();
        }
    }

    /// Leaves what a kept state refers to, what a state that is made now may refer to, and the newest `keep`.
    fn prune(&mut self, keep: usize, delivered: u64) {
        self.forget_unused(delivered);
        let Manifest { snapshots, left_at_steps, states, waiting_at_steps, losses_waiting_at_steps } =
            &mut self.manifest;
        for at_steps in [waiting_at_steps, losses_waiting_at_steps] {
            at_steps.retain(|step| states.iter().any(|state| state.step == *step));
        }

        let newest = &snapshots[snapshots.len().saturating_sub(keep)..];
        let newest: Vec<_> = newest.iter().map(|snapshot| snapshot.graph_version).collect();
        snapshots.retain(|snapshot| {
            let version = snapshot.graph_version;
            let is_in_use = self.in_use.iter().any(|used| used.graph_version == version);
            is_in_use || newest.contains(&version) || states.iter().any(|state| state.graph_version == version)
        });

        let newest = left_at_steps[left_at_steps.len().saturating_sub(keep)..].to_vec();
        left_at_steps.retain(|step| {
            let is_in_use = self.in_use.iter().any(|used| used.from_step == *step);
            is_in_use || newest.contains(step) || states.iter().any(|state| state.graph_used_from_step == *step)
        });
    }
}

/// States that are kept: the last one, and the one before, since a trainer may be killed between `keep` and its own
/// checkpoint. Some trainers call our callback only after they have written theirs.
const KEPT_STATES: usize = 2;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{GraphConfig, Similarity};
    use crate::embeddings::EmbeddingTable;
    use crate::graph;
    use crate::sample::{GraphVersion, ModelVersion};

    /// Graph 2, with embeddings of its own or with those of graph 1.
    fn snapshot(model: u64, embeddings_since_graph: u64) -> SavedSnapshot {
        let vectors = (0..40).map(|i| ((i + 1) as f32 * (model + 1) as f32).sin()).collect();
        let table = EmbeddingTable::new(vectors, 4, Similarity::Dot, ModelVersion(model)).unwrap();
        let config = GraphConfig { candidates: 5.into(), neighbors: Some(2), ..GraphConfig::default() };
        let graph = graph::build(&table, &config, 1, GraphVersion(2)).unwrap();
        let embeddings = Arc::new(table);
        SavedSnapshot {
            graph,
            embeddings,
            embeddings_since_graph,
            begun_at_step: 6,
            embedded_at_step: 6,
            pushed_at_step: [].into(),
            losses: [].into(),
        }
    }

    /// A refresh that was cancelled late has saved a version that the next refresh makes, too.
    #[tokio::test]
    async fn a_version_that_is_saved_again_is_the_new_one() {
        let dir = tempfile::TempDir::new().unwrap();
        let config = CheckpointConfig { dir: Some(dir.path().into()), ..CheckpointConfig::default() };
        let (_delivered, heard) = watch::channel(0);
        let folder = CheckpointFolder::take(&config, 0, &StreamConfig::default(), heard).await.unwrap().unwrap();
        folder.begin(State::first(1, "rows".into(), Default::default(), 1)).unwrap();
        for (model, embeddings_since_graph) in [(3, 2), (4, 2), (5, 1), (6, 2)] {
            let saved = snapshot(model, embeddings_since_graph);
            folder.save(&saved).unwrap();
            let opened = folder.open(Some(2)).unwrap();
            assert_eq!(opened.embeddings, saved.embeddings, "model {model}");
            assert!(
                opened.graph == saved.graph && opened.embeddings_since_graph == embeddings_since_graph,
                "model {model}"
            );
        }
    }
}
