//! One refresh: what has come is looked for, embedded, and joined to the graph.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arrow::array::RecordBatch;

use super::drift::Drift;
use super::pushed::Pushed;
use super::report::{RefreshSeconds, RefreshStatus, Refreshed, Stopwatch};
use super::snapshot::{Ages, Selection, Snapshot};
use crate::checkpoint::Checkpoints;
use crate::compute::ComputePool;
use crate::config::{OnBadSample, RefreshConfig, Similarity, Storage};
use crate::embeddings::EmbeddingTable;
use crate::encode::{BadSamples, EmbeddingCache, Encoded, Encoder, encode_present, encode_rest};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::progress::Stage;
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::source::Source;
use crate::store::Store;
use crate::telemetry;

/// What a refresh needs to know; the same all run long.
pub(crate) struct RefreshContext {
    pub source: Arc<dyn Source>,
    pub selection: Selection,
    pub storage: Storage,
    pub on_bad_sample: OnBadSample,
    pub similarity: Similarity,
    pub backend: Backend,
    pub refresh: RefreshConfig,
    pub seed: u64,
    pub pool: ComputePool,
    pub checkpoints: Option<Checkpoints>,
    pub embeddings: Option<Arc<EmbeddingCache>>,
}

/// What one refresh begins with.
pub(super) struct RefreshInput {
    pub old: Arc<Snapshot>,
    pub encoder: Arc<dyn Encoder>,
    /// The encoder may be newer than the embeddings.
    pub resumed: bool,
    pub pushed: Arc<Pushed>,
    pub step: u64,
    pub cancelled: Arc<AtomicBool>,
    pub status: Arc<RefreshStatus>,
}

/// What came of it.
pub(super) struct RefreshOutput {
    pub report: Refreshed,
    /// `None` where nothing would change.
    pub snapshot: Option<Snapshot>,
    /// The newest that can be used.
    pub encoder: Arc<dyn Encoder>,
}

/// Ends work that nobody waits for any more, soon after it is dropped.
pub(crate) struct CancelOnDrop(pub Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl RefreshContext {
    pub(super) async fn refresh(self: &Arc<Self>, task: RefreshInput) -> Result<RefreshOutput> {
        let (mut stopwatch, old) = (Stopwatch::begin(), &task.old);
        task.status.reach(Stage::Store, old.store.len(), old.store.len());
        let store = old.store.grow(self.source.as_ref()).await?.unwrap_or_else(|| old.store.clone());
        if store.len() > old.store.len() {
            telemetry::samples_added(store.len() - old.store.len(), store.len());
        }
        let seconds = RefreshSeconds { store: stopwatch.seconds(), ..RefreshSeconds::default() };
        let context = self.clone();
        self.pool.run("refresh", move || context.work(&task, store, seconds)).await
    }

    fn work(&self, task: &RefreshInput, store: Store, seconds: RefreshSeconds) -> Result<RefreshOutput> {
        let RefreshInput { old, encoder, pushed, step, status, .. } = task;
        let (mut stopwatch, total) = (Stopwatch::begin(), store.len());
        let mut report = Refreshed {
            graph_version: old.graph_version(),
            model_version: old.model_version(),
            skipped: true,
            drift: None,
            added: total - old.store.len(),
            pushed: 0,
            seconds,
        };
        let newer = self.newer(task, &mut report)?;
        report.seconds.model = stopwatch.seconds();
        let encoder_now = newer.clone().unwrap_or_else(|| encoder.clone());
        let watched = CancellableEncoder { encoder: encoder_now.clone(), cancelled: task.cancelled.clone() };
        let next = ModelVersion(old.model_version().0 + 1);
        let mut encoded = |done| status.reach(Stage::Encode, done, total);
        let bad = BadSamples { on_bad_sample: self.on_bad_sample, known: old.embeddings.skipped() };
        let mut ages = old.ages.clone();
        let embeddings: Arc<EmbeddingTable> = if newer.is_some() {
            if pushed.len() > 0 {
                telemetry::pushes_dropped(pushed.len());
            }
            ages = Ages::all_at(*step);
            let form = (self.storage, self.similarity, next);
            encode_present(&watched, &store, bad, form, self.embeddings.as_deref(), &mut encoded)?.into()
        } else if report.added > 0 || pushed.len() > 0 {
            let version = if pushed.len() > 0 { next } else { old.model_version() };
            let mut table = old.embeddings.fork(total, version);
            encode_rest(&watched, &store, bad, &mut table, self.embeddings.as_deref(), &mut encoded)?;
            (ages, report.pushed) = push(&mut table, pushed, &ages)?;
            table.into()
        } else if self.backend.is_settled(old.embeddings.present()) {
            telemetry::refresh_skipped(*step, "nothing has changed");
            return Ok(RefreshOutput { report, snapshot: None, encoder: encoder.clone() });
        } else {
            old.embeddings.clone()
        };
        report.seconds.encode = stopwatch.seconds();
        watched.go_on()?;
        if embeddings.present() < 2 {
            return Err(embeddings.too_few(store.uri(), 2));
        }
        status.reach(Stage::Graph, 0, total);
        let version = GraphVersion(old.graph_version().0 + 1);
        let graph = self.backend.renew(&old.graph, &embeddings, self.seed, version)?;
        report.seconds.graph = stopwatch.seconds();
        watched.go_on()?;
        report.skipped = false;
        (report.graph_version, report.model_version) = (version, embeddings.model_version());
        let same = Arc::ptr_eq(&embeddings, &old.embeddings);
        let origin = (if same { old.embeddings_of } else { version }, *step);
        // Who shares a value with whom changes with the rows only.
        let groups = (report.added == 0).then(|| old.guards.groups().clone());
        let snapshot = Snapshot::new(embeddings, graph, ages, origin, store, &self.selection, groups)?;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.save(&snapshot.kept())?;
        }
        report.seconds.checkpoint = stopwatch.seconds();
        Ok(RefreshOutput { report, snapshot: Some(snapshot), encoder: encoder_now })
    }

    /// The newer model, if there is one that fits and has drifted far enough. After a resume that may be the one that was
    /// opened, since the embeddings are older.
    fn newer(&self, task: &RefreshInput, report: &mut Refreshed) -> Result<Option<Arc<dyn Encoder>>> {
        let RefreshInput { old, encoder, resumed, .. } = task;
        let (newer, least) = match encoder.newer()? {
            Some(newer) => (newer, 0.0),
            None if *resumed => (encoder.clone(), SAME),
            None => return Ok(None),
        };
        let (found, expected) = (newer.dimension(), old.embeddings.dimension());
        if found != expected {
            return Err(Error::Dimension {
                encoder: newer.name().to_owned(),
                found,
                other: "the run",
                expected,
                remedy: "export it with the same output, or start anew",
            });
        }
        let probe = self.refresh.probe;
        let mut among = old.embeddings.present_ids();
        if *resumed {
            // The trainer's vectors are of no model that can be opened here, and none is newer for that.
            among.retain(|&id| !old.ages.is_pushed(SampleId(id)));
        }
        let drift = Drift::measure(
            newer.as_ref(),
            &old.store,
            &old.embeddings,
            (&among, probe),
            self.on_bad_sample,
            self.seed,
        )?;
        telemetry::drifted(drift.cosine_shift, drift.overlap, old.model_version());
        report.drift = Some(drift);
        Ok((drift.cosine_shift >= self.refresh.min_drift.max(least)).then_some(newer))
    }
}

/// A model whose vectors have not turned by more than storing them in i8 may turn them is the same.
const SAME: f64 = 1e-3;

/// Puts pushed vectors in their places, but for samples that a newer model has skipped since; says how many.
fn push(table: &mut EmbeddingTable, pushed: &Pushed, ages: &Ages) -> Result<(Ages, usize)> {
    let mut at = ages.pushed_at_step.to_vec();
    if pushed.len() > 0 || !at.is_empty() {
        at.resize(table.len(), Ages::NEVER);
    }
    let (mut room, mut skipped) = (vec![0f32; table.dimension()], 0);
    for (id, vector, step) in pushed.iter() {
        if table.is_skipped(id) {
            skipped += 1;
            continue;
        }
        room.copy_from_slice(vector);
        table.replace(id, &mut room)?;
        at[id.index()] = step;
    }
    if skipped > 0 {
        telemetry::pushes_skipped(skipped);
    }
    let ages = Ages { embedded_at_step: ages.embedded_at_step, pushed_at_step: at.into() };
    Ok((ages, pushed.len() - skipped))
}

/// An encoder that stops where its work is cancelled.
pub(crate) struct CancellableEncoder {
    pub encoder: Arc<dyn Encoder>,
    pub cancelled: Arc<AtomicBool>,
}

impl CancellableEncoder {
    fn go_on(&self) -> Result<()> {
        if self.cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl Encoder for CancellableEncoder {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn columns(&self) -> &[String] {
        self.encoder.columns()
    }

    fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    fn identity(&self) -> Option<String> {
        self.encoder.identity()
    }

    fn calls_at_once(&self) -> usize {
        self.encoder.calls_at_once()
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.go_on()?;
        self.encoder.encode(rows, vectors)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        self.go_on()?;
        self.encoder.encode_readable(rows, vectors)
    }
}
