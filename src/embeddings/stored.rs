//! The numbers of an embedding table, in one of three types.

use std::ops::Range;

use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::arrow_file::checksum;
use crate::config::Storage;
use crate::memory::LargeArray;
use crate::simd::prefetch;

/// The numbers of all vectors [vectors × dimension], row-major, in the type that [`Storage`] says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StoredVectors {
    F32(LargeArray<f32>),
    F16(LargeArray<f16>),
    /// A component is its number times the factor of its vector.
    I8 {
        numbers: LargeArray<i8>,
        factors: LargeArray<f32>,
    },
}

impl StoredVectors {
    /// Makes an empty list with space for `vectors` of `dimension` numbers.
    pub fn with_capacity(storage: Storage, vectors: usize, dimension: usize) -> Self {
        let numbers = vectors * dimension;
        match storage {
            Storage::F32 => Self::F32(LargeArray::with_capacity(numbers)),
            Storage::F16 => Self::F16(LargeArray::with_capacity(numbers)),
            Storage::I8 => {
                let (numbers, factors) = (LargeArray::with_capacity(numbers), LargeArray::with_capacity(vectors));
                Self::I8 { numbers, factors }
            }
        }
    }

    /// Makes a copy with space for `vectors` of `dimension` numbers in all.
    pub fn copy_with_capacity(&self, vectors: usize, dimension: usize) -> Self {
        let capacity = vectors * dimension;
        match self {
            Self::F32(numbers) => Self::F32(numbers.copy_with_capacity(capacity)),
            Self::F16(numbers) => Self::F16(numbers.copy_with_capacity(capacity)),
            Self::I8 { numbers, factors } => {
                let factors = factors.copy_with_capacity(vectors);
                Self::I8 { numbers: numbers.copy_with_capacity(capacity), factors }
            }
        }
    }

    /// Makes a copy of the vectors at these indices, in this order.
    pub fn select(&self, indices: &[u32], dimension: usize) -> Self {
        let mut selected = Self::with_capacity(self.storage(), indices.len(), dimension);
        for &index in indices {
            let range = range_of(index as usize, dimension);
            match (&mut selected, self) {
                (Self::F32(to), Self::F32(from)) => to.to_mut().extend_from_slice(&from[range]),
                (Self::F16(to), Self::F16(from)) => to.to_mut().extend_from_slice(&from[range]),
                (Self::I8 { numbers: to, factors: to_factors }, Self::I8 { numbers, factors }) => {
                    to.to_mut().extend_from_slice(&numbers[range]);
                    to_factors.to_mut().push(factors[index as usize]);
                }
                _ => {}
            }
        }
        selected
    }

    /// Returns how many numbers all vectors have together.
    pub fn numbers(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::I8 { numbers, .. } => numbers.len(),
        }
    }

    /// Returns a hash of all numbers.
    pub fn digest(&self) -> u64 {
        match self {
            Self::F32(numbers) => checksum(numbers.to_byte_slice()),
            Self::F16(numbers) => checksum(numbers.to_byte_slice()),
            Self::I8 { numbers, factors } => {
                checksum(numbers.to_byte_slice()) ^ checksum(factors.to_byte_slice()).rotate_left(1)
            }
        }
    }

    pub fn storage(&self) -> Storage {
        match self {
            Self::F32(_) => Storage::F32,
            Self::F16(_) => Storage::F16,
            Self::I8 { .. } => Storage::I8,
        }
    }

    /// Appends a vector of zeros.
    pub fn push_zeros(&mut self, dimension: usize) {
        match self {
            Self::F32(numbers) => extend(numbers, dimension, 0.0),
            Self::F16(numbers) => extend(numbers, dimension, f16::ZERO),
            Self::I8 { numbers, factors } => {
                extend(numbers, dimension, 0);
                extend(factors, 1, 0.0);
            }
        }
    }

    /// Rounds a vector, and stores it at `index`.
    ///
    /// # Errors
    /// The first component that overflows f16.
    pub fn set(&mut self, index: usize, vector: &[f32]) -> Result<(), usize> {
        let range = range_of(index, vector.len());
        match self {
            Self::F32(numbers) => numbers.to_mut()[range].copy_from_slice(vector),
            Self::F16(numbers) => {
                let numbers = numbers.to_mut();
                numbers[range.clone()].convert_from_f32_slice(vector);
                if let Some(component) = numbers[range].iter().position(|x| !x.is_finite()) {
                    return Err(component);
                }
            }
            Self::I8 { numbers, factors } => {
                let largest = vector.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                let scale = if largest > 0.0 { LARGEST_I8 / largest } else { 0.0 };
                let scaled = vector.iter().map(|x| (x * scale).round_ties_even() as i8);
                numbers.to_mut()[range].iter_mut().zip(scaled).for_each(|(number, x)| *number = x);
                factors.to_mut()[index] = largest / LARGEST_I8;
            }
        }
        Ok(())
    }

    /// Returns the vector at `index`, if it is stored in f32.
    #[inline]
    pub fn f32(&self, index: usize, dimension: usize) -> Option<&[f32]> {
        let Self::F32(numbers) = self else { return None };
        Some(&numbers[range_of(index, dimension)])
    }

    /// Copies the vector at `index` to `vector`.
    #[inline]
    pub fn read(&self, index: usize, vector: &mut [f32]) {
        let range = range_of(index, vector.len());
        match self {
            Self::F32(numbers) => vector.copy_from_slice(&numbers[range]),
            Self::F16(numbers) => numbers[range].convert_to_f32_slice(vector),
            Self::I8 { numbers, factors } => {
                let factor = factors[index];
                for (x, &number) in vector.iter_mut().zip(&numbers[range]) {
                    *x = f32::from(number) * factor;
                }
            }
        }
    }

    /// Prefetches the vector at `index` into the caches.
    #[inline]
    pub fn prefetch(&self, index: usize, dimension: usize) {
        let range = range_of(index, dimension);
        match self {
            Self::F32(numbers) => prefetch(&numbers[range]),
            Self::F16(numbers) => prefetch(&numbers[range]),
            Self::I8 { numbers, .. } => prefetch(&numbers[range]),
        }
    }
}

fn extend<T: ArrowNativeType>(numbers: &mut LargeArray<T>, count: usize, value: T) {
    let numbers = numbers.to_mut();
    numbers.resize(numbers.len() + count, value);
}

/// Returns the range of the numbers of the vector at `index`.
#[inline]
fn range_of(index: usize, dimension: usize) -> Range<usize> {
    index * dimension..(index + 1) * dimension
}

/// The largest number in i8; the range is symmetric.
const LARGEST_I8: f32 = 127.0;
