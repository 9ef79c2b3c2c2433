use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use ort::memory::{MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, DynValue, Tensor};

use super::OnnxDevice;
use super::model::{COLUMNS, K, PLACES, ROWS, SCORES, TABLE, model};
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
    sessions: Vec<Mutex<UntilExit<Bound>>>,
    dimension: usize,
    format: DeviceFormat,
}

/// A session with the vectors bound: they were copied to its GPU once, and go with it.
struct Bound {
    session: Session,
    binding: IoBinding,
    /// Where results are wanted: in memory that a GPU copies to without a detour.
    results: MemoryInfo<'static>,
}

impl OnnxLoaded {
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
                // A node on the processor would be copied for in every launch: rather an error.
                builder = builder.with_config_entry("session.disable_cpu_ep_fallback", "1")?;
            }
            let results = match device.provider {
                Provider::Cpu => MemoryInfo::default(),
                Provider::Cuda | Provider::Tensorrt => pinned(gpu, MemoryType::CPUOutput)?,
            };
            let session = model(format, with_rows)?.into_session(&builder)?;
            let binding = session.create_binding()?;
            let mut bound = UntilExit::new(Bound { session, binding, results }, device.provider);
            let table = upload(vectors, &bound.session, &builder, device.provider, gpu)?;
            bound.binding.bind_input(TABLE, &table)?;
            Ok(Mutex::new(bound))
        };
        let sessions = gpus.iter().map(open).collect::<ort::Result<Vec<_>>>()?;
        Ok(Self { device: device.clone(), runtime: runtime.clone(), sessions, dimension, format })
    }

    fn run(&self, blocks: &DeviceBlocks<'_>) -> ort::Result<(DynValue, DynValue)> {
        let &DeviceBlocks { ref rows, block_rows, columns, block_columns, k } = blocks;
        let count = columns.len() / block_columns;
        let rows = match rows {
            DeviceRows::Places(places) => Tensor::from_array((vec![count, block_rows], places.to_vec()))?.upcast(),
            DeviceRows::Given(vectors) => {
                tensor(self.format, vec![count, block_rows, self.dimension], vectors.to_vec())?
            }
        };
        let columns = Tensor::from_array((vec![count, block_columns], columns.to_vec()))?;
        let k = Tensor::from_array((vec![1usize], vec![k as i64]))?;
        // A GPU that has nothing to do, or else one by the thread's number.
        let own = &self.sessions[rayon::current_thread_index().unwrap_or(0) % self.sessions.len()];
        let idle = self.sessions.iter().find_map(|bound| bound.try_lock().ok());
        let mut bound = idle.unwrap_or_else(|| own.lock().unwrap_or_else(PoisonError::into_inner));
        let Bound { session, binding, results } = &mut **bound;
        compute::throttled(|| {
            binding.bind_input(ROWS, &rows)?;
            binding.bind_input(COLUMNS, &columns)?;
            binding.bind_input(K, &k)?;
            // Anew, or the last run's results would be written over.
            binding.bind_output_to_device(SCORES, results)?;
            binding.bind_output_to_device(PLACES, results)?;
            let mut outputs = session.run_binding(binding)?;
            let mut output =
                |name: &str| outputs.remove(name).ok_or_else(|| ort::Error::new(format!("output `{name}` is missing")));
            Ok((output(SCORES)?, output(PLACES)?))
        })
    }
}

impl LoadedVectors for OnnxLoaded {
    fn best(&self, blocks: &DeviceBlocks<'_>, take: &mut dyn FnMut(&[f32], &[i32])) -> Result<()> {
        let taken = self.run(blocks).and_then(|(scores, places)| {
            take(scores.try_extract_tensor::<f32>()?.1, places.try_extract_tensor::<i32>()?.1);
            Ok(())
        });
        taken.map_err(|e| self.device.failed(&self.runtime, &e))
    }

    fn at_once(&self) -> usize {
        self.sessions.len()
    }
}

/// Numbers as the model takes them.
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
