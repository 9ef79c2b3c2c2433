//! What a graph needs of another device than the processor, and how it is built there.

pub(super) mod build;

use crate::error::Result;

/// Another device than the processor, which multiplies blocks of vectors and keeps the best scores: all that
/// [`build_on`](crate::graph::build_on) needs of it, so that the graph knows neither GPUs nor what drives them.
///
/// `OnnxDevice`, in the module `device`, is one of ONNX Runtime's.
pub trait Device: Send + Sync + 'static {
    /// What to call it in messages: `cuda`.
    fn name(&self) -> &str;

    /// Whether products in f32 are not rounded to less.
    fn is_exact(&self) -> bool;

    /// Bytes that a graph may take there; `None` where all that there is may be tried.
    fn memory(&self) -> Option<usize>;

    /// Copies these vectors. They stay on the device until what it gives is dropped, and all else that was taken
    /// there goes with them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where there is no room for them,
    /// [`Error::Device`](crate::Error::Device) where it cannot be used.
    fn load(&self, vectors: &DeviceVectors<'_>) -> Result<Box<dyn LoadedVectors>>;
}

/// Vectors for a device.
#[derive(Clone, Copy)]
pub struct DeviceVectors<'a> {
    /// How many there are.
    pub count: usize,
    /// Writes the d numbers of the vector in a place, from 0 on. Any thread may call it.
    pub read: &'a (dyn Fn(usize, &mut [f32]) + Sync),
    /// d: numbers in a vector.
    pub dimension: usize,
    /// What they are kept and multiplied in.
    pub format: DeviceFormat,
    /// Whether rows are among them; else each call of [`best`](LoadedVectors::best) brings its own.
    pub with_rows: bool,
}

impl std::fmt::Debug for DeviceVectors<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, dimension, format, with_rows, .. } = self;
        write!(f, "DeviceVectors {{ {count} × {dimension}, {format:?}, with_rows: {with_rows} }}")
    }
}

/// What a device keeps and multiplies vectors in. Scores come in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFormat {
    /// 32 bits.
    F32,
    /// 16 bits, 11 of precision: for vectors of unit length.
    F16,
    /// 16 bits, 8 of precision, with the range of f32.
    Bf16,
}

/// Vectors on a device.
pub trait LoadedVectors: Send + Sync {
    /// Scores each block's rows with its columns, and gives `take` the k best of each row: scores and places among the
    /// block's columns, both [blocks × block rows × k], best first within a row. Several threads may call at once: while
    /// one waits for the device, others prepare and `take`.
    ///
    /// # Errors
    /// As [`Device::load`].
    fn best(&self, blocks: &DeviceBlocks<'_>, take: &mut dyn FnMut(&[f32], &[i32])) -> Result<()>;

    /// How many calls are served at the same time; the others wait. Default 1.
    fn at_once(&self) -> usize {
        1
    }
}

/// Blocks of rows, and those that each block's rows are scored with.
#[derive(Clone, Debug)]
pub struct DeviceBlocks<'a> {
    /// Rows [blocks × block rows].
    pub rows: DeviceRows<'a>,
    /// Rows in a block.
    pub block_rows: usize,
    /// Places among the loaded vectors [blocks × block columns].
    pub columns: &'a [i32],
    /// Columns in a block.
    pub block_columns: usize,
    /// How many of a row's columns to keep; 1 to block columns.
    pub k: usize,
}

/// The rows of blocks.
#[derive(Clone, Debug)]
pub enum DeviceRows<'a> {
    /// Places among the loaded vectors.
    Places(&'a [i32]),
    /// DeviceVectors, row-major.
    Given(&'a [f32]),
}

impl DeviceFormat {
    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}
