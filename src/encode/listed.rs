//! An encoder for columns that hold a list of items in each row.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema};

use super::{BadRow, Encoded, Encoder, refuse, unit_vectors};
use crate::error::{ColumnError, Error, Result};

/// Embeds rows by the items of a list column: the mean of their vectors, each of unit length.
///
/// Null items do not count. A row without items cannot be read.
pub(super) struct ListEncoder {
    /// Encodes items, from a column of the same name.
    items: Arc<dyn Encoder>,
    column: String,
}

impl ListEncoder {
    /// An encoder of a list column whose items `items` reads from a column of that name.
    pub fn new(items: Arc<dyn Encoder>, column: &str) -> Self {
        Self { items, column: column.to_owned() }
    }
}

/// The schema of the items of a list column, under the column's name; `None` if it holds no lists.
pub(super) fn items_of(schema: &Schema, column: &str) -> Option<Schema> {
    let field = schema.field_with_name(column).ok()?;
    let item = match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item,
        _ => return None,
    };
    let with_items = |field: &Arc<Field>| match field.name() == column {
        true => Arc::new(item.as_ref().clone().with_name(column)),
        false => field.clone(),
    };
    Some(Schema::new(schema.fields().iter().map(with_items).collect::<Vec<_>>()))
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Encoder for ListEncoder {
    fn name(&self) -> &str {
        self.items.name()
    }

    fn columns(&self) -> &[String] {
        self.items.columns()
    }

    /// Returns `None`: no field stands for a whole list.
    fn field(&self, _: &str) -> Option<&str> {
        None
    }

    fn identity(&self) -> Option<String> {
        Some(format!("mean of each item of `{}` by\n{}", self.column, self.items.identity()?))
    }

    fn calls_at_once(&self) -> usize {
        self.items.calls_at_once()
    }

    fn dimension(&self) -> usize {
        self.items.dimension()
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        let found =
            schema.field_with_name(&self.column).map_or_else(|_| "nothing".into(), |f| f.data_type().to_string());
        let items = items_of(schema, &self.column).ok_or_else(|| ColumnError::Type {
            column: self.column.clone(),
            found,
            expected: "each row needs a list of positives; name a list column in pairs.positive".into(),
        })?;
        self.items.accepts(uri, &items)
    }

    fn model_file(&self) -> Option<&Path> {
        self.items.model_file()
    }

    fn model_files(&self) -> Vec<&Path> {
        self.items.model_files()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let newer = self.items.newer()?;
        Ok(newer.map(|items| Arc::new(Self::new(items, &self.column)) as Arc<dyn Encoder>))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        refuse(self.name(), self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let failed = |cause| Error::Arrow { action: "take lists apart", cause };
        let (items, row_of) = apart(&rows[self.column.as_str()]).map_err(failed)?;
        let items = RecordBatch::try_from_iter([(self.column.as_str(), items)]).map_err(failed)?;
        let d = self.dimension();
        vectors.fill(0.0);
        let mut bad = Vec::new();
        let mut has_items = vec![false; rows.num_rows()];
        for begin in (0..items.num_rows()).step_by(MAX_ITEMS) {
            let part = items.slice(begin, MAX_ITEMS.min(items.num_rows() - begin));
            let mut bad_items = Vec::new();
            let made = unit_vectors(self.items.as_ref(), &part, &mut bad_items)?;
            for (vector, &row) in made.chunks_exact(d).zip(&row_of[begin..]) {
                has_items[row] = true;
                vectors[row * d..][..d].iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
            }
            bad.extend(bad_items.into_iter().map(|bad| BadRow { row: row_of[begin + bad.row], ..bad }));
        }
        let empty = (0..rows.num_rows()).filter(|&row| !has_items[row]);
        let column = || self.column.clone();
        bad.extend(empty.map(|row| BadRow { row, column: column(), reason: "has an empty list".into() }));
        super::once_a_row(&mut bad, vectors, d);
        Ok(Encoded { bad, pair_similarities: Vec::new() })
    }
}

/// The items of lists that are not null, and the row of each.
fn apart(lists: &ArrayRef) -> Result<(ArrayRef, Vec<usize>), arrow::error::ArrowError> {
    let item = match lists.data_type() {
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::LargeList(item) => item.clone(),
        other => return Err(arrow::error::ArrowError::CastError(format!("{other} holds no lists"))),
    };
    let lists = cast(lists, &DataType::LargeList(item))?;
    let lists = lists.as_list::<i64>();
    let nulls = lists.values().logical_nulls();
    let is_there = |item: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(item));
    let (mut indices, mut row_of) = (Vec::new(), Vec::new());
    for row in (0..lists.len()).filter(|&row| lists.is_valid(row)) {
        for item in lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize {
            if is_there(item) {
                indices.push(item as u64);
                row_of.push(row);
            }
        }
    }
    Ok((take(lists.values(), &UInt64Array::from(indices), None)?, row_of))
}

/// The most items that are encoded at a time.
const MAX_ITEMS: usize = 8192;
