//! Starts a pipeline, stage by stage. In parentheses is what a stage hands on.
//!
//! 1. `open` opens the source and the encoder, and looks their columns up ([`Opened`]).
//! 2. `build_store` reads the rows ([`Store`]).
//! 3. `checkpoint::begin` takes the checkpoint folder and looks up where the run stands ([`RunStart`]).
//! 4. `context` gathers what the first snapshot shares with all refreshes ([`RefreshContext`]).
//! 5. `beginning` embeds all samples and builds the graph, or restores the snapshot that an earlier run has left
//!    ([`Beginning`]). In a warm-up it does neither: the worker makes the first snapshot later.
//! 6. `spawn` starts the tasks of the run: the worker of refreshes and the producer ([`MiniBatchStream`]).

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::PipelineBuilder;
use super::checks::{check_sample_count, check_settings, check_values};
use super::harm::warn_of_harm;
use super::open::{Opened, open, open_backend};
#[cfg(feature = "metrics")]
use super::watching::Watching;
use crate::checkpoint::{self, CheckpointFolder, RunStart};
use crate::compute::ComputePool;
use crate::config::PipelineConfig;
use crate::encode::{EmbeddingCache, Encoder};
use crate::error::{Error, Result};
use crate::panics::guarded_future;
use crate::progress::{ProgressSink, Stage};
use crate::refresh::{
    Beginning, CancelOnDrop, CancellableEncoder, DrawnFrom, FirstEmbeddings, RefreshContext, RefreshHandle, RowRules,
    SharedFolder, TrainerSteps, Worker,
};
use crate::source::Source;
use crate::store::Store;
#[cfg(feature = "metrics")]
use crate::stream::Course;
use crate::stream::{MiniBatch, MiniBatchStream, Producer, ProducerSettings, RowColumns, StreamParts};
use crate::telemetry;

pub(super) async fn start(builder: PipelineBuilder) -> Result<MiniBatchStream> {
    let PipelineBuilder { config, source, encoder, state, progress, is_for_all_ranks } = builder;
    let ranks = if is_for_all_ranks { 1 } else { config.stream.world_size };
    check_settings(&config, source.is_some(), ranks)?;
    let config = config.resolved(ranks);
    #[cfg(feature = "metrics")]
    let (watching, progress) = Watching::begin(&config, ranks, progress).await?;
    let pool = ComputePool::new(config.compute.threads)?;
    let opened = open(&config, source, encoder, &pool).await?;

    let startup = Startup {
        config,
        pool,
        progress,
        ranks,
        #[cfg(feature = "metrics")]
        watching,
    };
    let store = startup.build_store(&opened).await?;
    let run = checkpoint::begin(store, state, &startup.config).await?;
    let Opened { source, encoder, model_watch, row_columns, row_rules, reads_vectors, .. } = opened;
    let context = startup.context(source.into(), row_rules, reads_vectors, run.folder.clone()).await?;
    let context = Arc::new(context);
    let (run, beginning) = startup.beginning(&context, run, &encoder).await?;
    // The worker may have a newer snapshot before the producer has begun.
    let from = beginning.drawn_from.clone();
    let (asked, asked_for) = watch::channel(0);
    let steps = TrainerSteps { delivered: run.delivered.subscribe(), asked: asked_for };
    let (worker, handle) = Worker::new(context, beginning, encoder, model_watch, steps);
    startup.spawn(run, from, asked, worker, handle, row_columns).await
}

/// Checks settings, source and encoder as a start does before it reads any rows, and returns the encoder.
#[cfg(feature = "cli")]
pub(crate) async fn dry_start(config: PipelineConfig) -> Result<Arc<dyn Encoder>> {
    let ranks = config.stream.world_size;
    check_settings(&config, false, ranks)?;
    let config = config.resolved(ranks);
    let pool = ComputePool::new(config.compute.threads)?;
    let opened = open(&config, None, None, &pool).await?;
    open_backend(&config, &pool).await?;
    Ok(opened.encoder)
}

/// What all stages of a start use.
struct Startup {
    config: PipelineConfig,
    /// How many processes the run has. One process may make the shares of all ranks.
    ranks: usize,
    pool: ComputePool,
    progress: ProgressSink,
    /// `None` unless the run is watched.
    #[cfg(feature = "metrics")]
    watching: Option<Watching>,
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

    /// What the first snapshot shares with all refreshes.
    async fn context(
        &self,
        source: Arc<dyn Source>,
        row_rules: RowRules,
        reads_vectors: Option<String>,
        checkpoint_folder: Option<CheckpointFolder>,
    ) -> Result<RefreshContext> {
        let config = self.config.clone();
        Ok(RefreshContext {
            source,
            row_rules,
            storage: config.encode.storage,
            on_bad_sample: config.encode.on_bad_sample,
            similarity: config.similarity(),
            within: config.pairs.within,
            pool: self.background_pool()?,
            backend: open_backend(&config, &self.pool).await?,
            refresh: config.refresh.clone(),
            seed: config.seed,
            batch_size: config.walk.batch_size,
            ranks: self.ranks,
            checkpoint_folder,
            embedding_cache: EmbeddingCache::of(&config),
            shared: SharedFolder::of(&config).filter(|_| self.ranks > 1),
            reads_vectors,
            check_first: Box::new(move |snapshot| {
                check_values(snapshot, &config)?;
                warn_of_harm(snapshot, &config.guards);
                Ok(())
            }),
        })
    }

    /// The pool of refreshes, whose threads give way to all others.
    fn background_pool(&self) -> Result<ComputePool> {
        let threads = (self.config.refresh.cpu_share * self.pool.threads() as f64).round().max(1.0);
        ComputePool::in_background(threads as usize, self.config.refresh.gpu_share)
    }

    /// What the run draws from first.
    ///
    /// That is the snapshot of the run that is resumed, rows alone if the run has a warm-up and no snapshot, or else a
    /// new snapshot. Dropping the future stops at the next record batch.
    async fn beginning(
        &self,
        context: &Arc<RefreshContext>,
        mut run: RunStart,
        encoder: &Arc<dyn Encoder>,
    ) -> Result<(RunStart, Beginning)> {
        let begun = Instant::now();
        let waiting = std::mem::take(&mut run.waiting);
        let (store, shared) = (run.store.clone(), context.clone());
        let beginning = if let Some(snapshot) = run.snapshot.take() {
            self.pool.run("graph", move || Beginning::restored(&shared, store, snapshot, waiting)).await?
        } else if run.state.graph_version == 0 {
            let mut guards = self.config.guards.waiting_for_embeddings();
            guards.extend(self.config.mask.waiting_for_embeddings());
            guards.extend(self.config.walk.waiting_for_embeddings());
            if !guards.is_empty() {
                telemetry::guards_wait(&guards);
            }
            self.pool.run("graph", move || Beginning::unembedded(&shared, store, waiting)).await?
        } else {
            self.first_snapshot(shared, store, encoder.clone()).await?
        };
        if let Some(snapshot) = beginning.drawn_from.snapshot() {
            let seconds = begun.elapsed().as_secs_f64();
            telemetry::published(snapshot.graph_version(), snapshot.model_version(), run.state.step, seconds);
            let samples = snapshot.embeddings.len();
            self.progress.report(Stage::Graph, samples, Some(samples));
        }
        Ok((run, beginning))
    }

    /// Embeds all samples, or takes their vectors from the cache, and builds the graph.
    async fn first_snapshot(
        &self,
        context: Arc<RefreshContext>,
        store: Store,
        encoder: Arc<dyn Encoder>,
    ) -> Result<Beginning> {
        let cancel = CancelOnDrop(Arc::default());
        let encoder = CancellableEncoder { encoder, cancelled: cancel.0.clone() };
        let progress = self.progress.clone();
        let make = move || {
            let total = Some(store.len());
            let mut report = |done| {
                progress.report(Stage::Encode, done, total);
                encoder.check()
            };
            report(0)?;
            let table = context.embed_all(&encoder, &store, &mut report)?;
            progress.report(Stage::Graph, 0, total);
            let mut wait = |_| encoder.check();
            let first = FirstEmbeddings::at_start(table);
            let snapshot = context.first_snapshot(&encoder, store, first, &mut wait)?;
            Ok(Beginning::embedded(snapshot))
        };
        self.pool.run("encode", make).await
    }

    /// Starts the refresh worker and the producer.
    async fn spawn(
        self,
        run: RunStart,
        from: DrawnFrom,
        asked: watch::Sender<u64>,
        worker: Worker,
        handle: RefreshHandle,
        row_columns: RowColumns,
    ) -> Result<MiniBatchStream> {
        let RunStart { state, folder: checkpoint_folder, delivered, .. } = run;
        let PipelineConfig { walk, stream, refresh, seed, .. } = self.config;
        let is_for_all = self.ranks < stream.world_size;
        let ranks = if is_for_all { 0..stream.world_size } else { stream.rank..stream.rank + 1 };
        let (tx, rx) = mpsc::channel(stream.prefetch);
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(worker, tx.downgrade()));
        #[cfg(feature = "metrics")]
        let waiting = tx.downgrade();

        let waits_for_first = refresh.wait_for_first;
        let settings = ProducerSettings { row_columns, walk, stream, ranks, waits_for_first, seed };
        let published = handle.published();
        let begun_from = state.clone();
        let folder = checkpoint_folder.clone();
        let build = move || Producer::new(settings, published, &from, &begun_from, folder);
        let producer = self.pool.run("producer", build).await?;
        let shared = producer.shared();
        let schema = producer.schema();
        tasks.spawn(producer.run(tx));
        #[cfg(feature = "metrics")]
        let watched = self.watching.map(|watching| {
            let course = Course::new(shared.clone(), waiting);
            watching.go_on(course, handle.clone(), &mut tasks)
        });
        Ok(MiniBatchStream::new(StreamParts {
            rx,
            delivered,
            asked,
            tasks,
            handle,
            shared,
            schema,
            state,
            checkpoint_folder,
            #[cfg(feature = "metrics")]
            watched,
        }))
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
