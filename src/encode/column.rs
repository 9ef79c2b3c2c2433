//! An encoder for vectors that are already in the data.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use super::{BadRow, Encoded, Encoder, refuse};
use crate::error::{ColumnError, Error, Result};
use crate::source::column_indices;

/// Reads precomputed vectors from a column: lists of numbers of any type.
///
/// They are embeddings that the trainer or another tool has made. No model runs.
#[derive(Clone, Debug)]
pub struct ColumnEncoder {
    columns: [String; 1],
    dimension: usize,
}

impl ColumnEncoder {
    /// Makes an encoder that reads `column`, a fixed-size list, from rows with this schema.
    ///
    /// # Errors
    /// [`ColumnError::Missing`]; [`ColumnError::Type`] for anything but a fixed-size list of numbers.
    pub fn new(schema: &Schema, column: impl Into<String>) -> Result<Self> {
        let columns = [column.into()];
        let field = schema.field(column_indices("the source", schema, &columns)?[0]);
        match field.data_type() {
            DataType::FixedSizeList(item, size) if item.data_type().is_numeric() && *size > 0 => {
                Ok(Self { columns, dimension: *size as usize })
            }
            DataType::List(item) | DataType::LargeList(item) if item.data_type().is_numeric() => {
                Err(unfit(field, "say how many numbers a list has, as encode.dimension, or write fixed-size lists"))
            }
            _ => Err(unfit(field, "precomputed embeddings are lists of numbers; name another column")),
        }
    }

    /// Makes an encoder that reads `column`, lists of any size, from rows with this schema.
    ///
    /// A row whose list does not have `dimension` numbers cannot be read.
    ///
    /// # Errors
    /// [`ColumnError::Missing`]; [`ColumnError::Type`] for anything but lists of numbers, or for fixed-size lists of
    /// another size.
    pub fn of_dimension(schema: &Schema, column: impl Into<String>, dimension: usize) -> Result<Self> {
        let columns = [column.into()];
        let field = schema.field(column_indices("the source", schema, &columns)?[0]);
        match field.data_type() {
            DataType::FixedSizeList(_, size) if *size as usize != dimension => {
                Err(unfit(field, "its lists have another size than encode.dimension; remove that"))
            }
            DataType::FixedSizeList(..) => Self::new(schema, columns[0].clone()),
            DataType::List(item) | DataType::LargeList(item) if item.data_type().is_numeric() && dimension > 0 => {
                Ok(Self { columns, dimension })
            }
            _ => Err(unfit(field, "precomputed embeddings are lists of numbers; name another column")),
        }
    }

    /// Returns the offsets of all rows' lists, one more than there are rows, and the numbers of all lists.
    fn numbers(&self, list: &dyn Array) -> Result<(Vec<usize>, PrimitiveArray<Float32Type>)> {
        let (offsets, values): (Vec<usize>, &ArrayRef) = match list.data_type() {
            DataType::List(_) => {
                let list = list.as_list::<i32>();
                (list.value_offsets().iter().map(|&offset| offset as usize).collect(), list.values())
            }
            DataType::LargeList(_) => {
                let list = list.as_list::<i64>();
                (list.value_offsets().iter().map(|&offset| offset as usize).collect(), list.values())
            }
            _ => {
                let list = list.as_fixed_size_list();
                let first = list.value_offset_at(0);
                ((0..=list.len()).map(|row| first + row * self.dimension).collect(), list.values())
            }
        };
        let cast = cast(values, &DataType::Float32);
        let cast = cast.map_err(|e| Error::Encode { encoder: self.columns[0].clone(), cause: e.into() })?;
        Ok((offsets, cast.as_primitive().clone()))
    }
}

fn unfit(field: &Field, expected: &str) -> Error {
    ColumnError::Type {
        column: field.name().clone(),
        found: field.data_type().to_string(),
        expected: expected.to_owned(),
    }
    .into()
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
        refuse(self.name(), self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let (offsets, numbers) = self.numbers(rows.column(0))?;
        let mut bad = Vec::new();
        for (row, vector) in vectors.chunks_exact_mut(self.dimension).enumerate() {
            let start = offsets[row];
            let len = offsets[row + 1] - start;
            let nulls = numbers.slice(start, len).null_count();
            let reason = if len != self.dimension {
                format!("has {len} numbers, not {}", self.dimension)
            } else if nulls > 0 {
                format!("has {nulls} nulls among its numbers")
            } else {
                vector.copy_from_slice(&numbers.values()[start..][..len]);
                continue;
            };
            bad.push(BadRow { row, column: self.columns[0].clone(), reason });
        }
        Ok(Encoded { bad, ..Encoded::default() })
    }
}
