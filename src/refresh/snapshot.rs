use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use tokio::sync::watch;

use crate::checkpoint::SavedSnapshot;
use crate::config::{GuardsConfig, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::graph::{HnswIndex, ProximityGraph};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::store::{Key, Store};
use crate::walk::Groups;
use crate::walk::{EpochSampler, Guards, Left};

/// Embeddings and the graph over them, published together.
#[derive(Debug)]
pub struct Snapshot {
    /// All samples' embeddings.
    pub embeddings: Arc<EmbeddingTable>,
    /// Their neighbors.
    pub graph: ProximityGraph,
    /// When the embeddings were made.
    pub ages: Ages,
    /// When the refresh began that made this.
    pub(crate) begun_at_step: u64,
    /// The first graph over these embeddings.
    pub(super) embeddings_of: GraphVersion,
    /// All columns that are stored, for encoders.
    pub(crate) store: Store,
    /// What mini-batches carry.
    pub(crate) rows: Store,
    /// The column of explicit negatives, if there are any.
    pub(crate) negatives: Option<Store>,
    /// What keeps samples apart.
    pub(crate) guards: Guards,
    index: OnceLock<HnswIndex>,
}

/// Which columns mini-batches carry, and which keep samples apart.
#[derive(Debug)]
pub(crate) struct Selection {
    pub payload: Vec<String>,
    /// The column of explicit negatives.
    pub negative: Option<String>,
    pub guards: GuardsConfig,
    /// What no two samples of a mini-batch may share. The content of samples comes first.
    pub keys: Vec<Key>,
}

/// What the column of the i-th explicit negative is called, from 1.
pub(crate) fn negative(i: usize) -> String {
    format!("negative_{i}")
}

/// When embeddings were made, in delivered mini-batches.
#[derive(Clone, Debug)]
pub struct Ages {
    /// At the last pass over all samples.
    pub embedded_at_step: u64,
    /// Of each sample by a push, or [`NEVER`](Self::NEVER); empty where nothing was pushed since that pass.
    pub(super) pushed_at_step: Arc<[u64]>,
}

/// How old embeddings are, in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgeSummary {
    /// The mean over all samples.
    pub mean: f64,
    /// 95 of 100 are no older.
    pub p95: u64,
    /// Samples whose vector was not pushed since the last pass over all.
    pub never_pushed: usize,
}

impl Ages {
    /// Not pushed.
    pub(super) const NEVER: u64 = u64::MAX;

    pub(super) fn all_at(embedded_at_step: u64) -> Self {
        Self { embedded_at_step, pushed_at_step: [].into() }
    }

    fn made_at(&self, id: SampleId) -> u64 {
        self.pushed_at(id).unwrap_or(self.embedded_at_step)
    }

    fn pushed_at(&self, id: SampleId) -> Option<u64> {
        self.pushed_at_step.get(id.index()).copied().filter(|&at| at != Self::NEVER)
    }

    /// Whether the sample's vector is the trainer's.
    pub(super) fn is_pushed(&self, id: SampleId) -> bool {
        self.pushed_at(id).is_some()
    }

    /// The mean age of these samples' embeddings at `step`, in whole steps.
    pub(crate) fn mean(&self, ids: &[SampleId], step: u64) -> u64 {
        if self.pushed_at_step.is_empty() || ids.is_empty() {
            return step.saturating_sub(self.embedded_at_step);
        }
        ids.iter().map(|&id| step.saturating_sub(self.made_at(id))).sum::<u64>() / ids.len() as u64
    }
}

impl Snapshot {
    pub(super) fn new(
        embeddings: Arc<EmbeddingTable>,
        graph: ProximityGraph,
        ages: Ages,
        (embeddings_of, begun_at_step): (GraphVersion, u64),
        store: Store,
        selection: &Selection,
        groups: Option<Arc<Groups>>,
    ) -> Result<Self> {
        let rows = store.select(&selection.payload)?;
        let negatives = selection.negative.as_ref().map(|column| store.select(std::slice::from_ref(column)));
        let negatives = negatives.transpose()?;
        let groups = match groups {
            Some(groups) => groups,
            None => Groups::of(&store, &selection.keys)?.into(),
        };
        let guards = Guards::new(&selection.guards, groups, embeddings.clone());
        let index = OnceLock::new();
        Ok(Self { embeddings, graph, ages, begun_at_step, embeddings_of, store, rows, negatives, guards, index })
    }

    /// The columns of mini-batches with so many explicit negatives of each sample.
    pub(crate) fn schema(&self, negatives: usize) -> SchemaRef {
        let rows = self.rows.schema();
        let column = self.negatives.as_ref().filter(|_| negatives > 0).map(Store::schema);
        let column = column.iter().map(|schema| schema.field(0));
        let named = column.flat_map(|field| (1..=negatives).map(move |i| (field, i)));
        let more = named.map(|(field, i)| Arc::new(field.clone().with_name(negative(i)).with_nullable(true)));
        Schema::new(rows.fields().iter().cloned().chain(more).collect::<Vec<_>>()).into()
    }

    /// The rows of these samples, and of so many explicit negatives of each, [ids × negatives], as columns.
    pub(crate) fn gather(&self, ids: &[SampleId], negatives: &[Option<SampleId>]) -> Result<RecordBatch> {
        let rows = self.rows.gather(ids)?;
        let (Some(store), false) = (&self.negatives, ids.is_empty() || negatives.is_empty()) else { return Ok(rows) };
        let count = negatives.len() / ids.len();
        let found: Vec<_> = negatives.iter().copied().flatten().collect();
        let column = store.gather(&found)?;
        let mut next = 0..;
        let places: Vec<Option<u32>> = negatives.iter().map(|id| id.and_then(|_| next.next())).collect();
        let mut columns = rows.columns().to_vec();
        let failed = |cause| Error::Arrow { action: "gather negatives", cause };
        for i in 0..count {
            let places: UInt32Array = places.iter().skip(i).step_by(count).copied().collect();
            columns.push(take(column.column(0), &places, None).map_err(failed)?);
        }
        RecordBatch::try_new(self.schema(count), columns).map_err(failed)
    }

    /// As it goes to a checkpoint.
    pub(super) fn kept(&self) -> SavedSnapshot {
        SavedSnapshot {
            graph: self.graph.clone(),
            embeddings: self.embeddings.clone(),
            embeddings_of: self.embeddings_of.0,
            begun_at_step: self.begun_at_step,
            embedded_at_step: self.ages.embedded_at_step,
            pushed_at_step: self.ages.pushed_at_step.clone(),
        }
    }

    /// As it comes from one.
    pub(super) fn of_saved(kept: SavedSnapshot, store: Store, selection: &Selection) -> Result<Self> {
        let SavedSnapshot { graph, embeddings, embeddings_of, begun_at_step, embedded_at_step, pushed_at_step } = kept;
        let ages = Ages { embedded_at_step, pushed_at_step };
        Self::new(embeddings, graph, ages, (GraphVersion(embeddings_of), begun_at_step), store, selection, None)
    }

    /// How old the embeddings are at `step`. O(samples log samples) where some were pushed.
    #[must_use]
    pub fn age(&self, step: u64) -> AgeSummary {
        let mut ages: Vec<u64> = match self.ages.pushed_at_step.is_empty() {
            true => vec![step.saturating_sub(self.ages.embedded_at_step)],
            false => {
                (0..self.embeddings.len()).map(|i| step.saturating_sub(self.ages.made_at(SampleId::new(i)))).collect()
            }
        };
        ages.sort_unstable();
        let pushed = self.ages.pushed_at_step.iter().filter(|at| **at != Ages::NEVER).count();
        AgeSummary {
            mean: ages.iter().sum::<u64>() as f64 / ages.len().max(1) as f64,
            p95: ages.get((ages.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0),
            never_pushed: self.embeddings.present() - pushed,
        }
    }

    /// The index over these embeddings that [`search`](Self::search) asks. The first call builds it, in the current
    /// rayon pool, as [`HnswIndex::build`] does, and blocks meanwhile; the snapshot keeps it, about 340 bytes a sample.
    pub fn index(&self) -> &HnswIndex {
        if let Some(index) = self.index.get() {
            return index;
        }
        // Built outside of the cell: a rayon thread that waits for the cell could be one that the build needs. So
        // first calls at the same time may each build, and one index stays.
        let index = HnswIndex::build(&self.embeddings, self.graph_version().0);
        self.index.get_or_init(|| index)
    }

    /// The `k` samples most similar to a vector from outside, most similar first, each with its similarity; see
    /// [`HnswIndex::search`]. Blocks, for long where the [index](Self::index) is still to be built: call it on a
    /// blocking thread.
    ///
    /// # Errors
    /// [`Error::Query`](crate::Error::Query) for a vector of another dimension, one that is not finite, or without a
    /// usable length.
    pub fn search(&self, vector: &[f32], k: usize) -> Result<Vec<(SampleId, f32)>> {
        self.index().search(vector, k)
    }

    /// The mini-batches of an epoch over all samples but those that were skipped.
    pub(crate) fn epoch(&self, walk: &WalkConfig, seed: u64, epoch: u64) -> EpochSampler {
        let left = Left { samples: self.embeddings.len(), drawn: 0, bits: self.embeddings.present_bits() };
        EpochSampler::from_left(&left, walk, seed, epoch)
    }

    /// The model that made the embeddings. Vectors that a trainer pushed count as another.
    #[must_use]
    pub fn model_version(&self) -> ModelVersion {
        self.embeddings.model_version()
    }

    /// Which graph this is.
    #[must_use]
    pub fn graph_version(&self) -> GraphVersion {
        self.graph.version()
    }
}

/// The reading end: always the newest snapshot. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Published(watch::Receiver<Timeline>);

/// Snapshots, each with the step from which it is used, oldest first; without `swap_after_steps` always one, from step 0.
#[derive(Clone, Debug)]
struct Timeline {
    snapshots: VecDeque<(u64, Arc<Snapshot>)>,
    /// From this step on it is not settled yet which snapshot is used.
    settled_before: u64,
}

impl Published {
    /// The newest snapshot. Never waits for a refresh.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.borrow().newest()
    }

    /// The snapshot to use for mini-batch `step`, waiting until that is settled.
    pub(crate) async fn at(&mut self, step: u64) -> Result<Arc<Snapshot>> {
        let timeline = self.0.wait_for(|timeline| step < timeline.settled_before).await;
        let ended = |_| Error::TaskEnded { task: "refresh" };
        let timeline = timeline.map_err(ended)?;
        let used = timeline.snapshots.iter().rev().find(|(from, _)| *from <= step);
        Ok(used.map_or_else(|| timeline.newest(), |(_, snapshot)| snapshot.clone()))
    }
}

impl Timeline {
    fn newest(&self) -> Arc<Snapshot> {
        self.snapshots[self.snapshots.len() - 1].1.clone()
    }
}

/// The publishing end.
#[derive(Debug)]
pub(crate) struct Publisher(watch::Sender<Timeline>);

impl Publisher {
    pub fn new(first: Snapshot) -> (Self, Published) {
        let snapshots = [(0, Arc::new(first))].into();
        let (tx, rx) = watch::channel(Timeline { snapshots, settled_before: u64::MAX });
        (Self(tx), Published(rx))
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.0.borrow().newest()
    }

    /// One atomic swap: readers see the old one or the new one, whole. Gives back those that are used no more.
    pub fn publish(&self, snapshot: Snapshot) -> VecDeque<(u64, Arc<Snapshot>)> {
        let mut snapshots = [(0, Arc::new(snapshot))].into();
        self.0.send_modify(|timeline| std::mem::swap(&mut timeline.snapshots, &mut snapshots));
        snapshots
    }

    /// To be used from step `from` on. Gives back those that no step from `delivered` on uses.
    pub fn publish_from(&self, from: u64, snapshot: Snapshot, delivered: u64) -> VecDeque<(u64, Arc<Snapshot>)> {
        let mut unused = VecDeque::new();
        self.0.send_modify(|timeline| {
            timeline.snapshots.push_back((from, Arc::new(snapshot)));
            while timeline.snapshots.get(1).is_some_and(|(from, _)| *from <= delivered) {
                unused.extend(timeline.snapshots.pop_front());
            }
        });
        unused
    }

    /// No refresh that is to come is used before `step`.
    pub fn settle(&self, step: u64) {
        self.0.send_modify(|timeline| timeline.settled_before = step);
    }
}
