//! Vectors on GPUs, and the sessions that multiply them.

use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use ort::memory::{MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, DynValue, Tensor};

use super::OnnxDevice;
use super::model::{BEST_COLUMNS_OUTPUT, COLUMNS_INPUT, K_INPUT, ROWS_INPUT, SCORES_OUTPUT, TABLE_INPUT, model};
use super::upload::upload;
use crate::compute;
use crate::config::Provider;
use crate::encode::runtime::Runtime;
use crate::encode::{UntilExit, cuda, pinned, session_builder};
use crate::error::Result;
use crate::graph::device::{DeviceBlocks, DeviceFormat, DeviceRows, DeviceVectors, LoadedVectors};

/// Vectors in the memory of each GPU, and the model that multiplies them.
pub(super) struct OnnxLoaded {
    device: OnnxDevice,
    runtime: Runtime,
    /// One session for each GPU.
    sessions: Vec<Mutex<UntilExit<BoundSession>>>,
    dimension: usize,
    format: DeviceFormat,
}

/// A session that the vectors are bound to: they were copied to its GPU once, and are freed with it.
struct BoundSession {
    session: Session,
    binding: IoBinding,
    /// The memory for results, which a GPU can copy to without a detour.
    results: MemoryInfo<'static>,
}

impl OnnxLoaded {
    /// Opens a session on each GPU and copies the vectors there.
    pub fn open(device: &OnnxDevice, runtime: &Runtime, vectors: &DeviceVectors<'_>) -> ort::Result<Self> {
        let DeviceVectors { dimension, format, with_rows, .. } = *vectors;
        let settings = device.config.cuda.clone().unwrap_or_default();
        let gpus = match device.provider {
            Provider::Cpu => vec![0],
            Provider::Cuda | Provider::Tensorrt => {
                cuda::preload(runtime);
                settings.devices.clone()
            }
        };
        let open = |&gpu: &u32| {
            let mut builder = session_builder(runtime, device.provider, &settings, gpu)?;
            if device.provider != Provider::Cpu {
                // A node on the processor would cost copies in every call, so it is an error.
                builder = builder.with_config_entry("session.disable_cpu_ep_fallback", "1")?;
            }
            let results = match device.provider {
                Provider::Cpu => MemoryInfo::default(),
                Provider::Cuda | Provider::Tensorrt => pinned(gpu, MemoryType::CPUOutput)?,
            };
            let session = model(format, with_rows)?.into_session(&builder)?;
            let binding = session.create_binding()?;
            let mut bound = UntilExit::new(BoundSession { session, binding, results }, device.provider);
            let table = upload(vectors, &bound.session, &builder, device.provider, gpu)?;
            bound.binding.bind_input(TABLE_INPUT, &table)?;
            Ok(Mutex::new(bound))
        };
        let sessions = gpus.iter().map(open).collect::<ort::Result<Vec<_>>>()?;
        Ok(Self { device: device.clone(), runtime: runtime.clone(), sessions, dimension, format })
    }

    /// Runs the model on some blocks, and returns scores and columns.
    fn run(&self, blocks: &DeviceBlocks<'_>) -> ort::Result<(DynValue, DynValue)> {
        let &DeviceBlocks { ref rows, block_rows, columns, block_columns, k } = blocks;
        let count = columns.len() / block_columns;
        let rows = match rows {
            DeviceRows::Places(positions) => {
                Tensor::from_array((vec![count, block_rows], positions.to_vec()))?.upcast()
            }
            DeviceRows::Given(vectors) => {
                tensor(self.format, vec![count, block_rows, self.dimension], vectors.to_vec())?
            }
        };
        let columns = Tensor::from_array((vec![count, block_columns], columns.to_vec()))?;
        let k = Tensor::from_array((vec![1usize], vec![k as i64]))?;
        // Take an idle GPU, or else wait for the one of this thread's number.
        let own = &self.sessions[rayon::current_thread_index().unwrap_or(0) % self.sessions.len()];
        let idle = self.sessions.iter().find_map(|bound| bound.try_lock().ok());
        let mut bound = idle.unwrap_or_else(|| own.lock().unwrap_or_else(PoisonError::into_inner));
        let BoundSession { session, binding, results } = &mut **bound;
        compute::throttled(|| {
            binding.bind_input(ROWS_INPUT, &rows)?;
            binding.bind_input(COLUMNS_INPUT, &columns)?;
            binding.bind_input(K_INPUT, &k)?;
            // Outputs are bound for each run, or the last run's results would be overwritten.
            binding.bind_output_to_device(SCORES_OUTPUT, results)?;
            binding.bind_output_to_device(BEST_COLUMNS_OUTPUT, results)?;
            let mut outputs = session.run_binding(binding)?;
            let mut output =
                |name: &str| outputs.remove(name).ok_or_else(|| ort::Error::new(format!("output `{name}` is missing")));
            Ok((output(SCORES_OUTPUT)?, output(BEST_COLUMNS_OUTPUT)?))
        })
    }
}

impl LoadedVectors for OnnxLoaded {
    fn best(&self, blocks: &DeviceBlocks<'_>, take: &mut dyn FnMut(&[f32], &[i32])) -> Result<()> {
        let taken = self.run(blocks).and_then(|(scores, columns)| {
            take(scores.try_extract_tensor::<f32>()?.1, columns.try_extract_tensor::<i32>()?.1);
            Ok(())
        });
        taken.map_err(|e| self.device.failed(&self.runtime, &e))
    }

    fn at_once(&self) -> usize {
        self.sessions.len()
    }
}

/// Makes a tensor in the format of the model.
fn tensor(format: DeviceFormat, shape: Vec<usize>, numbers: Vec<f32>) -> ort::Result<DynTensor> {
    Ok(match format {
        DeviceFormat::F32 => Tensor::from_array((shape, numbers))?.upcast(),
        DeviceFormat::F16 => {
            let numbers: Vec<_> = numbers.into_iter().map(f16::from_f32).collect();
            Tensor::from_array((shape, numbers))?.upcast()
        }
        DeviceFormat::Bf16 => {
            let numbers: Vec<_> = numbers.into_iter().map(bf16::from_f32).collect();
            Tensor::from_array((shape, numbers))?.upcast()
        }
    })
}
