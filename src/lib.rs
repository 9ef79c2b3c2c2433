#![doc = include_str!("../README.md")]
#![warn(clippy::unwrap_used)]

mod arrow_file;
pub mod checkpoint;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod compute;
pub mod config;
#[cfg(feature = "onnx")]
pub mod device;
pub mod embeddings;
pub mod encode;
mod error;
pub mod graph;
mod memory;
mod panics;
mod pipeline;
mod progress;
pub mod refresh;
pub mod report;
mod sample;
mod simd;
pub mod source;
pub mod store;
pub mod stream;
mod telemetry;
pub mod walk;

pub use arrow;

pub use self::checkpoint::State;
pub use self::compute::ComputePool;
pub use self::config::PipelineConfig;
pub use self::error::{Cause, Error, ErrorKind, Fault, Faults, Result};
pub use self::pipeline::{Pipeline, PipelineBuilder};
pub use self::progress::{Progress, Stage};
pub use self::sample::{GraphVersion, ModelVersion, SampleId};
pub use self::stream::{MiniBatch, MiniBatchStream};
