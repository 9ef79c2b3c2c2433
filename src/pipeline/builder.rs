use std::sync::Arc;

use super::start::start;
use crate::checkpoint::State;
use crate::config::{
    CheckpointConfig, ComputeConfig, EncodeConfig, GraphConfig, GuardsConfig, MaskConfig, MetricsConfig, PairsConfig,
    PipelineConfig, RefreshConfig, StoreConfig, StreamConfig, WalkConfig,
};
use crate::encode::Encoder;
use crate::error::Result;
use crate::progress::{Progress, ProgressSink};
use crate::source::Source;
use crate::stream::MiniBatchStream;

/// A pipeline that has not started. Each setter replaces all settings of its stage.
///
/// ```
/// use std::sync::Arc;
/// use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch};
/// use prosampler::arrow::datatypes::Float32Type;
/// use prosampler::config::{GraphConfig, WalkConfig};
/// use prosampler::{Pipeline, encode::ColumnEncoder, source::MemorySource};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Embeddings that are in the data already; an `OnnxEncoder` makes them of texts or images.
/// let vector = |i: i32| Some([Some((i as f32).sin()), Some((i as f32).cos())]);
/// let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..100).map(vector), 2);
/// let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)])?;
/// let stream = Pipeline::builder()
///     .encoder(ColumnEncoder::new(&rows.schema(), "vector")?)
///     .source(MemorySource::new(vec![rows])?)
///     .graph(GraphConfig { candidates: 20.into(), neighbors: Some(5), ..GraphConfig::default() })
///     .walk(WalkConfig { batch_size: 32, ..WalkConfig::default() })
///     .seed(7)
///     .start()
///     .await?;
/// assert_eq!((stream.samples(), stream.mini_batches_per_epoch()), (100, 4));
/// # Ok(())
/// # }
/// ```
pub struct PipelineBuilder {
    pub(crate) config: PipelineConfig,
    pub(super) source: Option<GivenRows>,
    pub(super) corpus: Option<Box<dyn Source>>,
    pub(super) encoder: Option<Arc<dyn Encoder>>,
    pub(super) guide: Option<Arc<dyn Encoder>>,
    pub(super) state: Option<State>,
    pub(super) progress: ProgressSink,
    /// Whether mini-batches have the shares of all ranks.
    pub(super) is_for_all_ranks: bool,
}

/// Rows that are given in code.
pub(super) enum GivenRows {
    One(Box<dyn Source>),
    /// Of several sources, by name.
    Several(Vec<(String, Box<dyn Source>)>),
}

impl PipelineBuilder {
    pub(super) fn new(config: PipelineConfig) -> Self {
        Self {
            config,
            source: None,
            corpus: None,
            encoder: None,
            guide: None,
            state: None,
            progress: ProgressSink::new(|_| {}),
            is_for_all_ranks: false,
        }
    }

    /// Sets the source of the rows; replaces `source.uri`.
    #[must_use]
    pub fn source(mut self, source: impl Source) -> Self {
        self.source = Some(GivenRows::One(Box::new(source)));
        self
    }

    /// Sets several sources of the rows, each with its name; replaces the uris of `[[sources]]`. What is set there for
    /// a source of that name holds for it.
    #[must_use]
    pub fn sources<N: Into<String>, S: Source>(mut self, sources: impl IntoIterator<Item = (N, S)>) -> Self {
        let sources = sources.into_iter().map(|(name, source)| (name.into(), Box::new(source) as Box<dyn Source>));
        self.source = Some(GivenRows::Several(sources.collect()));
        self
    }

    /// Sets more positives than those of the pairs, for explicit negatives; replaces `pairs.corpus`, which says what it
    /// needs.
    #[must_use]
    pub fn corpus(mut self, source: impl Source) -> Self {
        self.corpus = Some(Box::new(source));
        self
    }

    /// Sets the columns that mini-batches carry; default all.
    #[must_use]
    pub fn columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.config.source.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the encoder that makes the embeddings; replaces `encode.model`.
    #[must_use]
    pub fn encoder(mut self, encoder: impl Encoder) -> Self {
        self.encoder = Some(Arc::new(encoder));
        self
    }

    /// Sets a frozen encoder that judges which samples are too similar; replaces `[guards.guide]`.
    ///
    /// If rows are pairs it must embed both sides, best as a [`PairEncoder`](crate::encode::PairEncoder).
    #[must_use]
    pub fn guide(mut self, guide: impl Encoder) -> Self {
        self.guide = Some(Arc::new(guide));
        self
    }

    /// Sets how rows become embeddings.
    ///
    /// If an [`encoder`](Self::encoder) is given, only `storage`, `on_bad_sample` and the cache apply.
    #[must_use]
    pub fn encode(mut self, encode: EncodeConfig) -> Self {
        self.config.encode = encode;
        self
    }

    /// Sets the random seed; default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Sets how the rows are stored.
    #[must_use]
    pub fn store(mut self, store: StoreConfig) -> Self {
        self.config.store = store;
        self
    }

    /// Sets how the graph is built.
    #[must_use]
    pub fn graph(mut self, graph: GraphConfig) -> Self {
        self.config.graph = graph;
        self
    }

    /// Sets how mini-batches are drawn.
    #[must_use]
    pub fn walk(mut self, walk: WalkConfig) -> Self {
        self.config.walk = walk;
        self
    }

    /// Sets which columns are an anchor and its positive.
    ///
    /// An [`encoder`](Self::encoder) that is given must embed both, best as a
    /// [`PairEncoder`](crate::encode::PairEncoder).
    #[must_use]
    pub fn pairs(mut self, pairs: PairsConfig) -> Self {
        self.config.pairs = pairs;
        self
    }

    /// Sets what keeps likely false negatives out of mini-batches.
    #[must_use]
    pub fn guards(mut self, guards: GuardsConfig) -> Self {
        self.config.guards = guards;
        self
    }

    /// Sets which samples may share a mini-batch without being negatives of each other.
    #[must_use]
    pub fn mask(mut self, mask: MaskConfig) -> Self {
        self.config.mask = mask;
        self
    }

    /// Sets when the graph is refreshed.
    #[must_use]
    pub fn refresh(mut self, refresh: RefreshConfig) -> Self {
        self.config.refresh = refresh;
        self
    }

    /// Sets how mini-batches are delivered.
    #[must_use]
    pub fn stream(mut self, stream: StreamConfig) -> Self {
        self.config.stream = stream;
        self
    }

    /// Sets how many threads do the heavy work.
    #[must_use]
    pub fn compute(mut self, compute: ComputeConfig) -> Self {
        self.config.compute = compute;
        self
    }

    /// Sets what the run keeps on disk to be resumed from.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: CheckpointConfig) -> Self {
        self.config.checkpoint = checkpoint;
        self
    }

    /// Sets where the run can be watched while it goes on.
    #[must_use]
    pub fn metrics(mut self, metrics: MetricsConfig) -> Self {
        self.config.metrics = metrics;
        self
    }

    /// Resumes an earlier run from its [`state`](MiniBatchStream::state).
    ///
    /// Rows, settings and [`checkpoint.dir`](CheckpointConfig) must be the same.
    #[must_use]
    pub fn resume(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Gives mini-batches the shares of all ranks, one after another, and not that of `stream.rank` alone.
    #[cfg(feature = "serve")]
    pub(crate) fn for_all_ranks(mut self) -> Self {
        self.is_for_all_ranks = true;
        self
    }

    /// Sets a listener for the progress of the start.
    ///
    /// It is called from several threads, one at a time, and should return quickly.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.progress = ProgressSink::new(progress);
        self
    }

    /// Reads the source, embeds all samples, builds the first graph, and starts the stream.
    ///
    /// Must be called within a tokio runtime, which runs the pipeline's tasks from then on. Dropping the future cancels
    /// the start: embedding stops at the next record batch.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for settings out of range or without a source or encoder;
    /// [`TooFewError::Samples`](crate::error::TooFewError::Samples) for an empty data set, a single sample, or fewer
    /// than a mini-batch holds; whatever source, store and encoder report.
    pub async fn start(self) -> Result<MiniBatchStream> {
        start(self).await
    }
}

impl std::fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipelineBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
