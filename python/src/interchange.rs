//! Arrow's C data interface in Python capsules; nothing is copied.

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

/// Two capsules, as `__arrow_c_array__` gives them.
pub type Capsules<'py> = (Bound<'py, PyCapsule>, Bound<'py, PyCapsule>);

pub fn failed(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub fn schema_capsule<'py>(
    py: Python<'py>,
    schema: impl TryInto<FFI_ArrowSchema, Error = ArrowError>,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, schema.try_into().map_err(failed)?, c"arrow_schema")
}

pub fn array_capsules<'py>(py: Python<'py>, field: &Field, array: &dyn Array) -> PyResult<Capsules<'py>> {
    let array = FFI_ArrowArray::new(&array.to_data());
    Ok((schema_capsule(py, field)?, PyCapsule::new_with_value(py, array, c"arrow_array")?))
}

pub fn batch_capsules<'py>(py: Python<'py>, batch: &RecordBatch) -> PyResult<Capsules<'py>> {
    let array = FFI_ArrowArray::new(&StructArray::from(batch.clone()).to_data());
    Ok((schema_capsule(py, batch.schema().as_ref())?, PyCapsule::new_with_value(py, array, c"arrow_array")?))
}

/// Reads whatever has `__arrow_c_stream__`.
pub fn reader(data: &Bound<'_, PyAny>) -> PyResult<RecordBatchStreamReader> {
    let capsule = data.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>().map_err(|_| {
        PyTypeError::new_err("`__arrow_c_stream__` gave no capsule; give a table of pyarrow, polars or duckdb")
    })?;
    let stream = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name holds such a stream; it is moved out, and what stays is marked as released.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(stream.as_ptr()) };
    let kind = data.get_type().name()?;
    RecordBatchStreamReader::try_new(stream)
        .map_err(|e| PyTypeError::new_err(format!("data is a {kind}, whose rows have no columns ({e}); give a table")))
}

/// The schema's capsule, for `__arrow_c_schema__`.
pub fn of_schema<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyCapsule>> {
    schema_capsule(py, schema)
}
