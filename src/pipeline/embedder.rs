use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::OnceCell;

use super::checks::check_settings;
use super::open::open_encoder;
use crate::compute::ComputePool;
use crate::config::{PipelineConfig, Storage, StoreConfig};
use crate::embeddings::EmbeddingTable;
use crate::encode::{BadSamples, EmbeddingCache, Encoder, TableSettings, encode_present};
use crate::error::{Error, Result};
use crate::refresh::{CancelOnDrop, CancellableEncoder};
use crate::sample::ModelVersion;
use crate::source::Source;
use crate::store::{Store, decoded_schema};

/// Embeds rows as a run with the same settings does, without a run.
///
/// It is for embedding elsewhere, such as on the nodes of a cluster: open one in each process and give it the rows part
/// by part. With an `encode.cache_dir`, vectors are read from there and kept there, under the model's identity and the
/// content of the rows, 8,192 rows a file. So parts of 8,192 rows, in the order of the source, are what a run over all
/// of them finds, and what an earlier run has embedded is not embedded again.
///
/// Only `encode`, `pairs`, `compute` and `graph.similarity` of the settings matter; texts of `pairs.corpus` are not
/// embedded.
///
/// ```
/// use std::sync::Arc;
/// use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch};
/// use prosampler::arrow::datatypes::Float32Type;
/// use prosampler::config::{EncodeConfig, FeatureKind};
/// use prosampler::source::MemorySource;
/// use prosampler::{Embedder, PipelineConfig, SampleId};
///
/// # #[tokio::main]
/// # async fn main() -> prosampler::Result<()> {
/// let column = Some("vector".to_owned());
/// let encode = EncodeConfig { feature: Some(FeatureKind::Vector), column, ..EncodeConfig::default() };
/// let config = PipelineConfig { encode, ..PipelineConfig::default() };
/// let vectors = [[3.0, 4.0], [0.0, 2.0]].map(|vector| Some(vector.map(Some)));
/// let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 2);
/// let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)]).unwrap();
/// let table = Embedder::new(config)?.embed(MemorySource::new(vec![rows])?).await?;
/// assert_eq!(table.get(SampleId(0))[..], [0.6, 0.8]);
/// # Ok(())
/// # }
/// ```
pub struct Embedder {
    config: PipelineConfig,
    pool: ComputePool,
    cache: Option<Arc<EmbeddingCache>>,
    /// Opened for the first rows, whose columns it needs.
    encoder: OnceCell<Arc<dyn Encoder>>,
}

impl Embedder {
    /// An embedder with the settings of a run; `source.uri` has no effect. The model is opened with the first rows.
    ///
    /// # Errors
    /// [`Error::Config`] with all faults of the settings; [`Error::System`] if the system refuses threads.
    pub fn new(config: PipelineConfig) -> Result<Self> {
        check_settings(&config, true, 1)?;
        let mut config = config.resolved(1);
        config.pairs.corpus.clear();
        let pool = ComputePool::new(config.compute.threads)?;
        Ok(Self { pool, cache: EmbeddingCache::of(&config), config, encoder: OnceCell::new() })
    }

    /// The same with an encoder that replaces `encode.model`.
    #[must_use]
    pub fn with_encoder(self, encoder: impl Encoder) -> Self {
        Self { encoder: OnceCell::new_with(Some(Arc::new(encoder))), ..self }
    }

    /// Embeds rows: vectors [rows × d] in f32, of unit length for cosine, and for pairs how similar the two are.
    ///
    /// All rows must have the columns that the first ones had. Takes the disk that their columns take meanwhile, and
    /// the memory of the vectors.
    ///
    /// # Errors
    /// Those of reading the rows and of the encoder; a row that cannot be embedded is an error, or is skipped in the
    /// table, as `encode.on_bad_sample` says.
    pub async fn embed(&self, rows: impl Source) -> Result<EmbeddingTable> {
        let Self { config, pool, .. } = self;
        let schema = Arc::new(decoded_schema(&rows.schema()));
        let open = || open_encoder(config.encode.clone(), config.pairs.clone(), schema.clone(), pool);
        let encoder = self.encoder.get_or_try_init(open).await?.clone();
        encoder.accepts(rows.uri(), &schema)?;
        let store = Store::build(&rows, encoder.columns(), &StoreConfig::default(), &mut |_| ()).await?;
        let cancel = CancelOnDrop(Arc::default());
        let cancelled = cancel.0.clone();
        let encoder = CancellableEncoder { encoder, cancelled: cancelled.clone() };
        let bad = BadSamples { on_bad_sample: config.encode.on_bad_sample, skipped_before: 0 };
        let similarity = config.similarity();
        let settings = TableSettings { storage: Storage::F32, similarity, model_version: ModelVersion::default() };
        let cache = self.cache.clone();
        let mut progress = move |_| if cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) };
        let embed = move || encode_present(&encoder, &store, bad, settings, cache.as_deref(), &mut progress);
        pool.run("encode", embed).await
    }

    /// How many rows' vectors were read from `encode.cache_dir` so far.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.cache.as_ref().map_or(0, |cache| cache.reused())
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("encode", &self.config.encode).finish_non_exhaustive()
    }
}
