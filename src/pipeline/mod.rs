//! Wires the stages together, and starts the tasks of a run.
//!
//! A start goes through stages, which `start` lists: open the source and the encoder (`open`), read the rows into the
//! store, look up where the run stands (`checkpoint::begin`), embed all samples, build the first snapshot, and spawn
//! the refresh worker and the producer of mini-batches. `checks` refuses settings, columns and rows that do not fit,
//! and `harm` warns where training may lose. `embedder` makes vectors without a run.

mod builder;
mod checks;
mod embedder;
mod harm;
mod open;
mod start;
#[cfg(feature = "metrics")]
mod watching;

pub use self::builder::PipelineBuilder;
pub use self::embedder::Embedder;
pub(crate) use self::open::open_source;
#[cfg(feature = "cli")]
pub(crate) use self::start::dry_start;
use crate::config::PipelineConfig;

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
        PipelineBuilder::new(config)
    }
}
