use arrow::array::{Array, ArrayRef, AsArray, RecordBatch as Rows};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyList};

use crate::dlpack::{CPU, Tensor};
use crate::interchange::{Capsules, array_capsules, batch_capsules, failed, of_schema};

/// Rows with named columns, in Arrow's memory layout.
///
/// Whatever reads Arrow takes it without a copy, by the PyCapsule interface: ``pyarrow.record_batch(rows)``,
/// ``polars.DataFrame(rows)``.
#[pyclass(frozen, module = "prosampler")]
pub struct RecordBatch(pub Rows);

/// One column of a record batch, for Arrow (``pyarrow.array(column)``) and DLPack (``torch.from_dlpack(column)``).
#[pyclass(frozen, module = "prosampler")]
pub struct Column {
    pub field: FieldRef,
    pub array: ArrayRef,
}

#[pymethods]
impl RecordBatch {
    /// Rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.0.num_rows()
    }

    /// The columns' names, in order.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.0.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    fn __len__(&self) -> usize {
        self.0.num_rows()
    }

    pub fn __getitem__(&self, name: &str) -> PyResult<Column> {
        let schema = self.0.schema();
        let position = schema.index_of(name).map_err(|_| {
            PyKeyError::new_err(format!("column `{name}` not found; there are {}", self.column_names().join(", ")))
        })?;
        Ok(Column { field: schema.fields()[position].clone(), array: self.0.column(position).clone() })
    }

    /// The columns by name, all or those that are asked for.
    ///
    /// Columns of numbers become tensors that share their memory, ``[rows]``, or ``[rows, width]`` for lists of equally
    /// many; texts and bytes become lists. Raises ``TypeError`` for what is neither.
    #[pyo3(signature = (columns=None))]
    pub fn to_torch<'py>(&self, py: Python<'py>, columns: Option<Vec<String>>) -> PyResult<Bound<'py, PyDict>> {
        let from_dlpack = py.import("torch")?.getattr("from_dlpack")?;
        let dict = PyDict::new(py);
        for name in columns.unwrap_or_else(|| self.column_names()) {
            let column = self.__getitem__(&name)?;
            match column.is_text() {
                true => dict.set_item(&name, column.to_list(py)?)?,
                false => dict.set_item(&name, from_dlpack.call1((Bound::new(py, column)?,))?)?,
            }
        }
        Ok(dict)
    }

    #[pyo3(signature = (requested_schema=None))]
    pub fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Capsules<'py>> {
        // A wish that the protocol allows to leave unheard.
        drop(requested_schema);
        batch_capsules(py, &self.0)
    }

    pub fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        of_schema(py, &self.0.schema())
    }

    fn __repr__(&self) -> String {
        format!("RecordBatch({})", shape(&self.0))
    }
}

/// `256 rows: a Int64, b Utf8`
pub fn shape(rows: &Rows) -> String {
    let schema = rows.schema();
    let columns: Vec<_> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    format!("{} rows: {}", rows.num_rows(), columns.join(", "))
}

#[pymethods]
impl Column {
    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.field.name()
    }

    fn __len__(&self) -> usize {
        self.array.len()
    }

    /// Its values as a list; texts and bytes only, for numbers are better in a tensor.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let plain = |data_type: &DataType| cast(&self.array, data_type).map_err(failed);
        match value_type(self.array.data_type()) {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                PyList::new(py, plain(&DataType::LargeUtf8)?.as_string::<i64>().iter())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                let array = plain(&DataType::LargeBinary)?;
                PyList::new(py, array.as_binary::<i64>().iter().map(|value| value.map(|v| PyBytes::new(py, v))))
            }
            other => Err(self.unfit(&format!("holds {other}"))),
        }
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Capsules<'py>> {
        // A wish that the protocol allows to leave unheard.
        drop(requested_schema);
        array_capsules(py, &self.field, &self.array)
    }

    /// A capsule with the numbers of this column. They are shared, not copied (truth values are copied).
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<Bound<'py, PyAny>>,
        dl_device: Option<Bound<'py, PyAny>>,
        copy: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // On the CPU, in the version that every consumer reads, and never copied: nothing to choose.
        drop((stream, max_version, dl_device, copy));
        Tensor::of(&self.array).map_err(|found| self.unfit(&found))?.into_capsule(py)
    }

    #[staticmethod]
    fn __dlpack_device__() -> (i32, i32) {
        CPU
    }

    fn __repr__(&self) -> String {
        format!("Column({} {}, {} rows)", self.field.name(), self.field.data_type(), self.array.len())
    }
}

impl Column {
    fn is_text(&self) -> bool {
        use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary, LargeUtf8, Utf8, Utf8View};
        let data_type = value_type(self.array.data_type());
        matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
    }

    fn unfit(&self, found: &str) -> PyErr {
        PyTypeError::new_err(format!(
            "column `{}` {found}, which makes no tensor and no list here; name the columns that you want, \
             to_torch([…]), or read it with pyarrow.record_batch(mini_batch)",
            self.field.name()
        ))
    }
}

fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}
