//! One refresh: what has come is looked for, embedded, and joined to the graph.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use arrow::array::RecordBatch;

use super::drift::Drift;
use super::handle::{Pushed, Refreshed};
use super::snapshot::{Ages, Snapshot};
use crate::checkpoint::Checkpoints;
use crate::compute::ComputePool;
use crate::config::{GraphConfig, RefreshConfig, Storage};
use crate::encode::{Encoder, encode_all, encode_rest};
use crate::error::{Error, Result};
use crate::graph;
use crate::sample::{GraphVersion, ModelVersion};
use crate::source::Source;
use crate::store::{EmbeddingTable, Store};
use crate::telemetry;

/// What a refresh needs to know; the same all run long.
pub(crate) struct Recipe {
    pub source: Box<dyn Source>,
    pub payload: Vec<String>,
    pub storage: Storage,
    pub graph: GraphConfig,
    pub refresh: RefreshConfig,
    pub seed: u64,
    pub pool: ComputePool,
    pub checkpoints: Option<Checkpoints>,
}

/// What came of it.
pub(super) struct Outcome {
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

impl Recipe {
    pub(super) async fn refresh(
        self: &Arc<Self>,
        old: Arc<Snapshot>,
        encoder: Arc<dyn Encoder>,
        pushed: Arc<Pushed>,
        (step, resumed): (u64, bool),
        cancelled: Arc<AtomicBool>,
    ) -> Result<Outcome> {
        let begun = Instant::now();
        let store = old.store.grow(self.source.as_ref()).await?.unwrap_or_else(|| old.store.clone());
        if store.len() > old.store.len() {
            telemetry::samples_added(store.len() - old.store.len(), store.len());
        }
        let recipe = self.clone();
        let work = move || {
            let mut outcome = recipe.work(&old, store, encoder, &pushed, (step, resumed), cancelled)?;
            outcome.report.seconds = begun.elapsed().as_secs_f64();
            Ok(outcome)
        };
        self.pool.run("refresh", work).await
    }

    fn work(
        &self,
        old: &Snapshot,
        store: Store,
        encoder: Arc<dyn Encoder>,
        pushed: &Pushed,
        (step, resumed): (u64, bool),
        cancelled: Arc<AtomicBool>,
    ) -> Result<Outcome> {
        let added = store.len() - old.store.len();
        let mut report = Refreshed {
            graph_version: old.graph_version(),
            model_version: old.model_version(),
            skipped: true,
            drift: None,
            added,
            pushed: 0,
            seconds: 0.0,
        };
        let newer = self.newer(old, &encoder, resumed, &mut report)?;
        let encoder_now = newer.clone().unwrap_or_else(|| encoder.clone());
        let watched = Watched { encoder: encoder_now.clone(), cancelled };
        let next = ModelVersion(old.model_version().0 + 1);
        let mut ages = old.ages.clone();
        let embeddings: Arc<EmbeddingTable> = if newer.is_some() {
            if pushed.len() > 0 {
                telemetry::pushes_dropped(pushed.len());
            }
            ages = Ages::all_at(step);
            let similarity = self.graph.similarity;
            encode_all(&watched, &store, self.storage, similarity, next, &mut |_| {})?.into()
        } else if added > 0 || pushed.len() > 0 {
            report.pushed = pushed.len();
            let version = if pushed.len() > 0 { next } else { old.model_version() };
            let mut table = old.embeddings.fork(store.len(), version);
            encode_rest(&watched, &store, &mut table, &mut |_| {})?;
            ages = push(&mut table, pushed, &ages)?;
            table.into()
        } else if graph::is_settled(&self.graph, store.len()) {
            telemetry::refresh_skipped(step, "nothing has changed");
            return Ok(Outcome { report, snapshot: None, encoder });
        } else {
            old.embeddings.clone()
        };
        watched.go_on()?;
        let version = GraphVersion(old.graph_version().0 + 1);
        let graph = graph::renew(&old.graph, &embeddings, &self.graph, self.seed, version);
        watched.go_on()?;
        report.skipped = false;
        (report.graph_version, report.model_version) = (version, embeddings.model_version());
        let same = Arc::ptr_eq(&embeddings, &old.embeddings);
        let origin = (if same { old.embeddings_of } else { version }, step);
        let snapshot = Snapshot::new(embeddings, graph, ages, origin, store, &self.payload)?;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.save(&snapshot.kept())?;
        }
        Ok(Outcome { report, snapshot: Some(snapshot), encoder: encoder_now })
    }

    /// The newer model, if there is one that fits and has drifted far enough. After a resume that may be the one that was
    /// opened, since the embeddings are older.
    fn newer(
        &self,
        old: &Snapshot,
        encoder: &Arc<dyn Encoder>,
        resumed: bool,
        report: &mut Refreshed,
    ) -> Result<Option<Arc<dyn Encoder>>> {
        let (newer, least) = match encoder.newer()? {
            Some(newer) => (newer, 0.0),
            None if resumed => (encoder.clone(), SAME),
            None => return Ok(None),
        };
        let (found, expected) = (newer.dimension(), old.embeddings.dimension());
        if found != expected {
            return Err(Error::Dimension { encoder: newer.name().to_owned(), found, expected });
        }
        let probe = self.refresh.probe;
        let drift = Drift::measure(newer.as_ref(), &old.store, &old.embeddings, probe, self.seed)?;
        telemetry::drifted(drift.cosine_shift, drift.overlap, old.model_version());
        report.drift = Some(drift);
        Ok((drift.cosine_shift >= self.refresh.skip_below.max(least)).then_some(newer))
    }
}

/// A model whose vectors have not turned by more than storing them in i8 may turn them is the same.
const SAME: f64 = 1e-3;

/// Puts pushed vectors in their places.
fn push(table: &mut EmbeddingTable, pushed: &Pushed, ages: &Ages) -> Result<Ages> {
    let mut at = ages.pushed_at_step.to_vec();
    if pushed.len() > 0 || !at.is_empty() {
        at.resize(table.len(), Ages::NEVER);
    }
    let mut room = vec![0f32; table.dimension()];
    for (id, vector, step) in pushed.vectors(table.dimension()) {
        room.copy_from_slice(vector);
        table.replace(id, &mut room)?;
        at[id.index()] = step;
    }
    Ok(Ages { embedded_at_step: ages.embedded_at_step, pushed_at_step: at.into() })
}

/// An encoder that stops where its work is cancelled.
pub(crate) struct Watched {
    pub encoder: Arc<dyn Encoder>,
    pub cancelled: Arc<AtomicBool>,
}

impl Watched {
    fn go_on(&self) -> Result<()> {
        if self.cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl Encoder for Watched {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn columns(&self) -> &[String] {
        self.encoder.columns()
    }

    fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.go_on()?;
        self.encoder.encode(rows, vectors)
    }
}
