//! Vectors on their way to a GPU.
//!
//! A GPU reads pinned memory several times as fast as any other, but to get that takes longer than to copy it. So vectors
//! go through little of it, piece by piece: while one is copied, all threads write the next one.

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

/// The vectors as a tensor [count × dimension] in memory of the `owner`, a session on the GPU of this number. `builder`
/// makes another one there, which is gone afterwards.
pub(super) fn upload(
    vectors: &DeviceVectors<'_>,
    owner: &Session,
    builder: &SessionBuilder,
    provider: Provider,
    gpu: u32,
) -> ort::Result<DynTensor> {
    let mut way = UntilExit::new(Way::new(owner, builder, provider, gpu, vectors)?, provider);
    let DeviceVectors { read, dimension, format, .. } = *vectors;
    // A vector in f32, on its way to fewer bits.
    let whole = || vec![0f32; dimension];
    match format {
        DeviceFormat::F32 => way.copy(|| (), |(), place, numbers: &mut [f32]| read(place, numbers)),
        DeviceFormat::F16 => way.copy(whole, |whole, place, numbers: &mut [f16]| {
            read(place, whole);
            numbers.iter_mut().zip(whole).for_each(|(short, &mut x)| *short = f16::from_f32(x));
        }),
        DeviceFormat::Bf16 => way.copy(whole, |whole, place, numbers: &mut [bf16]| {
            read(place, whole);
            numbers.iter_mut().zip(whole).for_each(|(short, &mut x)| *short = bf16::from_f32(x));
        }),
    }
}

/// What vectors pass through.
struct Way {
    /// Copies what it is given to where it is told.
    session: Session,
    binding: IoBinding,
    there: (Allocator, MemoryInfo<'static>),
    /// Of pinned memory, where it can be had.
    here: Allocator,
    count: usize,
    dimension: usize,
}

impl Way {
    fn new(
        owner: &Session,
        builder: &SessionBuilder,
        provider: Provider,
        gpu: u32,
        vectors: &DeviceVectors<'_>,
    ) -> ort::Result<Self> {
        let session = copy_model(vectors.format)?.into_session(builder)?;
        let binding = session.create_binding()?;
        let (there, here) = match provider {
            Provider::Cpu => (MemoryInfo::default(), Allocator::default()),
            Provider::Cuda | Provider::Tensorrt => {
                let ordinal = i32::try_from(gpu).unwrap_or(i32::MAX);
                let there =
                    MemoryInfo::new(AllocationDevice::CUDA, ordinal, AllocatorType::Device, MemoryType::Default)?;
                let here = Allocator::new(&session, pinned(gpu, MemoryType::CPUInput)?).unwrap_or_else(|reason| {
                    telemetry::not_pinned(provider.name(), reason.message());
                    Allocator::default()
                });
                (there, here)
            }
        };
        let allocator = Allocator::new(owner, there.clone())?;
        let DeviceVectors { count, dimension, .. } = *vectors;
        Ok(Self { session, binding, there: (allocator, there), here, count, dimension })
    }

    /// Copies all that `write` writes: the numbers of the vector in a place.
    fn copy<T, S>(
        &mut self,
        room: impl Fn() -> S + Sync,
        write: impl Fn(&mut S, usize, &mut [T]) + Sync,
    ) -> ort::Result<DynTensor>
    where
        T: PrimitiveTensorElementType + Copy + Debug + Send + 'static,
    {
        let Self { count, dimension, .. } = *self;
        let mut table = Tensor::<T>::new(&self.there.0, [count, dimension])?;
        let start = table.data_ptr_mut() as usize;
        let rows = (PIECE / (size_of::<T>() * dimension)).max(1);
        let piece = |first: usize| Tensor::<T>::new(&self.here, [rows.min(count - first), dimension]);
        let fill = |piece: &mut Tensor<T>, first: usize| {
            let numbers = piece.extract_tensor_mut().1.par_chunks_exact_mut(dimension).enumerate();
            numbers.with_min_len(64).for_each_init(&room, |room, (n, numbers)| write(room, first + n, numbers));
        };
        let (session, binding, there) = (&mut self.session, &mut self.binding, &self.there.1);
        let mut copy = |piece: &Tensor<T>, first: usize| {
            let address = (start + first * dimension * size_of::<T>()) as *mut std::ffi::c_void;
            let shape = Shape::new(piece.shape().iter().copied());
            // SAFETY: within the table, which outlives this, and where nothing else is written or read meanwhile.
            let place = unsafe { TensorRefMut::<T>::from_raw(there.clone(), address, shape) }?;
            binding.bind_input(PIECES, piece)?;
            binding.bind_output(PLACE, place)?;
            session.run_binding(binding).map(drop)
        };
        let (mut first, mut here) = (0, piece(0)?);
        fill(&mut here, 0);
        while first + rows < count {
            let mut next = piece(first + rows)?;
            let (copied, ()) = rayon::join(|| copy(&here, first), || fill(&mut next, first + rows));
            copied?;
            (first, here) = (first + rows, next);
        }
        copy(&here, first)?;
        Ok(table.upcast())
    }
}

/// Gives what it is given.
fn copy_model(format: DeviceFormat) -> ort::Result<Model> {
    let number = element(format);
    let mut graph = Graph::new()?;
    graph.set_inputs([tensor(PIECES, number, 2)])?;
    graph.set_outputs([tensor(PLACE, number, 2)])?;
    graph.add_node(Node::new("Identity", ONNX_DOMAIN, PLACE, [PIECES], [PLACE], [])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

const PIECES: &str = "piece";
const PLACE: &str = "place";

/// Bytes of a piece.
const PIECE: usize = 8 << 20;
