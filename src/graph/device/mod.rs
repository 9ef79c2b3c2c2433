//! The interface of a device that builds graphs, such as a GPU, and the builder that uses it.

pub(super) mod build;

use crate::error::Result;

/// A device, other than the processor, that multiplies blocks of vectors and keeps the best scores.
///
/// This is all that [`build_on`](crate::graph::build_on) needs of a device, so that `graph` knows neither GPUs nor what
/// drives them. `OnnxDevice`, in the module `device`, is the one of ONNX Runtime.
pub trait Device: Send + Sync + 'static {
    /// The name of the device in messages, such as `cuda`.
    fn name(&self) -> &str;

    /// Whether products of f32 are computed in full precision.
    fn is_exact(&self) -> bool;

    /// How many bytes a graph may take on the device; `None` if there is no limit.
    fn memory(&self) -> Option<usize>;

    /// Copies vectors to the device, where they stay until the result is dropped.
    ///
    /// All other memory that was taken on the device is freed with them.
    ///
    /// # Errors
    /// [`ModelError::OutOfMemory`](crate::error::ModelError::OutOfMemory) if they do not fit,
    /// [`OnnxRuntimeError::Device`](crate::error::OnnxRuntimeError::Device) if the device cannot be used.
    fn load(&self, vectors: &DeviceVectors<'_>) -> Result<Box<dyn LoadedVectors>>;
}

/// The vectors that a device is to load.
#[derive(Clone, Copy)]
pub struct DeviceVectors<'a> {
    /// How many vectors there are.
    pub count: usize,
    /// Writes the d numbers of the vector with an index below `count`. Any thread may call it.
    pub read: &'a (dyn Fn(usize, &mut [f32]) + Sync),
    /// d: how many numbers a vector has.
    pub dimension: usize,
    /// The format in which they are kept and multiplied.
    pub format: DeviceFormat,
    /// Whether rows are among these vectors; otherwise each call of [`best`](LoadedVectors::best) brings its own.
    pub with_rows: bool,
}

impl std::fmt::Debug for DeviceVectors<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, dimension, format, with_rows, .. } = self;
        write!(f, "DeviceVectors {{ {count} × {dimension}, {format:?}, with_rows: {with_rows} }}")
    }
}

/// The number format in which a device keeps and multiplies vectors. Scores are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFormat {
    /// Numbers of 32 bits.
    F32,
    /// Numbers of 16 bits with 11 bits of precision, for vectors of unit length.
    F16,
    /// Numbers of 16 bits with 8 bits of precision and the range of f32.
    Bf16,
}

/// Vectors that a device has loaded.
pub trait LoadedVectors: Send + Sync {
    /// Scores each block's rows with its columns, and calls `take(scores, columns)` with the k best of each row.
    ///
    /// Both are [blocks × block rows × k], best first within a row; columns are numbered within their block. Several
    /// threads may call this at once: while one waits for the device, others prepare and `take`.
    ///
    /// # Errors
    /// Those of [`Device::load`].
    fn best(&self, blocks: &DeviceBlocks<'_>, take: &mut dyn FnMut(&[f32], &[i32])) -> Result<()>;

    /// How many calls are served at the same time while others wait; 1 by default.
    fn at_once(&self) -> usize {
        1
    }
}

/// Blocks of rows, and the columns that each block's rows are scored with.
#[derive(Clone, Debug)]
pub struct DeviceBlocks<'a> {
    /// The rows [blocks × block rows].
    pub rows: DeviceRows<'a>,
    /// How many rows a block has.
    pub block_rows: usize,
    /// The columns [blocks × block columns], as positions among the loaded vectors.
    pub columns: &'a [i32],
    /// How many columns a block has.
    pub block_columns: usize,
    /// How many columns to keep for each row, from 1 to `block_columns`.
    pub k: usize,
}

/// The rows of blocks.
#[derive(Clone, Debug)]
pub enum DeviceRows<'a> {
    /// Positions among the loaded vectors.
    Places(&'a [i32]),
    /// The vectors themselves, row-major.
    Given(&'a [f32]),
}

impl DeviceFormat {
    /// How many bytes a number has.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}
