//! Moves numbers to the memory that a session works in, and back.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{OutputSelector, RunOptions, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

use crate::config::Provider;
use crate::telemetry;

/// The transfer of inputs to a session, and of its output back.
///
/// For a GPU both are in pinned memory, which it reads and writes directly. Each number is copied once in either
/// direction, and only the output in use is copied.
pub(super) enum Transfer {
    /// The session works in the memory of this machine.
    None,
    /// Inputs and output are bound to a GPU. Without an allocator, inputs are not in pinned memory.
    Bound { inputs: Option<Mutex<Allocator>>, output: MemoryInfo<'static> },
}

impl Transfer {
    /// Prepares transfers for a session on this provider and GPU.
    pub fn of(session: &Session, provider: Provider, gpu: u32) -> ort::Result<Self> {
        if provider == Provider::Cpu {
            return Ok(Self::None);
        }
        let inputs = match Allocator::new(session, pinned(gpu, MemoryType::CPUInput)?) {
            Ok(allocator) => Some(Mutex::new(allocator)),
            Err(reason) => {
                telemetry::not_pinned(provider.name(), reason.message());
                None
            }
        };
        Ok(Self::Bound { inputs, output: pinned(gpu, MemoryType::CPUOutput)? })
    }

    /// Makes an input of numbers.
    pub fn tensor<T: PrimitiveTensorElementType + Copy + Debug + 'static>(
        &self,
        shape: Vec<usize>,
        numbers: Vec<T>,
    ) -> ort::Result<DynValue> {
        match self {
            Self::Bound { inputs: Some(allocator), .. } if !numbers.is_empty() => {
                let tensor = Tensor::<T>::new(&allocator.lock().unwrap_or_else(PoisonError::into_inner), shape);
                let mut tensor = tensor?;
                tensor.extract_tensor_mut().1.copy_from_slice(&numbers);
                Ok(tensor.into_dyn())
            }
            _ => Ok(Tensor::from_array((shape, numbers))?.into_dyn()),
        }
    }

    /// Runs the session, and returns one of its outputs.
    pub fn run(&self, session: &mut Session, inputs: Vec<(&str, DynValue)>, output: &str) -> ort::Result<DynValue> {
        let found = match self {
            Self::None => {
                let options = RunOptions::new()?.with_outputs(OutputSelector::no_default().with(output));
                session.run_with_options(inputs, &options)?.remove(output)
            }
            Self::Bound { output: memory, .. } => {
                let mut binding = session.create_binding()?;
                for (name, value) in &inputs {
                    binding.bind_input(*name, value)?;
                }
                binding.bind_output_to_device(output, memory)?;
                session.run_binding(&binding)?.remove(output)
            }
        };
        found.ok_or_else(|| ort::Error::new(format!("output `{output}` is missing")))
    }
}

/// Describes pinned memory: the system cannot move it, so that a GPU reads and writes it directly.
pub(crate) fn pinned(gpu: u32, memory_type: MemoryType) -> ort::Result<MemoryInfo<'static>> {
    let gpu = i32::try_from(gpu).unwrap_or(i32::MAX);
    MemoryInfo::new(AllocationDevice::CUDA_PINNED, gpu, AllocatorType::Device, memory_type)
}

#[cfg(test)]
mod tests {
    use super::super::provider::session_builder;
    use super::super::runtime::Runtime;
    use super::*;

    /// Bound to memory of the processor, which stands for that of a GPU, a model gives what it gives unbound.
    #[test]
    fn bound_and_unbound_runs_are_alike() {
        let runtime = Runtime::load(None).unwrap();
        let mut builder = session_builder(&runtime, Provider::Cpu, &Default::default(), 0).unwrap();
        let mut session = builder.commit_from_memory(include_bytes!("probe.onnx")).unwrap();
        let allocator = Mutex::new(Allocator::default());
        let bound = |inputs| Transfer::Bound { inputs, output: MemoryInfo::default() };
        for transfer in [Transfer::None, bound(None), bound(Some(allocator))] {
            let mut kept = Vec::new();
            // Of several sizes, and held on to: no run writes over what another gave.
            for rows in [3, 1, 7, 0, 3] {
                let numbers = (0..rows * 4).map(|i| i as f32).collect();
                let x = transfer.tensor(vec![rows, 4], numbers).unwrap();
                kept.push((rows, transfer.run(&mut session, vec![("x", x)], "y").unwrap()));
            }
            for (rows, y) in kept {
                let (shape, numbers) = y.try_extract_tensor::<f32>().unwrap();
                assert_eq!(**shape, [rows as i64, 4]);
                let product = |i: usize| (0..4).map(|k| (i / 4 * 4 + k) as f32 * (k * 4 + i % 4) as f32).sum::<f32>();
                assert_eq!(numbers, (0..rows * 4).map(product).collect::<Vec<_>>());
            }
            assert!(transfer.run(&mut session, Vec::new(), "z").is_err());
        }
    }
}
