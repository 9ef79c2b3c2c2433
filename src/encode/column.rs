use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use super::{BadRow, Encoded, Encoder, refuse};
use crate::error::{Error, Result};
use crate::source::positions;

/// Reads vectors that are in the data already: lists of numbers of any type.
///
/// The trainer's or another tool's embeddings, precomputed: no model runs.
#[derive(Clone, Debug)]
pub struct ColumnEncoder {
    columns: [String; 1],
    dimension: usize,
}

impl ColumnEncoder {
    /// An encoder that reads `column` of rows with this schema, a fixed-size list.
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
            DataType::List(item) | DataType::LargeList(item) if item.data_type().is_numeric() => {
                Err(unfit(field, "say how many numbers a list has, as encode.dimension, or write fixed-size lists"))
            }
            _ => Err(unfit(field, "precomputed embeddings are lists of numbers; name another column")),
        }
    }

    /// The same, for lists of any size: rows whose list has not `dimension` numbers cannot be read.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; [`Error::ColumnType`] for anything but lists of numbers, or a fixed size that is another.
    pub fn of_dimension(schema: &Schema, column: impl Into<String>, dimension: usize) -> Result<Self> {
        let columns = [column.into()];
        let field = schema.field(positions("the source", schema, &columns)?[0]);
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

    /// Of `n` rows: where the numbers of each begin and end, and all numbers.
    fn numbers(&self, list: &dyn Array) -> Result<(Vec<usize>, PrimitiveArray<Float32Type>)> {
        let (ends, values): (Vec<usize>, &ArrayRef) = match list.data_type() {
            DataType::List(_) => {
                let list = list.as_list::<i32>();
                (list.value_offsets().iter().map(|&end| end as usize).collect(), list.values())
            }
            DataType::LargeList(_) => {
                let list = list.as_list::<i64>();
                (list.value_offsets().iter().map(|&end| end as usize).collect(), list.values())
            }
            _ => {
                let list = list.as_fixed_size_list();
                let first = list.value_offset_at(0);
                ((0..=list.len()).map(|row| first + row * self.dimension).collect(), list.values())
            }
        };
        let cast = cast(values, &DataType::Float32);
        let cast = cast.map_err(|e| Error::Encode { encoder: self.columns[0].clone(), cause: e.into() })?;
        Ok((ends, cast.as_primitive().clone()))
    }
}

fn unfit(field: &Field, expected: &str) -> Error {
    Error::ColumnType {
        column: field.name().clone(),
        found: field.data_type().to_string(),
        expected: expected.to_owned(),
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
        refuse(self.name(), self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let (ends, numbers) = self.numbers(rows.column(0))?;
        let mut bad = Vec::new();
        for (row, vector) in vectors.chunks_exact_mut(self.dimension).enumerate() {
            let (start, len) = (ends[row], ends[row + 1] - ends[row]);
            let nulls = numbers.slice(start, len).null_count();
            let reason = match (len == self.dimension, nulls) {
                (true, 0) => {
                    vector.copy_from_slice(&numbers.values()[start..][..len]);
                    continue;
                }
                (true, _) => format!("has {nulls} nulls among its numbers"),
                (false, _) => format!("has {len} numbers, not {}", self.dimension),
            };
            bad.push(BadRow { row, column: self.columns[0].clone(), reason });
        }
        Ok(Encoded { bad, ..Encoded::default() })
    }
}
