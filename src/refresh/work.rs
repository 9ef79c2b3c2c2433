//! One refresh: looks for new rows and a newer model, embeds what is new, and carries the graph over.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::ages::Ages;
use super::agreement::Agreement;
use super::cancel::CancellableEncoder;
use super::drift::Drift;
use super::embed::ages_after;
use super::pushed_vectors::Pushes;
use super::report::{RefreshSeconds, RefreshStatus, Refreshed, Stopwatch};
use super::rules::RowRules;
use super::shared::{Shared, SharedFolder};
use super::snapshot::{Snapshot, SnapshotParts};
use crate::checkpoint::CheckpointFolder;
use crate::compute::ComputePool;
use crate::config::{OnBadSample, RefreshConfig, Similarity, Storage};
use crate::embeddings::EmbeddingTable;
use crate::encode::{EmbeddingCache, Encoder};
use crate::error::{ModelError, Result};
use crate::graph::Backend;
use crate::progress::Stage;
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::source::Source;
use crate::store::Store;
use crate::telemetry;

/// What every refresh of a run uses.
pub(crate) struct RefreshContext {
    pub source: Arc<dyn Source>,
    pub row_rules: RowRules,
    pub storage: Storage,
    pub on_bad_sample: OnBadSample,
    pub similarity: Similarity,
    /// Which pairs are consistent, if others are left out: `pairs.within`.
    pub within: Option<usize>,
    /// The frozen encoder that judges which samples are too similar: `guards.guide`.
    pub guide: Option<Arc<dyn Encoder>>,
    pub backend: Backend,
    pub refresh: RefreshConfig,
    pub seed: u64,
    /// How many samples a mini-batch has.
    pub batch_size: usize,
    /// Whether mini-batches have starts.
    pub has_starts: bool,
    /// How many processes refresh alike.
    pub ranks: usize,
    /// Refuses a first snapshot that does not fit the settings.
    pub check_first: CheckFirst,
    pub pool: ComputePool,
    pub checkpoint_folder: Option<CheckpointFolder>,
    pub embedding_cache: Option<Arc<EmbeddingCache>>,
    /// Where ranks share embeddings and graphs; `None` for a rank of its own.
    pub shared: Option<SharedFolder>,
    /// Names an encoder without an identity that reads vectors from rows, and so depends on these alone.
    pub reads_vectors: Option<String>,
}

/// Refuses a first snapshot that does not fit the settings.
pub(crate) type CheckFirst = Box<dyn Fn(&Snapshot) -> Result<()> + Send + Sync>;

/// What one refresh begins with.
pub(super) struct RefreshInput {
    pub old: Arc<Snapshot>,
    pub encoder: Arc<dyn Encoder>,
    /// Whether the old snapshot is of an earlier run, so that the encoder may be newer than its embeddings.
    pub is_restored: bool,
    pub pushed: Arc<Pushes>,
    /// The step at which the refresh began.
    pub step: u64,
    pub cancelled: Arc<AtomicBool>,
    pub status: Arc<RefreshStatus>,
}

/// What a refresh results in.
pub(super) struct RefreshOutput {
    pub report: Refreshed,
    /// `None` if nothing would change.
    pub snapshot: Option<Snapshot>,
    /// The newest encoder that can be used.
    pub encoder: Arc<dyn Encoder>,
}

/// The embeddings that the new graph is built over.
struct NewEmbeddings {
    table: Shared<Arc<EmbeddingTable>>,
    ages: Ages,
    /// The number of pushed vectors among them.
    pushed: usize,
}

impl RefreshContext {
    /// How ranks agree on refreshes, if triggers fire at other steps on each.
    pub(super) fn agreement(&self) -> Option<Agreement> {
        let folder = self.checkpoint_folder.as_ref().filter(|_| self.refresh.is_by_clock() && self.ranks > 1)?;
        Some(Agreement::new(folder.decisions(), &self.refresh))
    }

    /// Makes and saves the next snapshot: reads new files on tokio's threads, and does the rest in the background pool.
    pub(super) async fn make_snapshot(self: &Arc<Self>, input: RefreshInput) -> Result<RefreshOutput> {
        let mut stopwatch = Stopwatch::begin();
        let old = &input.old.store;
        input.status.report(Stage::Store, old.len(), old.len());
        let store = old.grow(self.source.as_ref()).await?.unwrap_or_else(|| old.clone());
        if store.len() > old.len() {
            telemetry::samples_added(store.len() - old.len(), store.len());
        }
        let seconds = RefreshSeconds { store: stopwatch.lap(), ..RefreshSeconds::default() };
        let context = self.clone();
        self.pool.run("refresh", move || context.rebuild(&input, store, seconds)).await
    }

    /// Embeds the rows in `store` as far as that is needed, carries the graph over, and saves both. Blocks.
    fn rebuild(&self, input: &RefreshInput, store: Store, seconds: RefreshSeconds) -> Result<RefreshOutput> {
        let RefreshInput { old, encoder, step, status, .. } = input;
        let mut stopwatch = Stopwatch::begin();
        let mut report = Refreshed {
            graph_version: old.graph_version(),
            model_version: old.model_version(),
            skipped: true,
            drift: None,
            added: store.len() - old.store.len(),
            pushed: 0,
            seconds,
        };

        let newer = self.newer_model(input, &mut report)?;
        report.seconds.model = stopwatch.lap();

        let encoder_now = newer.clone().unwrap_or_else(|| encoder.clone());
        let cancellable = CancellableEncoder { encoder: encoder_now.clone(), cancelled: input.cancelled.clone() };
        let Some(new) = self.embed(input, &store, &cancellable, newer.is_some())? else {
            telemetry::refresh_skipped(*step, "nothing has changed");
            return Ok(RefreshOutput { report, snapshot: None, encoder: encoder.clone() });
        };
        report.pushed = new.pushed;
        report.seconds.encode = stopwatch.lap();
        cancellable.check()?;
        self.check_enough(&new.table.value, &store, 2)?;

        status.report(Stage::Graph, 0, store.len());
        let version = GraphVersion(old.graph_version().0 + 1);
        // What samples have in common changes only with the rows.
        let mut facts = old.facts.clone();
        if report.added > 0 {
            facts = self.row_facts(&store, Some(&facts), &mut |_| cancellable.check())?;
        }
        let renew = || match &facts.strata {
            Some(strata) => self.backend.build_within(strata.parts(), &new.table.value, self.seed, version),
            None => self.backend.renew(&old.graph, &new.table.value, self.seed, version),
        };
        let mut wait = |_| cancellable.check();
        let graph = self.shared_graph(new.table.origin.recipe, old.graph_digest, version, renew, &mut wait)?;
        report.seconds.graph = stopwatch.lap();
        cancellable.check()?;

        report.skipped = false;
        report.graph_version = version;
        report.model_version = new.table.value.model_version();
        let is_same_table = Arc::ptr_eq(&new.table.value, &old.embeddings);
        let embeddings_since_graph = if is_same_table { old.embeddings_since_graph } else { version };
        let parts = SnapshotParts {
            embeddings: new.table,
            graph,
            ages: new.ages,
            losses: input.pushed.losses_after(&old.losses, store.len()),
            embeddings_since_graph,
            begun_at_step: *step,
        };
        let snapshot = Snapshot::new(parts, store, &self.row_rules, facts);
        cancellable.check()?;
        if let Some(folder) = &self.checkpoint_folder {
            folder.save(&snapshot.to_saved())?;
        }
        report.seconds.checkpoint = stopwatch.lap();
        Ok(RefreshOutput { report, snapshot: Some(snapshot), encoder: encoder_now })
    }

    /// The embeddings of all rows in `store`; `None` if a new graph would be the old one again.
    ///
    /// 1. A newer model embeds all samples; what was pushed before is dropped.
    /// 2. Otherwise new samples are embedded, and pushed vectors replace those of their samples.
    /// 3. If there are neither, the embeddings stay and the graph is drawn anew, unless it cannot differ from the old
    ///    one and no losses were pushed.
    fn embed(
        &self,
        input: &RefreshInput,
        store: &Store,
        encoder: &CancellableEncoder,
        is_newer: bool,
    ) -> Result<Option<NewEmbeddings>> {
        let RefreshInput { old, pushed, step, status, .. } = input;
        let Pushes { vectors, losses } = pushed.as_ref();
        let total = store.len();
        let next_version = ModelVersion(old.model_version().0 + 1);
        let skipped_before = old.embeddings.skipped();
        let mut report = |done| {
            status.report(Stage::Encode, done, total);
            encoder.check()
        };

        if is_newer {
            if vectors.len() > 0 {
                telemetry::pushes_dropped(vectors.len());
            }
            let table = self.embed_anew(encoder, store, next_version, skipped_before, &mut report)?;
            let table = table.map(Arc::new);
            return Ok(Some(NewEmbeddings { table, ages: Ages::all_at(*step), pushed: 0 }));
        }
        if total > old.store.len() || vectors.len() > 0 {
            let version = if vectors.len() > 0 { next_version } else { old.model_version() };
            let before = Shared { value: old.embeddings.as_ref(), origin: old.embeddings_origin.clone() };
            let table = self.embed_rest(before, vectors, encoder, store, version, &mut report)?;
            let (ages, pushed) = ages_after(&table.value, vectors, &old.ages);
            return Ok(Some(NewEmbeddings { table: table.map(Arc::new), ages, pushed }));
        }
        let is_settled = self.backend.is_settled(old.embeddings.present()) && losses.len() == 0;
        let table = || Shared { value: old.embeddings.clone(), origin: old.embeddings_origin.clone() };
        let same = || NewEmbeddings { table: table(), ages: old.ages.clone(), pushed: 0 };
        Ok((!is_settled).then(same))
    }

    /// The newer model, if there is one that fits and has drifted far enough.
    ///
    /// After a resume the opened model itself may be the newer one: the restored embeddings may be of an older model.
    fn newer_model(&self, input: &RefreshInput, report: &mut Refreshed) -> Result<Option<Arc<dyn Encoder>>> {
        let RefreshInput { old, encoder, is_restored, .. } = input;
        let (newer, least_shift) = match encoder.newer()? {
            Some(newer) => (newer, 0.0),
            None if *is_restored => (encoder.clone(), SAME_MODEL_MAX_SHIFT),
            None => return Ok(None),
        };
        let found = newer.dimension();
        let expected = old.embeddings.dimension();
        if found != expected {
            return Err(ModelError::Dimension {
                encoder: newer.name().to_owned(),
                found,
                other: "the run",
                expected,
                remedy: "export it with the same output, or start anew",
            }
            .into());
        }

        let mut candidates = old.embeddings.present_ids();
        if *is_restored {
            // The trainer's vectors are of no model that can be opened here, and say nothing about a newer one.
            candidates.retain(|&id| !old.ages.is_pushed(SampleId(id)));
        }
        let probe = Drift::probe(&candidates, self.refresh.probe, self.seed);
        let drift = Drift::measure(newer.as_ref(), old, &probe, self.on_bad_sample)?;
        telemetry::drifted(drift.cosine_shift, drift.overlap, old.model_version());
        report.drift = Some(drift);
        let is_far = drift.cosine_shift >= self.refresh.min_drift.max(least_shift);
        Ok(is_far.then_some(newer))
    }
}

/// A mean 1 − cosine below this is no newer model: storing vectors in i8 may turn them as far.
const SAME_MODEL_MAX_SHIFT: f64 = 1e-3;
