use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Schema};

use super::Encoder;
use crate::error::{Error, Result};
use crate::source::positions;

/// Reads vectors that are in the data already: a fixed-size list of numbers.
///
/// The trainer's or another tool's embeddings, precomputed: no model runs.
#[derive(Clone, Debug)]
pub struct ColumnEncoder {
    columns: [String; 1],
    dimension: usize,
}

impl ColumnEncoder {
    /// An encoder that reads `column` of rows with this schema.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; [`Error::ColumnType`] for anything but a fixed-size list of numbers.
    pub fn new(schema: &Schema, column: impl Into<String>) -> Result<Self> {
        let columns = [column.into()];
        let field = schema.field(positions("the source", schema, &columns)?[0]);
        match field.data_type() {
            DataType::FixedSizeList(item, size) if item.data_type().is_numeric() && *size > 0 => {
                Ok(Self { columns, dimension: *size as usize })
            }
            other => Err(Error::ColumnType {
                column: field.name().clone(),
                found: other.to_string(),
                expected: "precomputed embeddings are a fixed-size list of numbers; write the column as that".into(),
            }),
        }
    }
}

impl Encoder for ColumnEncoder {
    fn name(&self) -> &str {
        &self.columns[0]
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let failed = |cause| Error::Encode { encoder: self.columns[0].clone(), cause };
        let list = rows.column(0).as_fixed_size_list();
        // A sliced list keeps all its values; these are the ones of its rows.
        let values: ArrayRef = list.values().slice(list.value_offset_at(0), list.len() * self.dimension);
        let values = cast(&values, &DataType::Float32).map_err(|e| failed(e.into()))?;
        if values.null_count() > 0 {
            return Err(failed("some of its numbers are null; fill them or filter these rows out".into()));
        }
        vectors.copy_from_slice(values.as_primitive::<Float32Type>().values());
        Ok(())
    }
}
