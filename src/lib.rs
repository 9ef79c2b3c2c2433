//! Hard-negative mini-batches for contrastive learning, as an async stream over Arrow and Parquet.
//!
//! A [`Pipeline`] reads rows from a [`Source`], embeds them with an [`Encoder`], links similar samples in a proximity
//! graph, and returns a [`MiniBatchStream`] of mini-batches that random walks draw from that graph.
//!
//! The method is ProSampler, published as BatchSampler ([arXiv 2306.03355](https://arxiv.org/abs/2306.03355),
//! KDD 2023). Embeddings and graph are refreshed in the background while the trainer runs.
//!
//! # Example
//!
//! ```no_run
//! use futures::TryStreamExt;
//! use prosampler::config::{EncodeConfig, RefreshConfig, WalkConfig};
//! use prosampler::{FileSource, OnnxEncoder, Pipeline};
//!
//! # #[tokio::main]
//! # async fn main() -> prosampler::Result<()> {
//! let encoder = OnnxEncoder::open(&EncodeConfig {
//!     model: Some("data/models/gloss-encoder/model.onnx".into()),
//!     column: Some("definition".into()),
//!     ..EncodeConfig::default()
//! })?;
//! let mut mini_batches = Pipeline::builder()
//!     .source(FileSource::open("data/wordnet/glosses.parquet").await?)
//!     .encoder(encoder)
//!     .walk(WalkConfig { batch_size: 256, restart_probability: Some(0.2.into()), ..WalkConfig::default() })
//!     .refresh(RefreshConfig { every_steps: Some(100), ..RefreshConfig::default() })
//!     .seed(42)
//!     .start()
//!     .await?;
//! while let Some(mini_batch) = mini_batches.try_next().await? {
//!     println!("{} rows, mean similarity {:?}", mini_batch.rows.num_rows(), mini_batch.similarity);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The same settings can be read from a TOML file: see [`PipelineConfig::from_file`] and [`Pipeline::from_config`].
//!
//! # Layout
//!
//! There is one module for each stage, in the order in which data pass through them:
//!
//! 1. [`source`] reads record batches from files, folders, object stores or memory.
//! 2. [`store`] caches them in a memory-mapped file and returns rows by [`SampleId`].
//! 3. [`encode`] turns rows into vectors, by an ONNX model or an encoder of your own.
//! 4. [`embeddings`] holds the vectors of all samples, as one model version made them.
//! 5. [`graph`] links each sample to its most similar candidates.
//! 6. [`refresh`] publishes rows, embeddings and graph together as a [`Snapshot`], and newer ones in the background.
//! 7. [`walk`] draws the ids of a mini-batch from the graph and keeps likely false negatives apart.
//! 8. [`stream`] gathers the rows of these ids ahead of time, with backpressure.
//! 9. [`checkpoint`] saves what a stopped run needs to continue exactly where it was.
//! 10. [`report`] compares the mini-batches with those of a uniform sampler.
//! 11. [`tune`] tries settings of how hard mini-batches are on a sample of the data.
//!
//! Each stage also works alone. [`config`] has the settings of all stages, with units, ranges and defaults;
//! [`RefreshHandle`] controls a running stream; every function that can fail returns an [`Error`], whose parts
//! are in [`error`].
//!
//! # Features
//!
//! | feature | default | what it adds | why it is a feature |
//! |---|---|---|---|
//! | `onnx` | yes | [`OnnxEncoder`] and [`device`]: models and graphs on ONNX Runtime, on CPUs and GPUs | tokenizers and image decoders take long to compile; without it, encoders are your own or vectors are in the data |
//! | `cli` | yes | the command `prosampler`; it implies `onnx` | libraries need no command line |
//! | `serve` | no | [`serve`]: mini-batches for trainers elsewhere, over Arrow Flight | HTTP/2 and TLS are many dependencies |
//! | `cloud` | no | sources on S3, Google Cloud Storage, Azure, web servers and Hugging Face's hub | an HTTP client and TLS are many dependencies |
//!
//! ONNX Runtime's library is found and loaded at run time, so no feature links it.
//!
//! # Further reading
//!
//! These pages come with the crate's sources:
//!
//! * `docs/sampling.md`: how hard mini-batches get, and how many false negatives they have.
//! * `docs/graph.md`: which graph builder to choose, and what it costs.
//! * `docs/store.md`: what building and reading the row cache cost.
//! * `docs/gpu.md`: how to run models and graph on a GPU.
//! * `docs/models.md`: which ONNX models can be used.
//! * `docs/filters.md`: what the conditions of `source.filter` mean.
//! * `docs/command.md`: how the command behaves.
//! * `docs/metrics.md`: how to watch a run while it goes on.
//! * `docs/serve.md`: how trainers elsewhere get mini-batches.
//! * `docs/integrity.md`, `docs/conformance.md`, `docs/soak.md`: what is checked, and with what results.
//! * `ARCHITECTURE.md`: how the crate is built, file by file.
#![warn(clippy::unwrap_used)]

mod arrow_file;
pub mod checkpoint;
mod claim;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod compute;
pub mod config;
#[cfg(feature = "onnx")]
pub mod device;
pub mod embeddings;
pub mod encode;
pub mod error;
pub mod graph;
mod machine;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
mod panics;
mod pipeline;
mod progress;
pub mod refresh;
pub mod report;
mod sample;
#[cfg(feature = "serve")]
pub mod serve;
mod simd;
pub mod source;
pub mod store;
pub mod stream;
mod telemetry;
pub mod tune;
pub mod walk;

pub use arrow;

pub use self::checkpoint::State;
pub use self::compute::ComputePool;
pub use self::config::PipelineConfig;
pub use self::embeddings::EmbeddingTable;
pub use self::encode::Encoder;
#[cfg(feature = "onnx")]
pub use self::encode::OnnxEncoder;
pub use self::error::{Cause, Error, ErrorKind, Fault, Faults, Result};
pub use self::pipeline::{Embedder, Pipeline, PipelineBuilder};
pub use self::progress::{Progress, Stage};
pub use self::refresh::{RefreshHandle, Snapshot};
pub use self::sample::{GraphVersion, ModelVersion, SampleId};
pub use self::source::{FileSource, Source};
pub use self::stream::{MiniBatch, MiniBatchStream};

// Tests the Rust code of README.
#[cfg(doctest)]
mod readme {
    #![doc = include_str!("../README.md")]
}
