//! Starts a pipeline: open → store → run → embed → first snapshot → spawn.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::PipelineBuilder;
use super::checks::{check_remaining, check_sample_count, check_settings, check_values};
use super::open::{Opened, open, open_backend};
use crate::checkpoint::{self, Begin, Checkpoints, Resumed, State};
use crate::compute::ComputePool;
use crate::config::PipelineConfig;
use crate::embeddings::EmbeddingTable;
use crate::encode::{BadSamples, EmbeddingCache, Encoder, TableSettings, encode_present};
use crate::error::{Error, Result};
use crate::panics::guarded_future;
use crate::progress::{ProgressSink, Stage};
use crate::refresh::{CancelOnDrop, CancellableEncoder, FirstSnapshot, ModelWatch, RefreshContext, Worker};
use crate::sample::ModelVersion;
use crate::store::Store;
use crate::stream::{MiniBatch, MiniBatchStream, Producer, ProducerSettings, RowColumns, StreamParts};
use crate::telemetry;

pub(super) async fn start(builder: PipelineBuilder) -> Result<MiniBatchStream> {
    let PipelineBuilder { config, source, encoder, state, progress } = builder;
    check_settings(&config, source.is_some())?;
    let pool = ComputePool::new(config.compute.threads)?;
    let opened = open(&config, source, encoder, &pool).await?;

    let startup = Startup { config, pool, progress };
    let store = startup.build_store(&opened).await?;
    let Run { store, state, resumed, checkpoints, delivered } = startup.begin_run(store, state).await?;
    let cache = EmbeddingCache::of(&startup.config.encode, &startup.config.store);
    let origin = match resumed {
        Some(resumed) => Origin::Resumed(Box::new(resumed)),
        None => Origin::Embedded(startup.embed(&opened.encoder, &store, cache.clone()).await?),
    };

    startup.progress.report(Stage::Graph, 0, Some(store.len()));
    let Opened { source, encoder, model_watch, row_columns, guard_rules, .. } = opened;
    let context = Arc::new(RefreshContext {
        source: source.into(),
        guard_rules,
        storage: startup.config.encode.storage,
        on_bad_sample: startup.config.encode.on_bad_sample,
        similarity: startup.config.graph.similarity,
        pool: startup.background_pool()?,
        backend: open_backend(&startup.config, &startup.pool).await?,
        refresh: startup.config.refresh.clone(),
        seed: startup.config.seed,
        checkpoints,
        embedding_cache: cache,
    });
    let first = startup.first_snapshot(&context, store, origin, state.step).await?;
    startup.spawn(Ready { context, first, encoder, model_watch, row_columns, state, delivered }).await
}

/// What all steps of a start use.
struct Startup {
    config: PipelineConfig,
    pool: ComputePool,
    progress: ProgressSink,
}

/// What a run begins with.
struct Run {
    /// The rows that it begins with: those of the state, if there is one.
    store: Store,
    state: State,
    resumed: Option<Resumed>,
    checkpoints: Option<Checkpoints>,
    /// The number of mini-batches that the trainer has taken.
    delivered: watch::Sender<u64>,
}

/// What the first snapshot is based on.
enum Origin {
    Embedded(EmbeddingTable),
    Resumed(Box<Resumed>),
}

/// What the tasks of a run need.
struct Ready {
    context: Arc<RefreshContext>,
    first: FirstSnapshot,
    encoder: Arc<dyn Encoder>,
    model_watch: Option<ModelWatch>,
    row_columns: RowColumns,
    state: State,
    delivered: watch::Sender<u64>,
}

impl Startup {
    /// Reads the source into the store, or opens the cache of an earlier run.
    async fn build_store(&self, opened: &Opened) -> Result<Store> {
        let source = opened.source.as_ref();
        let total = source.rows();
        let mut report = |done| self.progress.report(Stage::Store, done, total);
        report(0);
        let store = Store::build(source, &opened.stored_columns, &self.config.store, &mut report).await?;
        check_sample_count(source, store.len(), &self.config.walk)?;
        Ok(store)
    }

    /// Takes the checkpoint folder, and looks up where the run stands.
    async fn begin_run(&self, store: Store, state: Option<State>) -> Result<Run> {
        let config = &self.config;
        let lag = config.refresh.swap_after_steps.unwrap_or(0);
        let pending = lag / config.refresh.every_steps.unwrap_or(u64::MAX);
        let pending = usize::try_from(pending).unwrap_or(0);

        let (delivered, steps) = watch::channel(0);
        let checkpoints = Checkpoints::take(&config.checkpoint, pending, config.stream.rank, steps).await?;
        let Begin { store, state, resumed } = checkpoint::begin(store, state, checkpoints.clone(), config).await?;
        delivered.send_replace(state.step);
        Ok(Run { store, state, resumed, checkpoints, delivered })
    }

    /// Embeds all samples, or takes their vectors from the cache. Dropping the future stops at the next record batch.
    async fn embed(
        &self,
        encoder: &Arc<dyn Encoder>,
        store: &Store,
        cache: Option<Arc<EmbeddingCache>>,
    ) -> Result<EmbeddingTable> {
        let cancel = CancelOnDrop(Arc::default());
        let encoder = CancellableEncoder { encoder: encoder.clone(), cancelled: cancel.0.clone() };
        let bad = BadSamples { on_bad_sample: self.config.encode.on_bad_sample, skipped_before: 0 };
        let settings = TableSettings {
            storage: self.config.encode.storage,
            similarity: self.config.graph.similarity,
            model_version: ModelVersion(1),
        };
        let batch_size = self.config.walk.batch_size;
        let progress = self.progress.clone();
        let store = store.clone();

        let embed = move || {
            let total = Some(store.len());
            let mut report = |done| progress.report(Stage::Encode, done, total);
            report(0);
            let table = encode_present(&encoder, &store, bad, settings, cache.as_deref(), &mut report)?;
            check_remaining(store.uri(), &table, batch_size)?;
            Ok(table)
        };
        self.pool.run("encode", embed).await
    }

    /// The pool of refreshes, whose threads give way to all others.
    fn background_pool(&self) -> Result<ComputePool> {
        let threads = (self.config.refresh.cpu_share * self.pool.threads() as f64).round().max(1.0);
        ComputePool::in_background(threads as usize, self.config.refresh.gpu_share)
    }

    /// Builds the first snapshot, or restores that of the run that is resumed.
    async fn first_snapshot(
        &self,
        context: &Arc<RefreshContext>,
        store: Store,
        origin: Origin,
        step: u64,
    ) -> Result<FirstSnapshot> {
        let begun = Instant::now();
        let context = context.clone();
        let build = move || match origin {
            Origin::Embedded(embeddings) => FirstSnapshot::build(&context, store, embeddings),
            Origin::Resumed(resumed) => FirstSnapshot::restore(&context, store, *resumed),
        };
        let first = self.pool.run("graph", build).await?;

        let snapshot = &first.snapshot;
        let seconds = begun.elapsed().as_secs_f64();
        telemetry::published(snapshot.graph_version(), snapshot.model_version(), step, seconds);
        check_values(snapshot, &self.config)?;
        let samples = snapshot.embeddings.len();
        self.progress.report(Stage::Graph, samples, Some(samples));
        Ok(first)
    }

    /// Starts the refresh worker and the producer.
    async fn spawn(self, ready: Ready) -> Result<MiniBatchStream> {
        let Ready { context, first, encoder, model_watch, row_columns, state, delivered } = ready;
        let PipelineConfig { walk, stream, seed, .. } = self.config;
        let (tx, rx) = mpsc::channel(stream.prefetch);
        let checkpoints = context.checkpoints.clone();
        let resumed = first.is_restored.then(|| state.clone());
        let (worker, handle) = Worker::new(context, first, encoder, model_watch, delivered.subscribe());

        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(worker, tx.downgrade()));

        let settings = ProducerSettings { row_columns, walk, stream, seed };
        let published = handle.published();
        let folder = checkpoints.clone();
        let build = move || Producer::new(settings, published, resumed.as_ref(), folder);
        let producer = self.pool.run("producer", build).await?;
        let shared = producer.shared();
        let schema = producer.schema();
        tasks.spawn(producer.run(tx));
        Ok(MiniBatchStream::new(StreamParts { rx, delivered, tasks, handle, shared, schema, state, checkpoints }))
    }
}

/// Runs the worker. An error that ends it ends the stream too, as its last item.
async fn supervise(worker: Worker, tx: mpsc::WeakSender<Result<MiniBatch>>) {
    let ended = guarded_future(worker.run()).await;
    let error = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(message) => Error::TaskDied { task: "refresh", message },
    };
    if let Some(tx) = tx.upgrade() {
        // If the receiver is gone, there is nothing to report to.
        let _ = tx.send(Err(error)).await;
    }
}
