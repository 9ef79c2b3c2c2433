use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::manifest::{self, Manifest, SnapshotRecord};
use super::pushes::SavedPushes;
use super::{SavedSnapshot, State, numbers};
use crate::config::CheckpointConfig;
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::graph::ProximityGraph;
use crate::telemetry;
use crate::walk::Left;

/// The folder. Rank 0 writes to it, the others only read. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints(Arc<Folder>);

/// The folder, as long as the run lasts.
#[derive(Clone, Debug)]
pub(crate) struct WeakCheckpoints(Weak<Folder>);

impl WeakCheckpoints {
    pub fn upgrade(&self) -> Option<Checkpoints> {
        self.0.upgrade().map(Checkpoints)
    }
}

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    keep: usize,
    /// Mini-batches.
    delivered: watch::Receiver<u64>,
    /// Rank 0's, as long as the run lasts: two runs would remove each other's files.
    lock: Option<fs::File>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    manifest: Manifest,
    /// From which step on which graph is used, as far as it may matter for a state that is yet to be made; oldest first.
    used: VecDeque<(u64, u64)>,
}

impl Checkpoints {
    /// `pending` snapshots may be there that are not used yet; `delivered` is how far the trainer is.
    pub async fn take(
        config: &CheckpointConfig,
        pending: usize,
        rank: usize,
        delivered: watch::Receiver<u64>,
    ) -> Result<Option<Self>> {
        let Some(dir) = config.dir.clone() else { return Ok(None) };
        let lock = if rank == 0 { Some(lock(&dir).await?) } else { None };
        let (keep, content) = (config.keep.saturating_add(pending), Mutex::default());
        Ok(Some(Self(Arc::new(Folder { dir, keep, delivered, lock, content }))))
    }

    pub fn downgrade(&self) -> WeakCheckpoints {
        WeakCheckpoints(Arc::downgrade(&self.0))
    }

    /// Begins a run. Refuses a folder that another run could be resumed from; one in which no more than the first state of
    /// a trainer is kept is taken over.
    pub fn begin(&self, state: State) -> Result<()> {
        let Folder { dir, .. } = &*self.0;
        if self.0.lock.is_none() {
            return Ok(());
        }
        let before = Manifest::read(dir)?.unwrap_or_default();
        // A trainer that was killed before it had written its first state knows of none, though it is kept here.
        let begun_anew = before.states.iter().any(|state| state.step == 0);
        if let Some(state) = before.states.iter().rfind(|state| state.step > 0).filter(|_| !begun_anew) {
            let step = state.step;
            return Err(self.refused(&format!(
                "holds a run that was saved at step {step}; resume that, clear the folder, or name another"
            )));
        }
        Manifest::remove(dir)?;
        let removed = self.remove_others(&Manifest::default())?;
        if removed > 0 {
            let kept_at_step = before.states.last().map_or(0, |state| state.step);
            telemetry::checkpoints_taken_over(dir, removed, kept_at_step);
        }
        let mut content = self.content();
        content.used = [(0, state.graph_version)].into();
        content.manifest.states = vec![state.sealed()];
        Ok(())
    }

    /// Goes on from a state of the run: what came after it in that run is given up.
    pub fn go_on(&self, state: &State) -> Result<()> {
        if self.0.lock.is_none() {
            return Ok(());
        }
        let mut manifest = Manifest::read(&self.0.dir)?.unwrap_or_default();
        manifest.snapshots.retain(|snapshot| snapshot.graph_version <= state.graph_version);
        manifest.left_at_steps.retain(|&step| step <= state.graph_used_from_step);
        manifest.states.retain(|saved| saved.step <= state.step);
        manifest.waiting_at_steps.retain(|&step| step <= state.step);
        manifest.write(&self.0.dir)?;
        self.remove_others(&manifest)?;
        let mut content = self.content();
        content.used = [(state.graph_used_from_step, state.graph_version)].into();
        content.manifest = manifest;
        Ok(())
    }

    /// Saves a snapshot, and removes those that are no longer kept.
    pub fn save(&self, kept: &SavedSnapshot) -> Result<()> {
        let Folder { dir, lock: Some(_), .. } = &*self.0 else { return Ok(()) };
        let saved = SnapshotRecord {
            graph_version: kept.graph.version().0,
            embeddings_of: kept.embeddings_of,
            begun_at_step: kept.begun_at_step,
            embedded_at_step: kept.embedded_at_step,
        };
        let known = self.content().manifest.snapshots.iter().any(|other| other.embeddings_of == saved.embeddings_of);
        if !known {
            numbers::save(&dir.join(manifest::pushed(&saved)), &kept.pushed_at_step, [0; 2])?;
            kept.embeddings.save(dir.join(manifest::embeddings(&saved)))?;
        }
        kept.graph.save(dir.join(manifest::graph(&saved)))?;
        self.change(|content| content.manifest.snapshots.push(saved))
    }

    /// Saves what is left of an epoch at `step`, from which on it draws from another graph.
    pub fn save_left(&self, step: u64, graph_version: u64, left: &Left) -> Result<()> {
        let Folder { dir, lock: Some(_), .. } = &*self.0 else { return Ok(()) };
        self.content().used.push_back((step, graph_version));
        numbers::save(&dir.join(manifest::left(step)), &left.bits, [left.samples as u64, left.drawn])?;
        self.change(|content| content.manifest.left_at_steps.push(step))
    }

    /// Keeps what a state stands on until two newer ones are kept, and what was pushed beside. On disk when this returns.
    /// Of several ranks, rank 0 does so.
    pub fn keep(&self, state: &State, waiting: &SavedPushes) -> Result<()> {
        if self.0.lock.is_none() {
            return Ok(());
        }
        {
            let content = self.content();
            let of_run = content.manifest.states.first();
            if of_run.is_some_and(|first| (first.seed, &first.rows) != (state.seed, &state.rows)) {
                return Err(Error::State { reason: "the state that is to be kept is of another run".into() });
            }
            let (version, step) = (state.graph_version, state.graph_used_from_step);
            if !content.manifest.snapshots.iter().any(|snapshot| snapshot.graph_version == version) {
                return Err(self.refused(&format!("has no graph {version} any more; keep a state when it is made")));
            }
            if state.needs_left() && !content.manifest.left_at_steps.contains(&step) {
                return Err(self.refused(&format!(
                    "could not note what was left of the epoch at step {step}, so that the state cannot be resumed \
                     exactly"
                )));
            }
        }
        if !waiting.is_empty() {
            waiting.save(&self.0.dir.join(manifest::waiting(state.step)))?;
        }
        self.change(|content| {
            let Manifest { states, waiting_at_steps, .. } = &mut content.manifest;
            states.retain(|saved| saved.step != state.step);
            states.push(state.sealed());
            states.drain(..states.len().saturating_sub(STATES));
            waiting_at_steps.retain(|&step| step != state.step);
            if !waiting.is_empty() {
                waiting_at_steps.push(state.step);
            }
        })
    }

    /// What was pushed when the state was kept, if it was, for a run with such a snapshot.
    pub fn open_waiting(&self, state: &State, kept: &SavedSnapshot) -> Result<SavedPushes> {
        let manifest = Manifest::read(&self.0.dir)?.unwrap_or_default();
        if !manifest.waiting_at_steps.contains(&state.step) {
            let pushes = !kept.pushed_at_step.is_empty() || !manifest.waiting_at_steps.is_empty();
            if pushes && manifest.states.iter().all(|kept| kept.step != state.step) {
                telemetry::state_not_kept(state.step);
            }
            return Ok(SavedPushes::default());
        }
        let path = self.0.dir.join(manifest::waiting(state.step));
        let (samples, dimension) = (kept.embeddings.len(), kept.embeddings.dimension());
        SavedPushes::open(&path, samples, dimension).map_err(|error| unusable(&path, error))
    }

    /// The oldest graph that a state may be of which is made from now on, and kept here.
    pub fn oldest_graph_in_use(&self) -> u64 {
        if self.0.lock.is_none() {
            return u64::MAX;
        }
        let delivered = *self.0.delivered.borrow();
        let mut content = self.content();
        content.forget_used(delivered);
        content.used.front().map_or(0, |(_, graph_version)| *graph_version)
    }

    /// A snapshot that was saved; without `version` the newest that is sound.
    pub fn open(&self, version: Option<u64>) -> Result<SavedSnapshot> {
        let manifest = Manifest::read(&self.0.dir)?.unwrap_or_default();
        let found: Vec<_> =
            manifest.snapshots.iter().rev().filter(|s| version.is_none_or(|v| s.graph_version == v)).collect();
        let mut damage = None;
        for snapshot in found {
            match self.open_files(snapshot) {
                Ok(kept) => return Ok(kept),
                Err(error) if version.is_none() => {
                    telemetry::snapshot_damaged(snapshot.graph_version, &error);
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let version = version.map_or_else(|| "graph".to_owned(), |version| format!("graph {version}"));
        let remedy = "set checkpoint.resume = \"latest\" to go on with the newest, or start anew";
        Err(damage.unwrap_or_else(|| self.refused(&format!("has no {version} any more; {remedy}"))))
    }

    fn open_files(&self, snapshot: &SnapshotRecord) -> Result<SavedSnapshot> {
        let path = |name: String| self.0.dir.join(name);
        let (graph, embeddings) = (path(manifest::graph(snapshot)), path(manifest::embeddings(snapshot)));
        let pushed = path(manifest::pushed(snapshot));
        let kept = SavedSnapshot {
            graph: ProximityGraph::open(&graph).map_err(|error| unusable(&graph, error))?,
            embeddings: EmbeddingTable::open(&embeddings).map_err(|error| unusable(&embeddings, error))?.into(),
            embeddings_of: snapshot.embeddings_of,
            begun_at_step: snapshot.begun_at_step,
            embedded_at_step: snapshot.embedded_at_step,
            pushed_at_step: numbers::open(&pushed).map_err(|error| unusable(&pushed, error))?.0.into(),
        };
        let (samples, embedded, times) = (kept.graph.len(), kept.embeddings.len(), kept.pushed_at_step.len());
        if kept.graph.version().0 != snapshot.graph_version {
            return Err(damaged(&graph, Some(format!("(it is graph {})", kept.graph.version()))));
        }
        if embedded != samples || ![0, samples].contains(&times) {
            let place = Some(format!("(it has {embedded} samples with {times} times, and the graph {samples})"));
            return Err(damaged(&embeddings, place));
        }
        Ok(kept)
    }

    /// What was left of an epoch at `step`, of a data set with so many samples.
    pub fn open_left(&self, step: u64, samples: usize) -> Result<Left> {
        let path = self.0.dir.join(manifest::left(step));
        if !path.exists() {
            let remedy = "set checkpoint.resume = \"latest\" to begin that epoch again, or start anew";
            return Err(self.refused(&format!("does not know any more what was left at step {step}; {remedy}")));
        }
        let (bits, [of, drawn]) = numbers::open(&path).map_err(|error| unusable(&path, error))?;
        let beyond = (samples..bits.len() * 64).any(|id| bits[id / 64] & (1 << (id % 64)) != 0);
        if beyond || of > samples as u64 {
            return Err(damaged(&path, Some(format!("(it has more samples than the {samples} that there are)"))));
        }
        Ok(Left { samples: of as usize, drawn, bits })
    }

    /// Changes the manifest, on disk too, and removes the files that it names no more.
    fn change(&self, change: impl FnOnce(&mut Content)) -> Result<()> {
        let mut content = self.content();
        let before = content.manifest.clone();
        change(&mut content);
        let delivered = *self.0.delivered.borrow();
        content.prune(self.0.keep, delivered);
        if let Err(error) = content.manifest.write(&self.0.dir) {
            content.manifest = before;
            return Err(error);
        }
        let named = content.manifest.files();
        before.files().iter().filter(|name| !named.contains(name)).try_for_each(|name| self.remove(name))
    }

    /// Removes what runs have left that a manifest does not name; gives their number.
    fn remove_others(&self, manifest: &Manifest) -> Result<usize> {
        let named = manifest.files();
        let io = |cause| Error::Io { action: "list", path: self.0.dir.clone(), cause };
        let mut removed = 0;
        for entry in fs::read_dir(&self.0.dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            if manifest::is_ours(&name) && !named.contains(&name) {
                self.remove(&name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.dir.join(name);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|cause| Error::Io { action: "remove", path, cause }),
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, reason: &str) -> Error {
        Error::State { reason: format!("checkpoint.dir `{}` {reason}", self.0.dir.display()) }
    }
}

impl Content {
    /// Forgets graphs that no state can be of any more.
    fn forget_used(&mut self, delivered: u64) {
        // The last mini-batch that was delivered is the one before step `delivered`.
        while self.used.get(1).is_some_and(|(from, _)| *from < delivered) {
            self.used.pop_front();
        }
    }

    /// Forgets what no state stands on: neither one that was saved, nor one that may be made now, nor the newest few.
    fn prune(&mut self, keep: usize, delivered: u64) {
        self.forget_used(delivered);
        let Manifest { snapshots, left_at_steps, states, waiting_at_steps } = &mut self.manifest;
        waiting_at_steps.retain(|step| states.iter().any(|state| state.step == *step));
        let newest = snapshots.len().saturating_sub(keep);
        let newest: Vec<_> = snapshots[newest..].iter().map(|snapshot| snapshot.graph_version).collect();
        snapshots.retain(|snapshot| {
            let version = snapshot.graph_version;
            let used = self.used.iter().any(|(_, used)| *used == version);
            used || newest.contains(&version) || states.iter().any(|state| state.graph_version == version)
        });
        let newest = left_at_steps.len().saturating_sub(keep);
        let newest = left_at_steps[newest..].to_vec();
        left_at_steps.retain(|step| {
            let used = self.used.iter().any(|(from, _)| from == step);
            used || newest.contains(step) || states.iter().any(|state| state.graph_used_from_step == *step)
        });
    }
}

/// An error for a file of a checkpoint that is not as it was written.
fn unusable(path: &Path, error: Error) -> Error {
    let place = match error {
        Error::Damaged { place, .. } => place,
        Error::Corrupt { cause, .. } => Some(format!("({cause})")),
        other => return other,
    };
    damaged(path, place)
}

fn damaged(path: &Path, place: Option<String>) -> Error {
    let remedy = "set checkpoint.resume = \"latest\" to go on with another snapshot, or resume from an older state";
    Error::Damaged { path: path.to_owned(), place, remedy: Some(remedy.into()) }
}

/// Waits a while, since work of a run that was just dropped may still be under way.
async fn lock(dir: &Path) -> Result<fs::File> {
    let path = dir.join("lock");
    let io = |action, cause| Error::Io { action, path: path.clone(), cause };
    fs::create_dir_all(dir).map_err(|cause| io("create the folder of", cause))?;
    let file = fs::File::create(&path).map_err(|cause| io("create", cause))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(fs::TryLockError::Error(cause)) => return Err(io("lock", cause)),
        }
    }
    let reason = "is in use by a run that has not ended; end that, or name another";
    Err(Error::State { reason: format!("checkpoint.dir `{}` {reason}", dir.display()) })
}

/// States that are kept: the last one saved, and the one before, since a trainer may be killed between its own
/// checkpoint and ours, whichever it writes first.
const STATES: usize = 2;

/// A lock is tried every 20 ms for five seconds.
const TRIES: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);
