//! Where a model runs.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::{Check, Checker};

/// An execution provider of ONNX Runtime: what a model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The processor, which always works.
    Cpu,
    /// NVIDIA GPUs, with `onnxruntime-gpu` and the CUDA libraries that it names; see [`CudaConfig`].
    Cuda,
    /// NVIDIA GPUs by TensorRT, which builds an engine for each shape of input: for models of fixed shapes. What it
    /// cannot run goes to CUDA.
    Tensorrt,
}

impl Provider {
    /// As it is written in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }
}

/// `[encode.cuda]`: settings of the GPU, for `cuda` and `tensorrt`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct CudaConfig {
    /// GPUs that share the work, by number, with as many sessions each as `encode.sessions` says. Default: the first.
    pub devices: Vec<u32>,
    /// Memory that a session may take on its GPU, in bytes, from 16 MiB; beyond it the model runs out of memory, and
    /// batches are halved. For GPUs that a trainer uses too. Default: all there is.
    pub memory_limit: Option<usize>,
    /// How a session's memory grows. Default `same_as_requested`, which leaves more to others.
    pub arena: Arena,
    /// How cuDNN chooses among algorithms for convolutions. Default `heuristic`: batches have many shapes, and an
    /// exhaustive search would be made for each.
    pub convolutions: Convolutions,
    /// Whether f32 products may be rounded to 10 bits of precision (TF32), for speed. Default false.
    pub tf32: bool,
    /// With `tensorrt`: whether it may compute in f16. Default false.
    pub tensorrt_f16: bool,
    /// With `tensorrt`: folder for its engines, which take minutes to build. Default: none, and each run builds them.
    pub tensorrt_cache: Option<PathBuf>,
}

/// How a session's memory on a GPU grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arena {
    /// By as much as is asked for.
    #[default]
    SameAsRequested,
    /// In powers of two, with fewer requests and up to twice the memory.
    NextPowerOfTwo,
}

/// How cuDNN chooses among algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convolutions {
    /// By rules of thumb.
    #[default]
    Heuristic,
    /// By trying all, which is slow for each new shape, and best afterwards.
    Exhaustive,
    /// The same one for all.
    Default,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self {
            devices: vec![0],
            memory_limit: None,
            arena: Arena::SameAsRequested,
            convolutions: Convolutions::Heuristic,
            tf32: false,
            tensorrt_f16: false,
            tensorrt_cache: None,
        }
    }
}

impl Check for CudaConfig {
    const SECTION: &'static str = "encode.cuda";

    fn check(&self, check: &mut Checker<'_>) {
        check.require(!self.devices.is_empty(), "devices", "is empty; name a GPU by its number, 0 for the first");
        let mut numbers = self.devices.clone();
        numbers.sort_unstable();
        numbers.dedup();
        check.require(
            numbers.len() == self.devices.len(),
            "devices",
            "names a GPU twice; use encode.sessions for that",
        );
        let enough = self.memory_limit.is_none_or(|limit| limit >= 16 << 20);
        check.require(enough, "memory_limit", "is in bytes, and must be at least 16 MiB (16777216)");
    }
}
