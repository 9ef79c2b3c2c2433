//! Columns of numbers as tensors, by DLPack; nothing is copied but bits, which become bytes.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use pyo3::ffi;
use pyo3::prelude::*;

/// Numbers, row-major.
pub struct Tensor {
    buffer: Buffer,
    shape: Vec<i64>,
    number: Number,
}

/// The parts of dlpack.h that are in use.
mod abi {
    use std::ffi::c_void;

    #[repr(C)]
    pub struct Device {
        pub device_type: i32,
        pub device_id: i32,
    }

    #[derive(Clone, Copy)]
    #[repr(C)]
    pub struct Number {
        pub code: u8,
        pub bits: u8,
        pub lanes: u16,
    }

    #[repr(C)]
    pub struct Tensor {
        pub data: *mut c_void,
        pub device: Device,
        pub ndim: i32,
        pub dtype: Number,
        pub shape: *mut i64,
        pub strides: *mut i64,
        pub byte_offset: u64,
    }

    #[repr(C)]
    pub struct Managed {
        pub tensor: Tensor,
        pub manager: *mut c_void,
        pub deleter: Option<unsafe extern "C" fn(*mut Self)>,
    }
}

use abi::{Managed, Number};

/// Device type and number: the CPU.
pub const CPU: (i32, i32) = (1, 0);
const FRESH: &CStr = c"dltensor";

/// What lives as long as the tensor does in another library.
struct Kept {
    _buffer: Buffer,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Tensor {
    /// The numbers of a column: [rows], or [rows, width] for lists of equally many, and so on. The error says what it
    /// holds instead.
    pub fn of(column: &ArrayRef) -> Result<Self, String> {
        let (mut column, mut shape) = (column.clone(), vec![column.len() as i64]);
        loop {
            if column.null_count() > 0 {
                return Err(format!("has {} nulls", column.null_count()));
            }
            let (first, width, values) = match column.data_type() {
                DataType::FixedSizeList(_, width) => {
                    let list = column.as_fixed_size_list();
                    (list.value_offset_at(0), *width as usize, list.values().clone())
                }
                DataType::List(_) => {
                    let list = column.as_list::<i32>();
                    (list.value_offsets()[0] as usize, width(list.offsets().lengths())?, list.values().clone())
                }
                DataType::LargeList(_) => {
                    let list = column.as_list::<i64>();
                    (list.value_offsets()[0] as usize, width(list.offsets().lengths())?, list.values().clone())
                }
                _ => break,
            };
            shape.push(width as i64);
            column = values.slice(first, column.len() * width);
        }
        let number = number(column.data_type()).ok_or_else(|| format!("holds {}", column.data_type()))?;
        let buffer = match column.as_boolean_opt() {
            Some(bits) => bits.values().iter().map(u8::from).collect::<Vec<_>>().into(),
            None => {
                let (data, width) = (column.to_data(), usize::from(number.bits / 8));
                data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width)
            }
        };
        Ok(Self { buffer, shape, number })
    }

    /// A capsule that a consumer takes over.
    pub fn into_capsule(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let data = self.buffer.as_ptr().cast_mut().cast::<c_void>();
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let mut kept = Box::new(Kept { _buffer: self.buffer, shape: self.shape, strides });
        let tensor = abi::Tensor {
            data,
            device: abi::Device { device_type: CPU.0, device_id: CPU.1 },
            ndim: kept.shape.len() as i32,
            dtype: self.number,
            shape: kept.shape.as_mut_ptr(),
            strides: kept.strides.as_mut_ptr(),
            byte_offset: 0,
        };
        let manager = Box::into_raw(kept).cast();
        let managed = Box::into_raw(Box::new(Managed { tensor, manager, deleter: Some(delete) }));
        // SAFETY: the pointer is that of a struct of this kind, which the capsule owns until it is renamed.
        unsafe {
            let capsule = ffi::PyCapsule_New(managed.cast(), FRESH.as_ptr(), Some(drop_capsule));
            Bound::from_owned_ptr_or_err(py, capsule).inspect_err(|_| delete(managed))
        }
    }
}

/// Takes back what `into_capsule` gave away.
unsafe extern "C" fn delete(managed: *mut Managed) {
    // SAFETY: both boxes were made in `into_capsule`, and DLPack calls this once.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.manager.cast::<Kept>()));
    }
}

/// A capsule that nobody has consumed still owns its tensor; consumers rename it.
unsafe extern "C" fn drop_capsule(capsule: *mut ffi::PyObject) {
    // SAFETY: Python passes the capsule that dies; a capsule of the fresh name holds a `Managed`.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, FRESH.as_ptr()) == 1
            && let Some(managed) = NonNull::new(ffi::PyCapsule_GetPointer(capsule, FRESH.as_ptr()))
        {
            delete(managed.as_ptr().cast());
        }
    }
}

/// The length that all lists share.
fn width(mut lengths: impl Iterator<Item = usize>) -> Result<usize, String> {
    let first = lengths.next().unwrap_or(0);
    match lengths.find(|length| *length != first) {
        Some(other) => Err(format!("holds lists of unequal lengths, {first} and {other} among them")),
        None => Ok(first),
    }
}

fn number(data_type: &DataType) -> Option<Number> {
    let (code, bits) = match data_type {
        DataType::Int8 => (0, 8),
        DataType::Int16 => (0, 16),
        DataType::Int32 => (0, 32),
        DataType::Int64 => (0, 64),
        DataType::UInt8 => (1, 8),
        DataType::UInt16 => (1, 16),
        DataType::UInt32 => (1, 32),
        DataType::UInt64 => (1, 64),
        DataType::Float16 => (2, 16),
        DataType::Float32 => (2, 32),
        DataType::Float64 => (2, 64),
        DataType::Boolean => (6, 8),
        _ => return None,
    };
    Some(Number { code, bits, lanes: 1 })
}
