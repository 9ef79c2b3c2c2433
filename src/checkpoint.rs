//! "The run has ended, go on where it was."
//!
//! A [`State`] is a few numbers, counted in delivered mini-batches, for the trainer to keep with its own checkpoint.
//! What it stands on lies in a folder ([`CheckpointConfig`]): the last few snapshots and, for each, what was left of the
//! epoch when it was first used. A run that is resumed draws again what the trainer had since then, some million samples
//! a second, and goes on. Every file is complete or not there, so a run may be killed at any time.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use serde::{Deserialize, Serialize};

use crate::config::{CheckpointConfig, PipelineConfig, Resume};
use crate::error::{Error, Result};
use crate::graph::ProximityGraph;
use crate::sample::GraphVersion;
use crate::store::{EmbeddingTable, Store, ipc};
use crate::walk::Left;

/// Where a run stands: what the trainer keeps, in any format that serde writes. The same for all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of the run.
    pub seed: u64,
    /// Mini-batches delivered, over all epochs.
    pub step: u64,
    /// The epoch of the last of them, from 0.
    pub epoch: u64,
    /// The step at which that epoch began.
    pub epoch_began_at_step: u64,
    /// The graph that the last one was drawn from.
    pub graph_version: u64,
    /// The step from which on it was used in this epoch.
    pub graph_used_from_step: u64,
    /// Of the rows, as far as they were known: another one, and ids name other rows.
    pub rows: String,
    /// Of the settings that mini-batches depend on.
    pub settings: String,
}

/// A snapshot, as it is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub graph: ProximityGraph,
    pub embeddings: Arc<EmbeddingTable>,
    /// The first graph over these embeddings.
    pub embeddings_of: u64,
    /// When the refresh began that made it.
    pub begun_at_step: u64,
    /// When the embeddings were made, all of them, and since by pushes.
    pub embedded_at_step: u64,
    pub pushed_at_step: Arc<[u64]>,
}

/// The folder. Rank 0 writes to it, the others only read.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
    keep: usize,
    /// Rank 0's, as long as the run lasts: two runs would remove each other's files.
    lock: Option<Arc<fs::File>>,
}

impl Checkpoints {
    /// `pending` snapshots may be there that are not used yet.
    pub async fn take(config: &CheckpointConfig, pending: usize, rank: usize) -> Result<Option<Self>> {
        let Some(dir) = config.dir.clone() else { return Ok(None) };
        let mut checkpoints = Self { dir, keep: config.keep.saturating_add(pending), lock: None };
        if rank == 0 {
            checkpoints.lock = Some(checkpoints.lock().await?);
        }
        Ok(Some(checkpoints))
    }

    /// Waits a while, since work of a run that was just dropped may still be under way.
    async fn lock(&self) -> Result<Arc<fs::File>> {
        let path = self.dir.join("lock");
        let io = |action, cause| Error::Io { action, path: path.clone(), cause };
        fs::create_dir_all(&self.dir).map_err(|cause| io("create the folder of", cause))?;
        let file = fs::File::create(&path).map_err(|cause| io("create", cause))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Arc::new(file)),
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(fs::TryLockError::Error(cause)) => return Err(io("lock", cause)),
            }
        }
        Err(self.gone("is in use by a run that has not ended; end that, or name another"))
    }

    /// Refuses a folder that another run could be resumed from.
    pub fn must_be_empty(&self) -> Result<()> {
        match self.list("graph-")?.pop() {
            Some(_) if self.lock.is_some() => {
                Err(self.gone("holds snapshots of another run; resume that, clear the folder, or name another"))
            }
            _ => Ok(()),
        }
    }

    /// Saves a snapshot, and removes those that are no longer kept.
    pub fn save(&self, kept: &Kept) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        let (of, version) = (kept.embeddings_of, kept.graph.version().0);
        // What a run had made after the state that this one was resumed from.
        self.remove_all("graph", |numbers| numbers[0] >= version)?;
        self.remove_all("embeddings", |numbers| numbers[0] >= version)?;
        let embeddings = self.dir.join(format!("embeddings-{of}-{}.arrow", kept.embedded_at_step));
        if !embeddings.exists() {
            save_numbers(&self.dir.join(format!("pushed-{of}.arrow")), &kept.pushed_at_step, [0; 2])?;
            kept.embeddings.save(&embeddings)?;
        }
        kept.graph.save(self.dir.join(format!("graph-{}-{of}-{}.arrow", kept.graph.version(), kept.begun_at_step)))?;
        let mut graphs = self.list("graph-")?;
        while graphs.len() > self.keep {
            self.remove("graph", &graphs.remove(0))?;
        }
        let used = |of: u64| graphs.iter().any(|numbers| numbers.get(1) == Some(&of));
        self.remove_all("embeddings", |numbers| !used(numbers[0]))?;
        self.remove_all("pushed", |numbers| !used(numbers[0]))
    }

    /// A snapshot that was saved; the newest without `version`.
    pub fn open(&self, version: Option<u64>) -> Result<Kept> {
        let graphs = self.list("graph-")?;
        let found = graphs.iter().rev().find(|numbers| version.is_none_or(|version| numbers[0] == version));
        let Some(&[version, of, begun_at_step]) = found.map(Vec::as_slice) else {
            let version = version.map_or_else(|| "graph".to_owned(), |version| format!("graph {version}"));
            let remedy = "set checkpoint.resume = \"latest\" to go on with the newest, or start anew";
            return Err(self.gone(&format!("has no {version} any more; {remedy}")));
        };
        let embeddings = self.list("embeddings-")?.into_iter().find(|numbers| numbers[0] == of);
        let Some(&[_, embedded_at_step]) = embeddings.as_deref() else {
            return Err(self.gone(&format!("has no embeddings for graph {version} any more; start anew")));
        };
        let graph = ProximityGraph::open(self.dir.join(format!("graph-{version}-{of}-{begun_at_step}.arrow")))?;
        let embeddings = EmbeddingTable::open(self.dir.join(format!("embeddings-{of}-{embedded_at_step}.arrow")))?;
        let pushed_at_step = open_numbers(&self.dir.join(format!("pushed-{of}.arrow")))?.0.into();
        let embeddings = Arc::new(embeddings);
        Ok(Kept { graph, embeddings, embeddings_of: of, begun_at_step, embedded_at_step, pushed_at_step })
    }

    /// Saves what is left of an epoch at `step`.
    pub fn save_left(&self, step: u64, left: &Left) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        self.remove_all("left", |numbers| numbers[0] >= step)?;
        let path = self.dir.join(format!("left-{step}.arrow"));
        save_numbers(&path, &left.bits, [left.samples as u64, left.drawn])?;
        let mut steps = self.list("left-")?;
        while steps.len() > self.keep {
            self.remove("left", &steps.remove(0))?;
        }
        Ok(())
    }

    pub fn open_left(&self, step: u64) -> Result<Left> {
        let path = self.dir.join(format!("left-{step}.arrow"));
        if !path.exists() {
            let remedy = "set checkpoint.resume = \"latest\" to begin that epoch again, or start anew";
            return Err(self.gone(&format!("does not know any more what was left at step {step}; {remedy}")));
        }
        let (bits, [samples, drawn]) = open_numbers(&path)?;
        Ok(Left { samples: samples as usize, drawn, bits })
    }

    /// The numbers in the names of such files, in their order.
    fn list(&self, kind: &str) -> Result<Vec<Vec<u64>>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|cause| Error::Io { action: "list", path: self.dir.clone(), cause })?,
        };
        let numbers = |name: String| -> Option<Vec<u64>> {
            let numbers = name.strip_prefix(kind)?.strip_suffix(".arrow")?;
            numbers.split('-').map(|number| number.parse().ok()).collect()
        };
        let mut found: Vec<_> =
            entries.flatten().filter_map(|entry| numbers(entry.file_name().to_string_lossy().into_owned())).collect();
        found.sort_unstable();
        Ok(found)
    }

    fn remove_all(&self, kind: &str, unwanted: impl Fn(&[u64]) -> bool) -> Result<()> {
        let found = self.list(&format!("{kind}-"))?;
        found.iter().filter(|numbers| unwanted(numbers)).try_for_each(|numbers| self.remove(kind, numbers))
    }

    fn remove(&self, kind: &str, numbers: &[u64]) -> Result<()> {
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let path = self.dir.join(format!("{kind}-{}.arrow", numbers.join("-")));
        fs::remove_file(&path).map_err(|cause| Error::Io { action: "remove", path, cause })
    }

    fn gone(&self, reason: &str) -> Error {
        Error::State { reason: format!("checkpoint.dir `{}` {reason}", self.dir.display()) }
    }
}

impl State {
    /// Refuses a state of another run.
    pub(crate) fn check(&self, seed: u64, settings: &str) -> Result<()> {
        if self.seed == seed && self.settings == settings {
            return Ok(());
        }
        let reason = "it was made with another seed, or other settings of graph, walk, guards, pairs, encode.storage or \
                      encode.on_bad_sample; give the same";
        Err(Error::State { reason: reason.to_owned() })
    }

    /// One more mini-batch was delivered: that of `step`.
    pub(crate) fn advance(&mut self, epoch: u64, step: u64, graph_version: GraphVersion) {
        if epoch != self.epoch {
            (self.epoch, self.epoch_began_at_step, self.graph_used_from_step) = (epoch, step, step);
        } else if graph_version.0 != self.graph_version {
            self.graph_used_from_step = step;
        }
        (self.step, self.graph_version) = (step + 1, graph_version.0);
    }
}

/// A text for the settings that mini-batches depend on.
pub(crate) fn fingerprint(config: &PipelineConfig) -> String {
    let mut hasher = DefaultHasher::new();
    let encode = (config.encode.storage, config.encode.on_bad_sample);
    format!("{:?}", (&config.graph, &config.walk, &config.guards, &config.pairs, encode)).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What a state stands on: the rows as they were, and the snapshot.
pub(crate) async fn reopen(
    store: Store,
    state: Option<State>,
    checkpoints: Option<Checkpoints>,
    config: &PipelineConfig,
    settings: &str,
) -> Result<(Store, Option<State>, Option<Box<Kept>>)> {
    let refused = |reason: &str| Error::State { reason: reason.to_owned() };
    let (Some(mut state), Some(checkpoints)) = (state.clone(), checkpoints.clone()) else {
        if state.is_some() {
            return Err(refused("there is no checkpoint.dir; name the one of the run that the state is of"));
        }
        if let Some(checkpoints) = checkpoints {
            checkpoints.must_be_empty()?;
        }
        return Ok((store, None, None));
    };
    state.check(config.seed, settings)?;
    let latest = config.checkpoint.resume == Resume::Latest;
    let version = (!latest).then_some(state.graph_version);
    let kept = tokio::task::spawn_blocking(move || checkpoints.open(version)).await;
    let kept = kept.map_err(|e| Error::TaskDied { task: "checkpoint", message: e.to_string() })??;
    if latest {
        state.step = state.epoch_began_at_step;
        (state.graph_version, state.graph_used_from_step) = (kept.graph.version().0, state.step);
    }
    let changed = || refused("the rows are not those of the run that the state is of; start anew");
    let store = store.as_it_was(&state.rows, kept.graph.len()).ok_or_else(changed)?;
    Ok((store, Some(state), Some(Box::new(kept))))
}

/// A lock is tried every 20 ms for five seconds.
const TRIES: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

fn save_numbers(path: &std::path::Path, numbers: &[u64], more: [u64; 2]) -> Result<()> {
    let metadata = [("a", more[0]), ("b", more[1])].map(|(key, value)| (key.to_owned(), value.to_string()));
    let fields = vec![Field::new("numbers", DataType::UInt64, false)];
    let schema = Schema::new_with_metadata(fields, metadata);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(UInt64Array::from(numbers.to_vec()))]);
    ipc::save(path, &batch.map_err(|cause| Error::Arrow { action: "save a checkpoint", cause })?)
}

fn open_numbers(path: &std::path::Path) -> Result<(Vec<u64>, [u64; 2])> {
    let (schema, batches) = ipc::open(path)?;
    let more = ["a", "b"].map(|key| schema.metadata().get(key).and_then(|value| value.parse().ok()));
    let numbers = batches.first().and_then(|batch| batch.column(0).as_primitive_opt::<UInt64Type>());
    let (Some(numbers), [Some(a), Some(b)]) = (numbers, more) else {
        let (place, cause) = (String::new(), "it holds something else".into());
        return Err(Error::Corrupt { uri: path.display().to_string(), place, expected: "a checkpoint", cause });
    };
    Ok((numbers.values().to_vec(), [a, b]))
}
