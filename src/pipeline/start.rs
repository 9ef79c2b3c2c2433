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
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::PipelineBuilder;
use super::checks::{check_sample_count, check_settings, check_values};
use super::harm::warn_of_harm;
use super::open::{Given, Opened, open, open_backend};
#[cfg(feature = "metrics")]
use super::watching::Watching;
use crate::checkpoint::{self, CheckpointFolder, RunStart};
use crate::compute::ComputePool;
use crate::config::{JUDGES_NOTHING, PipelineConfig};
use crate::encode::{EmbeddingCache, Encoder};
use crate::error::{Error, Result, TooFewError};
use crate::panics::guarded_future;
use crate::progress::{ProgressSink, Stage};
use crate::refresh::{
    Beginning, CancelOnDrop, CancellableEncoder, DrawnFrom, FirstEmbeddings, ModelWatch, RefreshContext, RefreshHandle,
    SharedFolder, TrainerSteps, Worker,
};
use crate::source::Source;
use crate::store::Store;
#[cfg(feature = "metrics")]
use crate::stream::Course;
use crate::stream::{MiniBatch, MiniBatchStream, Producer, ProducerSettings, RowColumns, StreamParts};
use crate::telemetry;

pub(super) async fn start(builder: PipelineBuilder) -> Result<MiniBatchStream> {
    let PipelineBuilder { mut config, source, corpus, encoder, guide, state, progress, is_for_all_ranks } = builder;
    // What is given in code is checked, and told to states, as what is given by settings.
    config.pairs.corpus.extend(corpus.iter().map(|corpus| corpus.uri().to_owned()));
    if guide.is_some() && config.bounds().is_empty() {
        return Err(Error::setting("guards.guide", JUDGES_NOTHING));
    }
    let ranks = if is_for_all_ranks { 1 } else { config.stream.world_size };
    check_settings(&config, source.is_some(), ranks)?;
    let config = config.resolved(ranks);
    #[cfg(feature = "metrics")]
    let (watching, progress) = Watching::begin(&config, ranks, progress).await?;
    let pool = ComputePool::new(config.compute.threads)?;
    let opened = open(&config, Given { source, corpus, encoder, guide }, &pool).await?;

    let startup = Startup {
        config,
        pool,
        progress,
        ranks,
        #[cfg(feature = "metrics")]
        watching,
    };
    let store = startup.build_store(&opened).await?;
    let opened = startup.with_equal_epochs(opened).await?;
    check_sample_count(opened.source.as_ref(), store.len(), &startup.config.walk)?;
    let guide = opened.guide_checksum.clone();
    let run = checkpoint::begin(store, state, guide, &startup.config).await?;
    let folder = run.folder.clone();
    let (context, encoder, model_watch, row_columns) = startup.context(opened, folder).await?;
    let (run, beginning) = startup.beginning(&context, run, &encoder).await?;
    // The worker may have a newer snapshot before the producer has begun.
    let from = beginning.drawn_from.clone();
    let (asked, asked_for) = watch::channel(0);
    let steps = TrainerSteps { delivered: run.delivered.subscribe(), asked: asked_for };
    let (worker, handle) = Worker::new(context, beginning, encoder, model_watch, steps);
    startup.spawn(run, from, asked, worker, handle, row_columns).await
}

/// Checks settings, source and encoders as a start does before it reads any rows, and returns the encoder, and the
/// guide if there is one.
#[cfg(feature = "cli")]
pub(crate) async fn dry_start(config: PipelineConfig) -> Result<(Arc<dyn Encoder>, Option<Arc<dyn Encoder>>)> {
    let ranks = config.stream.world_size;
    check_settings(&config, false, ranks)?;
    let config = config.resolved(ranks);
    let pool = ComputePool::new(config.compute.threads)?;
    let opened = open(&config, Given::default(), &pool).await?;
    open_backend(&config, &pool).await?;
    Ok((opened.encoder, opened.guide))
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
        Store::build(source, &opened.stored_columns, &self.config.store, &mut report).await
    }

    /// Epochs of as many samples as those of all other shards.
    async fn with_equal_epochs(&self, mut opened: Opened) -> Result<Opened> {
        if let Some(shard) = &opened.shard {
            let sizes = shard.sizes().await?;
            let least = sizes.iter().copied().min().unwrap_or(0);
            telemetry::shards(&sizes);
            if least < self.config.walk.batch_size.max(2) as u64 {
                let reason = "make a mini-batch, in the smallest of the shards; lower shard.count or \
                              walk.batch_size";
                return Err(TooFewError::Samples {
                    uri: shard.uri().to_owned(),
                    filter: shard.filter().map(str::to_owned),
                    found: least as usize,
                    needed: self.config.walk.batch_size.max(2),
                    reason: reason.to_owned(),
                }
                .into());
            }
            let least = least as usize;
            let most = opened.row_rules.epoch_samples.unwrap_or(least);
            opened.row_rules.epoch_samples = Some(most.min(least));
        }
        Ok(opened)
    }

    /// What the first snapshot shares with all refreshes, and what is left of `opened`.
    async fn context(
        &self,
        opened: Opened,
        checkpoint_folder: Option<CheckpointFolder>,
    ) -> Result<(Arc<RefreshContext>, Arc<dyn Encoder>, Option<ModelWatch>, RowColumns)> {
        let Opened { source, encoder, guide, model_watch, row_columns, row_rules, reads_vectors, .. } = opened;
        let config = self.config.clone();
        let context = RefreshContext {
            source: source.into(),
            row_rules,
            guide,
            storage: config.encode.storage,
            on_bad_sample: config.encode.on_bad_sample,
            similarity: config.similarity(),
            within: config.pairs.within,
            pool: self.background_pool()?,
            backend: open_backend(&config, &self.pool).await?,
            refresh: config.refresh.clone(),
            seed: config.seed,
            batch_size: config.walk.batch_size,
            has_starts: config.walk.sampler.has_starts(),
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
        };
        Ok((context.into(), encoder, model_watch, row_columns))
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
        let cancel = CancelOnDrop(Arc::default());
        let mut report = self.encode_report(store.len(), &cancel);
        let beginning = if let Some(snapshot) = run.snapshot.take() {
            let restore = move || Beginning::restored(&shared, store, snapshot, waiting, &mut report);
            self.pool.run("graph", restore).await?
        } else if run.state.graph_version == 0 {
            let waiting_guards = self.guards_that_wait(context.guide.is_some());
            if !waiting_guards.is_empty() {
                telemetry::guards_wait(&waiting_guards);
            }
            self.pool.run("graph", move || Beginning::unembedded(&shared, store, waiting, &mut report)).await?
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

    /// What waits for embeddings in a warm-up: the guard by ranks of a graph and, if no guide judges them, all bounds
    /// on similarity.
    fn guards_that_wait(&self, has_guide: bool) -> Vec<&'static str> {
        let by_rank = (self.config.guards.skip_nearest > 0).then_some("guards.skip_nearest");
        let bounds = if has_guide { Vec::new() } else { self.config.bounds() };
        bounds.into_iter().chain(by_rank).collect()
    }

    /// Reports how many of `total` samples are embedded, and fails once the work is cancelled.
    fn encode_report(&self, total: usize, cancel: &CancelOnDrop) -> impl FnMut(usize) -> Result<()> + use<> {
        let (progress, cancelled) = (self.progress.clone(), cancel.0.clone());
        move |done| {
            progress.report(Stage::Encode, done, Some(total));
            if cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
        }
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
        let mut report = self.encode_report(store.len(), &cancel);
        let progress = self.progress.clone();
        let make = move || {
            report(0)?;
            let table = context.embed_all(&encoder, &store, &mut report)?;
            let facts = context.row_facts(&store, None, &mut report)?;
            progress.report(Stage::Graph, 0, Some(store.len()));
            let mut wait = |_| encoder.check();
            let first = FirstEmbeddings::at_start(table, facts);
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
