//! Wires the stages, and owns the tasks.

mod checks;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::checks::{check, enough, enough_left, selection, together};
use crate::checkpoint::{self, Begin, Checkpoints, State};
use crate::compute::ComputePool;
use crate::config::{
    CheckpointConfig, ComputeConfig, EncodeConfig, GraphConfig, GuardsConfig, PairsConfig, PipelineConfig,
    RefreshConfig, StoreConfig, StreamConfig, WalkConfig,
};
#[cfg(feature = "onnx")]
use crate::device::choose as choose_device;
use crate::encode::{BadSamples, EmbeddingCache, Encoder, encode_present};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::panics::guarded_future;
use crate::progress::{Progress, Stage};
use crate::refresh::{CancelOnDrop, CancellableEncoder, InitialSnapshot, ModelWatch, RefreshContext, Worker};
use crate::sample::ModelVersion;
use crate::source::{self, Source};
use crate::store::{Store, decoded_schema};
use crate::stream::{MiniBatch, MiniBatchStream, Producer};

/// From a source and an encoder to a stream of hard-negative mini-batches.
///
/// See the [crate's example](crate#example).
#[derive(Clone, Copy, Debug)]
pub struct Pipeline;

impl Pipeline {
    /// A pipeline with every setting at its default; it needs a source and an encoder.
    #[must_use]
    pub fn builder() -> PipelineBuilder {
        Self::from_config(PipelineConfig::default())
    }

    /// A pipeline with these settings, as a pipeline file gives them. Source and encoder are opened when it starts,
    /// unless they are given before.
    #[must_use]
    pub fn from_config(config: PipelineConfig) -> PipelineBuilder {
        PipelineBuilder { config, source: None, encoder: None, state: None, progress: Box::new(|_| {}) }
    }
}

/// A pipeline that has not started. Setters take over a whole stage's settings.
pub struct PipelineBuilder {
    config: PipelineConfig,
    source: Option<Box<dyn Source>>,
    encoder: Option<Arc<dyn Encoder>>,
    state: Option<State>,
    progress: Box<dyn FnMut(Progress) + Send>,
}

impl PipelineBuilder {
    /// Where the rows come from; replaces `source.uri`.
    #[must_use]
    pub fn source(mut self, source: impl Source) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The columns that mini-batches carry; default all.
    #[must_use]
    pub fn columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.config.source.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// What makes the embeddings; replaces `encode.model`.
    #[must_use]
    pub fn encoder(mut self, encoder: impl Encoder) -> Self {
        self.encoder = Some(Arc::new(encoder));
        self
    }

    /// How rows become embeddings; of these settings `storage` and `on_bad_sample` count for an
    /// [`encoder`](Self::encoder) that is given too.
    #[must_use]
    pub fn encode(mut self, encode: EncodeConfig) -> Self {
        self.config.encode = encode;
        self
    }

    /// The random seed; default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Where the rows are kept.
    #[must_use]
    pub fn store(mut self, store: StoreConfig) -> Self {
        self.config.store = store;
        self
    }

    /// How the graph is made.
    #[must_use]
    pub fn graph(mut self, graph: GraphConfig) -> Self {
        self.config.graph = graph;
        self
    }

    /// How mini-batches are drawn.
    #[must_use]
    pub fn walk(mut self, walk: WalkConfig) -> Self {
        self.config.walk = walk;
        self
    }

    /// Which columns are an anchor and its positive. An [`encoder`](Self::encoder) that is given embeds both, best as a
    /// [`PairEncoder`](crate::encode::PairEncoder).
    #[must_use]
    pub fn pairs(mut self, pairs: PairsConfig) -> Self {
        self.config.pairs = pairs;
        self
    }

    /// What keeps likely false negatives out of mini-batches.
    #[must_use]
    pub fn guards(mut self, guards: GuardsConfig) -> Self {
        self.config.guards = guards;
        self
    }

    /// When the graph is made anew.
    #[must_use]
    pub fn refresh(mut self, refresh: RefreshConfig) -> Self {
        self.config.refresh = refresh;
        self
    }

    /// How mini-batches are handed out.
    #[must_use]
    pub fn stream(mut self, stream: StreamConfig) -> Self {
        self.config.stream = stream;
        self
    }

    /// How many threads do the heavy work.
    #[must_use]
    pub fn compute(mut self, compute: ComputeConfig) -> Self {
        self.config.compute = compute;
        self
    }

    /// What the run leaves on disk to be resumed from.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: CheckpointConfig) -> Self {
        self.config.checkpoint = checkpoint;
        self
    }

    /// Goes on from a [`state`](MiniBatchStream::state) of an earlier run over the same rows and settings, with its
    /// [`checkpoint.dir`](CheckpointConfig).
    #[must_use]
    pub fn resume(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Hears how far the start has come. Called from several threads, one at a time; it should return quickly.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Reads the source, embeds all samples, builds the first graph, and starts the stream. Must be called within a
    /// tokio runtime, whose tasks the pipeline then is. Dropping the future ends its work: embedding stops at the next
    /// record batch.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for settings out of range or without a source or encoder;
    /// [`Error::TooFewSamples`](crate::Error::TooFewSamples) for an empty data set, a single sample, or fewer than a
    /// mini-batch holds; whatever source, store and encoder report.
    pub async fn start(self) -> Result<MiniBatchStream> {
        let Self { config, source, encoder, state, mut progress } = self;
        check(&config, source.is_some())?;
        let pool = ComputePool::new(config.compute.threads)?;
        let source = match source {
            Some(source) => source::filtered(source, config.source.filter.as_deref())?,
            None => source::open(&config.source).await?,
        };
        // As the store has it: nobody behind it need know of dictionaries.
        let schema: SchemaRef = decoded_schema(&source.schema()).into();
        let all = || schema.fields().iter().map(|f| f.name().clone()).collect();
        let payload: Vec<String> = config.source.columns.clone().unwrap_or_else(all);
        crate::source::positions(source.uri(), &schema, &payload)?;
        if let Some(label) = &config.report.label {
            crate::source::positions(source.uri(), &schema, std::slice::from_ref(label))?;
        }
        if let Some(rows) = source.rows() {
            enough(source.as_ref(), rows, &config.walk)?;
        }
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => open_encoder(&config, schema.clone(), &pool).await?,
        };
        // From here on: the first embeddings may take hours, in which a newer model may come.
        let watch = if config.refresh.watch_model { ModelWatch::open(encoder.as_ref()).await } else { None };
        let mut columns = payload.clone();
        let paired = config.pairs.columns().into_iter().flatten();
        for column in encoder.columns().iter().chain(paired).chain(&config.guards.distinct) {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        crate::source::positions(source.uri(), &schema, &columns)?;
        encoder.accepts(source.uri(), &schema)?;
        let selection = selection(&config, &payload, encoder.as_ref(), &schema)?;
        let total = source.rows();
        let mut stored = |done| progress(Progress { stage: Stage::Store, done, total });
        stored(0);
        let store = Store::build(source.as_ref(), &columns, &config.store, &mut stored).await?;
        enough(source.as_ref(), store.len(), &config.walk)?;

        let pending = config.refresh.swap_after_steps.unwrap_or(0) / config.refresh.every_steps.unwrap_or(u64::MAX);
        let pending = usize::try_from(pending).unwrap_or(0);
        let (delivered, heard) = watch::channel(0);
        let checkpoints = Checkpoints::take(&config.checkpoint, pending, config.stream.rank, heard.clone()).await?;
        let Begin { store, state, kept } = checkpoint::begin(store, state, checkpoints.clone(), &config).await?;
        delivered.send_replace(state.step);
        let resumed = kept.as_ref().map(|_| state.clone());
        let (storage, similarity) = (config.encode.storage, config.graph.similarity);
        let (on_bad_sample, batch_size) = (config.encode.on_bad_sample, config.walk.batch_size);
        let total = Some(store.len());
        let cancel = CancelOnDrop(Arc::default());
        let embeddings = EmbeddingCache::of(&config.encode, &config.store);
        let embed = {
            let (store, cancelled, cache) = (store.clone(), cancel.0.clone(), embeddings.clone());
            move || {
                if let Some((kept, waiting)) = kept {
                    return Ok((encoder, InitialSnapshot::Resumed(kept, waiting), progress));
                }
                let mut encoded = |done| progress(Progress { stage: Stage::Encode, done, total });
                encoded(0);
                let settings = (storage, similarity, ModelVersion(1));
                let bad = BadSamples { on_bad_sample, known: 0 };
                let watched = CancellableEncoder { encoder: encoder.clone(), cancelled };
                let table = encode_present(&watched, &store, bad, settings, cache.as_deref(), &mut encoded)?;
                enough_left(store.uri(), &table, batch_size)?;
                Ok((encoder, InitialSnapshot::Embedded(table), progress))
            }
        };
        let (encoder, first, mut progress) = pool.run("encode", embed).await?;
        progress(Progress { stage: Stage::Graph, done: 0, total });
        let share = (config.refresh.cpu_share * pool.threads() as f64).round().max(1.0);
        let background = ComputePool::in_background(share as usize, config.refresh.gpu_share)?;
        let backend = open_backend(&config, &pool).await?;
        let context = RefreshContext {
            source: source.into(),
            selection,
            storage,
            on_bad_sample,
            similarity,
            backend,
            refresh: config.refresh,
            seed: config.seed,
            pool: background,
            checkpoints: checkpoints.clone(),
            embeddings,
        };
        let (worker, handle) = Worker::start(context, &pool, first, store, encoder, watch, heard).await?;
        let snapshot = handle.snapshot();
        together(&snapshot, &config.walk, &config.guards, &config.pairs)?;
        let done = snapshot.embeddings.len();
        progress(Progress { stage: Stage::Graph, done, total });

        let (tx, rx) = mpsc::channel(config.stream.prefetch);
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(worker, tx.downgrade()));
        let (published, of_producer) = (handle.published(), checkpoints.clone());
        let producer =
            move || Producer::new(published, config.walk, &config.stream, config.seed, resumed.as_ref(), of_producer);
        let (producer, shared) = pool.run("producer", producer).await?;
        tasks.spawn(producer.run(tx));
        Ok(MiniBatchStream::new(rx, delivered, tasks, handle, shared, (state, checkpoints)))
    }
}

/// Runs the worker, and lets the stream end with what ended it.
async fn supervise(worker: Worker, tx: mpsc::WeakSender<Result<MiniBatch>>) {
    let ended = guarded_future(worker.run()).await;
    let error = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(message) => Error::TaskDied { task: "refresh", message },
    };
    if let Some(tx) = tx.upgrade() {
        // Nobody there to hear it: then nobody needs to.
        let _ = tx.send(Err(error)).await;
    }
}

impl std::fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipelineBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the settings say that graphs are built on. A device that they ask for is tried.
async fn open_backend(config: &PipelineConfig, pool: &ComputePool) -> Result<Backend> {
    let (wanted, encode) = (config.graph.device, config.encode.clone());
    let device = pool.run("device", move || choose_device(wanted, &encode)).await?;
    Ok(Backend::new(config.graph.clone(), device))
}

#[cfg(not(feature = "onnx"))]
fn choose_device(
    wanted: crate::config::GraphDevice,
    _: &EncodeConfig,
) -> Result<Option<Arc<dyn crate::graph::Device>>> {
    match wanted {
        crate::config::GraphDevice::Cuda => {
            let message = "is `cuda`, but this build runs no ONNX Runtime (cargo feature `onnx`); set it to `cpu`";
            Err(checks::fault("graph.device", message.into()))
        }
        _ => Ok(None),
    }
}

async fn open_encoder(config: &PipelineConfig, schema: SchemaRef, pool: &ComputePool) -> Result<Arc<dyn Encoder>> {
    let (encode, pairs) = (config.encode.clone(), config.pairs.clone());
    pool.run("model", move || crate::encode::open_of(&encode, &pairs, &schema)).await
}
