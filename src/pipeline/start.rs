//! Starts a pipeline, stage by stage. In parentheses is what a stage hands on.
//!
//! 1. `open` opens the source and the encoder, and looks their columns up ([`Opened`]).
//! 2. `build_store` reads the rows ([`Store`]).
//! 3. `checkpoint::begin` takes the checkpoint folder and looks up where the run stands ([`RunStart`]).
//! 4. `embed` embeds all samples, unless an earlier run has left a snapshot ([`Origin`]).
//! 5. `first_snapshot` builds the graph, or restores that snapshot ([`FirstSnapshot`]). It shares with all refreshes
//!    what they need ([`RefreshContext`]).
//! 6. `spawn` starts the tasks of the run: the worker of refreshes and the producer ([`MiniBatchStream`]).

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::PipelineBuilder;
use super::checks::{check_remaining, check_sample_count, check_settings, check_values};
use super::open::{Opened, open, open_backend};
use crate::checkpoint::{self, Resumed, RunStart};
use crate::compute::ComputePool;
use crate::config::PipelineConfig;
use crate::embeddings::EmbeddingTable;
use crate::encode::{BadSamples, EmbeddingCache, Encoder, encode_present};
use crate::error::{Error, Result};
use crate::panics::guarded_future;
use crate::progress::{ProgressSink, Stage};
use crate::refresh::{CancelOnDrop, CancellableEncoder, FirstSnapshot, RefreshContext, RefreshHandle, Worker};
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
    let mut run = checkpoint::begin(store, state, &startup.config).await?;
    let cache = EmbeddingCache::of(&startup.config.encode, &startup.config.store);
    let origin = match run.resumed.take() {
        Some(resumed) => Origin::Resumed(Box::new(resumed)),
        None => Origin::Embedded(startup.embed(&opened.encoder, &run.store, cache.clone()).await?),
    };

    startup.progress.report(Stage::Graph, 0, Some(run.store.len()));
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
        checkpoint_folder: run.folder.clone(),
        embedding_cache: cache,
    });
    let first = startup.first_snapshot(&context, &run, origin).await?;
    let (worker, handle) = Worker::new(context, first, encoder, model_watch, run.delivered.subscribe());
    startup.spawn(run, worker, handle, row_columns).await
}

/// What all stages of a start use.
struct Startup {
    config: PipelineConfig,
    pool: ComputePool,
    progress: ProgressSink,
}

/// What the first snapshot is made of.
enum Origin {
    Embedded(EmbeddingTable),
    Resumed(Box<Resumed>),
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

    /// Embeds all samples, or takes their vectors from the cache. Dropping the future stops at the next record batch.
    async fn embed(
        &self,
        encoder: &Arc<dyn Encoder>,
        store: &Store,
        cache: Option<Arc<EmbeddingCache>>,
    ) -> Result<EmbeddingTable> {
        let cancel = CancelOnDrop(Arc::default());
        let encoder = CancellableEncoder { encoder: encoder.clone(), cancelled: cancel.0.clone() };
        let bad = BadSamples { on_bad_sample: self.config.encode.on_bad_sample, known: 0 };
        let settings = (self.config.encode.storage, self.config.graph.similarity, ModelVersion(1));
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
        run: &RunStart,
        origin: Origin,
    ) -> Result<FirstSnapshot> {
        let begun = Instant::now();
        let context = context.clone();
        let store = run.store.clone();
        let build = move || match origin {
            Origin::Embedded(embeddings) => FirstSnapshot::build(&context, store, embeddings),
            Origin::Resumed(resumed) => FirstSnapshot::restore(&context, store, *resumed),
        };
        let first = self.pool.run("graph", build).await?;

        let snapshot = &first.snapshot;
        let seconds = begun.elapsed().as_secs_f64();
        telemetry::published(snapshot.graph_version(), snapshot.model_version(), run.state.step, seconds);
        check_values(snapshot, &self.config)?;
        let samples = snapshot.embeddings.len();
        self.progress.report(Stage::Graph, samples, Some(samples));
        Ok(first)
    }

    /// Starts the refresh worker and the producer.
    async fn spawn(
        self,
        run: RunStart,
        worker: Worker,
        handle: RefreshHandle,
        row_columns: RowColumns,
    ) -> Result<MiniBatchStream> {
        let RunStart { state, folder: checkpoint_folder, delivered, .. } = run;
        let PipelineConfig { walk, stream, seed, .. } = self.config;
        let (tx, rx) = mpsc::channel(stream.prefetch);
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(worker, tx.downgrade()));

        let settings = ProducerSettings { row_columns, walk, stream, seed };
        let published = handle.published();
        let begun_from = state.clone();
        let folder = checkpoint_folder.clone();
        let build = move || Producer::new(settings, published, &begun_from, folder);
        let producer = self.pool.run("producer", build).await?;
        let shared = producer.shared();
        let schema = producer.schema();
        tasks.spawn(producer.run(tx));
        let parts = StreamParts { rx, delivered, tasks, handle, shared, schema, state, checkpoint_folder };
        Ok(MiniBatchStream::new(parts))
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
