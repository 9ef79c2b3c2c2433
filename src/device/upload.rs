//! Copies vectors to a GPU through a little pinned memory.
//!
//! A GPU reads pinned memory several times as fast as other memory, but to pin memory takes longer than to copy it. So
//! vectors pass through a small pinned buffer in chunks: while one chunk is copied, all threads write the next one.

use std::fmt::Debug;

use half::{bf16, f16};
use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, PrimitiveTensorElementType, Shape, Tensor, TensorRefMut};
use rayon::prelude::*;

use super::model::{element, tensor};
use crate::config::Provider;
use crate::encode::{UntilExit, pinned};
use crate::graph::device::{DeviceFormat, DeviceVectors};
use crate::telemetry;

/// Copies vectors to a tensor [count × dimension] in the memory of `owner`, a session on the GPU of this number.
///
/// `builder` makes a second session device, which does the copying and is closed afterwards.
pub(super) fn upload(
    vectors: &DeviceVectors<'_>,
    owner: &Session,
    builder: &SessionBuilder,
    provider: Provider,
    gpu: u32,
) -> ort::Result<DynTensor> {
    let mut staging = UntilExit::new(Staging::new(owner, builder, provider, gpu, vectors)?, provider);
    let DeviceVectors { read, dimension, format, .. } = *vectors;
    // The vector in f32, before it is converted to fewer bits.
    let whole = || vec![0f32; dimension];
    match format {
        DeviceFormat::F32 => staging.copy(|| (), |(), index, numbers: &mut [f32]| read(index, numbers)),
        DeviceFormat::F16 => staging.copy(whole, |whole, index, numbers: &mut [f16]| {
            read(index, whole);
            numbers.iter_mut().zip(whole).for_each(|(short, &mut x)| *short = f16::from_f32(x));
        }),
        DeviceFormat::Bf16 => staging.copy(whole, |whole, index, numbers: &mut [bf16]| {
            read(index, whole);
            numbers.iter_mut().zip(whole).for_each(|(short, &mut x)| *short = bf16::from_f32(x));
        }),
    }
}

/// The pinned memory on the host, the memory on the device, and a session that copies from one to the other.
struct Staging {
    /// A session whose output is its input.
    session: Session,
    binding: IoBinding,
    device: (Allocator, MemoryInfo<'static>),
    /// Allocates pinned memory if that can be had, and ordinary memory otherwise.
    host: Allocator,
    count: usize,
    dimension: usize,
}

impl Staging {
    /// Opens the copying session.
    fn new(
        owner: &Session,
        builder: &SessionBuilder,
        provider: Provider,
        gpu: u32,
        vectors: &DeviceVectors<'_>,
    ) -> ort::Result<Self> {
        let session = copy_model(vectors.format)?.into_session(builder)?;
        let binding = session.create_binding()?;
        let (device, host) = match provider {
            Provider::Cpu => (MemoryInfo::default(), Allocator::default()),
            Provider::Cuda | Provider::Tensorrt => {
                let ordinal = i32::try_from(gpu).unwrap_or(i32::MAX);
                let device =
                    MemoryInfo::new(AllocationDevice::CUDA, ordinal, AllocatorType::Device, MemoryType::Default)?;
                let host = Allocator::new(&session, pinned(gpu, MemoryType::CPUInput)?).unwrap_or_else(|reason| {
                    telemetry::not_pinned(provider.name(), reason.message());
                    Allocator::default()
                });
                (device, host)
            }
        };
        let allocator = Allocator::new(owner, device.clone())?;
        let DeviceVectors { count, dimension, .. } = *vectors;
        Ok(Self { session, binding, device: (allocator, device), host, count, dimension })
    }

    /// Copies all vectors to the device.
    ///
    /// `write(scratch, index, numbers)` writes the numbers of a vector; each thread has a `scratch` of its own.
    fn copy<T, S>(
        &mut self,
        scratch: impl Fn() -> S + Sync,
        write: impl Fn(&mut S, usize, &mut [T]) + Sync,
    ) -> ort::Result<DynTensor>
    where
        T: PrimitiveTensorElementType + Copy + Debug + Send + 'static,
    {
        let Self { count, dimension, .. } = *self;
        let mut table = Tensor::<T>::new(&self.device.0, [count, dimension])?;
        let start = table.data_ptr_mut() as usize;
        let rows = (CHUNK_BYTES / (size_of::<T>() * dimension)).max(1);
        let chunk = |first: usize| Tensor::<T>::new(&self.host, [rows.min(count - first), dimension]);
        let fill = |chunk: &mut Tensor<T>, first: usize| {
            let numbers = chunk.extract_tensor_mut().1.par_chunks_exact_mut(dimension).enumerate();
            numbers
                .with_min_len(64)
                .for_each_init(&scratch, |scratch, (n, numbers)| write(scratch, first + n, numbers));
        };
        let (session, binding, device) = (&mut self.session, &mut self.binding, &self.device.1);
        let mut copy = |chunk: &Tensor<T>, first: usize| {
            let address = (start + first * dimension * size_of::<T>()) as *mut std::ffi::c_void;
            let shape = Shape::new(chunk.shape().iter().copied());
            // SAFETY: this is within the table, which outlives it, and nothing else reads or writes there meanwhile.
            let target = unsafe { TensorRefMut::<T>::from_raw(device.clone(), address, shape) }?;
            binding.bind_input(CHUNK_INPUT, chunk)?;
            binding.bind_output(TARGET_OUTPUT, target)?;
            session.run_binding(binding).map(drop)
        };
        let mut first = 0;
        let mut current = chunk(0)?;
        fill(&mut current, 0);
        while first + rows < count {
            let mut next = chunk(first + rows)?;
            let (copied, ()) = rayon::join(|| copy(&current, first), || fill(&mut next, first + rows));
            copied?;
            first += rows;
            current = next;
        }
        copy(&current, first)?;
        Ok(table.upcast())
    }
}

/// A model that returns its input.
fn copy_model(format: DeviceFormat) -> ort::Result<Model> {
    let number = element(format);
    let mut graph = Graph::new()?;
    graph.set_inputs([tensor(CHUNK_INPUT, number, 2)])?;
    graph.set_outputs([tensor(TARGET_OUTPUT, number, 2)])?;
    graph.add_node(Node::new("Identity", ONNX_DOMAIN, TARGET_OUTPUT, [CHUNK_INPUT], [TARGET_OUTPUT], [])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

/// The names of the copying model's input and output.
const CHUNK_INPUT: &str = "chunk";
const TARGET_OUTPUT: &str = "target";

/// How many bytes a chunk has.
const CHUNK_BYTES: usize = 8 << 20;
