//! "Here is a pipeline file, give me settings."
//!
//! One struct for each stage, one file for each struct; a section of a pipeline file has the name of its stage. Every
//! field has a default except `source.uri`, `encode.model` and `encode.column`. Unknown keys are refused with the
//! nearest known one, and all faults of a file are reported at once.
//!
//! ```
//! let config = prosampler::config::PipelineConfig::from_toml(
//!     r#"
//!     seed = 7
//!     source.uri = "glosses.parquet"
//!     encode = { model = "model.onnx", column = "definition" }
//!     graph = { candidates = 500, neighbors = 50 }
//!     "#,
//! )?;
//! assert_eq!(config.graph.neighbors, Some(50));
//! assert_eq!(config.walk.batch_size, 256);
//! # Ok::<(), prosampler::Error>(())
//! ```

mod candidates;
mod check;
mod checkpoint;
mod compute;
mod encode;
mod features;
mod graph;
mod guards;
mod mask;
mod metrics;
mod pairs;
mod paths;
mod providers;
mod read;
mod refresh;
mod report;
mod schedule;
mod shape;
mod shard;
mod source;
mod sources;
mod store;
mod stream;
mod views;
mod walk;
mod warm_up;

use std::path::Path;

use serde::Deserialize;

pub use self::candidates::{Candidates, GraphSize};
pub use self::checkpoint::{CheckpointConfig, Resume};
pub use self::compute::ComputeConfig;
pub use self::encode::{EncodeConfig, FeatureKind, OnBadSample, Pooling, Storage};
pub use self::features::{GraphInputConfig, ImageConfig, ImageSize, Layout, PixelOrder, TensorConfig};
pub use self::graph::{GraphBuilder, GraphConfig, GraphDevice, Precision, Similarity};
pub use self::guards::GuardsConfig;
pub(crate) use self::guards::JUDGES_NOTHING;
pub use self::mask::MaskConfig;
pub use self::metrics::MetricsConfig;
pub use self::pairs::{GraphOver, PairsConfig, Several};
pub use self::providers::{Arena, Convolutions, CudaConfig, Provider};
pub use self::refresh::{FirstRefresh, OnNewerModel, OnRefreshError, RefreshConfig};
pub use self::report::ReportConfig;
pub use self::schedule::Schedule;
pub use self::shard::ShardConfig;
pub use self::source::{OnCorrupt, SourceConfig};
pub use self::sources::{MixtureConfig, NamedSource, Prefix, SOURCE_COLUMN, Stop};
pub use self::store::{Advice, StoreConfig, Verify};
pub use self::stream::StreamConfig;
pub use self::views::{Combine, ViewConfig};
pub use self::walk::{Coverage, NegativeChoice, SamplerKind, WalkConfig};
pub use self::warm_up::WarmUp;
use crate::error::{Error, Fault, Faults, Result};

/// All settings of one run: what a pipeline file holds.
///
/// ```
/// use prosampler::config::PipelineConfig;
///
/// let config = PipelineConfig::from_settings(&["walk.batch_size=128".into(), "source.uri='rows.parquet'".into()])?;
/// assert_eq!((config.walk.batch_size, config.seed), (128, 0));
/// let error = PipelineConfig::from_toml("walk.bach_size = 128").unwrap_err();
/// assert!(error.to_string().contains("did you mean `batch_size`?"));
/// # Ok::<(), prosampler::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PipelineConfig {
    /// The random seed of candidates and walks, 0 to 2⁶³ − 1; default 0. Same seed, data, model and settings: same
    /// mini-batches, on any number of threads, up to the first background refresh, and beyond with `swap_after_steps`.
    pub seed: u64,
    /// Where the rows come from.
    pub source: SourceConfig,
    /// Several sources in place of one uri. Default: none.
    pub sources: Vec<NamedSource>,
    /// How often the rows of several sources come.
    pub mixture: MixtureConfig,
    /// The shard of the rows that this run takes. Default: all of them.
    pub shard: ShardConfig,
    /// Where the rows are kept.
    pub store: StoreConfig,
    /// How rows become embeddings.
    pub encode: EncodeConfig,
    /// Which columns are an anchor and its positive, if rows are pairs.
    pub pairs: PairsConfig,
    /// How embeddings become a proximity graph.
    pub graph: GraphConfig,
    /// How mini-batches are drawn from the graph.
    pub walk: WalkConfig,
    /// What keeps likely false negatives out of mini-batches.
    pub guards: GuardsConfig,
    /// Which samples may share a mini-batch without being negatives of each other.
    pub mask: MaskConfig,
    /// When the graph is made anew.
    pub refresh: RefreshConfig,
    /// How mini-batches are handed out.
    pub stream: StreamConfig,
    /// What a run leaves on disk to be resumed from.
    pub checkpoint: CheckpointConfig,
    /// How many threads do the heavy work.
    pub compute: ComputeConfig,
    /// What the summary of `prosampler run` looks at.
    pub report: ReportConfig,
    /// Where a run can be watched while it goes on.
    pub metrics: MetricsConfig,
}

impl PipelineConfig {
    /// These settings with the defaults that depend on other sections, for a run of so many processes.
    pub(crate) fn resolved(self, ranks: usize) -> Self {
        let embeds_texts = self.encode.model.is_some() && self.encode.kind() == FeatureKind::Text;
        let is_harder = embeds_texts || self.pairs.columns().is_some();
        Self {
            graph: if is_harder { self.graph.nearest() } else { self.graph },
            walk: if is_harder { self.walk.nearest() } else { self.walk },
            refresh: self.refresh.for_ranks(ranks),
            ..self
        }
    }

    /// What embeddings are made for.
    pub(crate) fn similarity(&self) -> Similarity {
        let is_cross = self.pairs.columns().is_some() && self.pairs.graph_over == GraphOver::Cross;
        if is_cross { Similarity::Cross } else { self.graph.similarity }
    }

    /// Reads a pipeline file. Relative paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::Io`] if the file cannot be read, [`Error::Config`] with all its faults
    /// otherwise.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file_with(path, &[])
    }

    /// [`from_file`](Self::from_file), then `KEY=VALUE` settings over it, as `--set graph.neighbors=50` gives them.
    /// Relative paths in those are left as they are.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file); faults of file and overrides come together.
    pub fn from_file_with(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound {
                uri: path.display().to_string(),
                hint: Some("give the path of a pipeline file, for example pipelines/text.toml".into()),
            },
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::IsADirectory => {
                let what = if path.is_dir() { "a folder" } else { "no text" };
                let message = format!("`{}` is {what}; give a pipeline file (TOML)", path.display());
                Faults::one(path.display().to_string(), Fault::new("", message)).into()
            }
            _ => Error::Io { action: "read", path: path.into(), cause },
        })?;
        let base = path.parent().filter(|p| !p.as_os_str().is_empty());
        Ok(read::read(&text, &path.display().to_string(), base, overrides)?)
    }

    /// The defaults, then `KEY=VALUE` settings over them, as [`from_file_with`](Self::from_file_with) takes them.
    /// Relative paths stay relative to the working directory.
    ///
    /// # Errors
    /// [`Error::Config`] with all faults.
    pub fn from_settings(settings: &[String]) -> Result<Self> {
        Ok(read::read("", Faults::SETTINGS, None, settings)?)
    }

    /// Reads settings from TOML text. Relative paths stay relative to the working directory.
    ///
    /// # Errors
    /// [`Error::Config`] with all faults.
    pub fn from_toml(text: &str) -> Result<Self> {
        Ok(read::read(text, Faults::SETTINGS, None, &[])?)
    }
}
