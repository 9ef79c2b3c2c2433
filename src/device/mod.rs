//! "Here are vectors on a GPU, give me the best of their products."
//!
//! [`OnnxDevice`] is a [`Device`] of the graph, driven by ONNX Runtime. The products and the choice of the best are a
//! small ONNX model, so there is no code for GPUs here, and the same model is tested on the processor.
//!
//! Each graph costs a copy of the vectors to the GPU, and copies of the results back; the GPU's memory is freed with
//! the graph. It is not for graphs on the processor, which the kernels of [`graph`](crate::graph) build many times as
//! fast.

mod loaded;
mod model;
mod upload;

use std::sync::Arc;

use self::loaded::OnnxLoaded;
use crate::config::{EncodeConfig, GraphDevice, Provider};
use crate::encode::runtime::Runtime;
use crate::encode::{cuda, is_out_of_memory};
use crate::error::{Error, OnnxRuntimeError, Result};
use crate::graph::device::{Device, DeviceBlocks, DeviceFormat, DeviceRows, DeviceVectors, LoadedVectors};

/// An execution provider of ONNX Runtime that builds graphs.
#[derive(Clone, Debug)]
pub struct OnnxDevice {
    provider: Provider,
    config: EncodeConfig,
}

impl OnnxDevice {
    /// Makes a device with the libraries, GPUs and memory that these settings name; nothing is opened yet.
    ///
    /// TensorRT would build an engine for each shape, so CUDA does its work.
    #[must_use]
    pub fn new(provider: Provider, config: &EncodeConfig) -> Self {
        let provider = if provider == Provider::Tensorrt { Provider::Cuda } else { provider };
        Self { provider, config: config.clone() }
    }

    /// Tries the device on a product of a few numbers.
    ///
    /// # Errors
    /// [`OnnxRuntimeError::Device`] with the reason, or those of loading ONNX Runtime.
    pub fn probe(&self) -> Result<()> {
        let numbers = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]];
        let read = |index: usize, vector: &mut [f32]| vector.copy_from_slice(&numbers[index]);
        let loaded = self.load(&DeviceVectors {
            count: 3,
            read: &read,
            dimension: 2,
            format: DeviceFormat::F32,
            with_rows: true,
        })?;
        let rows = DeviceRows::Places(&[2]);
        let mut found = Vec::new();
        let blocks = DeviceBlocks { rows, block_rows: 1, columns: &[0, 1], block_columns: 2, k: 1 };
        loaded
            .best(&blocks, &mut |scores, columns| found.extend(scores.iter().copied().zip(columns.iter().copied())))?;
        match found[..] {
            [(score, 1)] if (score - 0.8).abs() < 1e-2 => Ok(()),
            _ => Err(self.fault("it gives wrong results")),
        }
    }

    /// An error that names this device.
    fn fault(&self, reason: impl Into<String>) -> Error {
        OnnxRuntimeError::Device { device: self.name().to_owned(), reason: reason.into() }.into()
    }

    /// Turns an error of ONNX Runtime into one of this crate.
    fn failed(&self, runtime: &Runtime, error: &ort::Error) -> Error {
        let message = error.message();
        if is_out_of_memory(message) {
            return Error::device_out_of_memory(self.name(), message);
        }
        match self.provider {
            Provider::Cpu => self.fault(message),
            Provider::Cuda | Provider::Tensorrt => self.fault(cuda::in_plain_words(message, runtime)),
        }
    }
}

impl Device for OnnxDevice {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn is_exact(&self) -> bool {
        self.provider == Provider::Cpu || !self.config.cuda.as_ref().is_some_and(|cuda| cuda.tf32)
    }

    fn memory(&self) -> Option<usize> {
        self.config.cuda.as_ref().and_then(|cuda| cuda.memory_limit)
    }

    fn load(&self, vectors: &DeviceVectors<'_>) -> Result<Box<dyn LoadedVectors>> {
        let runtime = Runtime::load(self.config.runtime.as_deref())?;
        let loaded = OnnxLoaded::open(self, &runtime, vectors).map_err(|e| self.failed(&runtime, &e))?;
        Ok(Box::new(loaded))
    }
}

/// The device that the settings ask for, or that may pay. A device that they ask for is tried first.
pub(crate) fn choose(wanted: GraphDevice, config: &EncodeConfig) -> Result<Option<Arc<dyn Device>>> {
    let on_gpu = config.providers.first().is_some_and(|first| *first != Provider::Cpu);
    if wanted == GraphDevice::Cpu || (wanted == GraphDevice::Auto && !on_gpu) {
        return Ok(None);
    }
    let device = OnnxDevice::new(Provider::Cuda, config);
    if wanted == GraphDevice::Cuda {
        device.probe()?;
    }
    Ok(Some(Arc::new(device)))
}
