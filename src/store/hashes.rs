//! Which samples share a value, by hashes of the values.

use std::hash::{DefaultHasher, Hasher};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};

use super::Store;
use crate::error::{Error, Result};
use crate::sample::SampleId;

/// By what samples are grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The content of all of these together. Of none of them, no two samples share it.
    Content(Vec<ColumnPath>),
    /// The value of a column; of a list column, any of its items.
    Value(String),
    /// The value of any of these, of whichever: of a pair's two columns, that of either. They are of one
    /// [kind](Self::are_alike).
    Either(Vec<ColumnPath>),
}

/// A column, or a field of a struct column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnPath {
    /// The column.
    pub column: String,
    /// The field; `None` for the whole column.
    pub field: Option<String>,
}

impl<S: Into<String>> From<S> for ColumnPath {
    fn from(column: S) -> Self {
        Self { column: column.into(), field: None }
    }
}

impl Key {
    /// Whether values of two types can be the same: texts and bytes of any layout, or one type.
    #[must_use]
    pub fn are_alike(a: &DataType, b: &DataType) -> bool {
        let bytes = |data_type: &DataType| {
            data_type.is_string() || data_type.is_binary() && !matches!(data_type, DataType::FixedSizeBinary(_))
        };
        a == b || bytes(a) && bytes(b)
    }

    /// Where its values are: some columns together, and whether by item.
    fn values(&self) -> Vec<(Vec<ColumnPath>, bool)> {
        match self {
            Self::Content(columns) if columns.is_empty() => Vec::new(),
            Self::Content(columns) => vec![(columns.clone(), false)],
            Self::Value(column) => vec![(vec![column.into()], true)],
            Self::Either(columns) => columns.iter().map(|column| (vec![column.clone()], false)).collect(),
        }
    }
}

/// Hashes of a key's values, each with its sample, sorted and without duplicates; then the most samples that can be
/// together without sharing a value, and which of the key's columns says so.
pub(crate) type KeyHashes = (Vec<(u64, SampleId)>, (usize, usize));

impl Store {
    /// The hashes of a key's values. A null has none, nor has NaN, and −0 is 0. Reads the columns once; blocks meanwhile.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; [`Error::ColumnType`] for types that have no equality.
    pub(crate) fn hashes(&self, key: &Key) -> Result<KeyHashes> {
        let (mut all, mut most_together) = (Vec::new(), (self.len(), 0));
        for (place, (columns, by_item)) in key.values().into_iter().enumerate() {
            let (mut found, nulls) = hashes(self, &columns, by_item)?;
            found.sort_unstable();
            found.dedup();
            if let Some(nulls) = nulls {
                let values = found.chunk_by(|a, b| a.0 == b.0).count();
                most_together = most_together.min((nulls + values, place));
            }
            if all.is_empty() {
                all = found;
            } else {
                all.append(&mut found);
                all.sort();
                all.dedup();
            }
        }
        Ok((all, most_together))
    }
}

type Hashes = (Vec<(u64, SampleId)>, Option<usize>);

/// A number for every value of some columns together, or for every item of a list, with its sample; and, but for items,
/// how many samples have none.
fn hashes(store: &Store, columns: &[ColumnPath], by_item: bool) -> Result<Hashes> {
    let names: Vec<_> = columns.iter().map(|path| path.column.clone()).collect();
    let store = store.select(&names)?;
    let empty = RecordBatch::new_empty(store.schema());
    let types: Vec<_> = values(&empty, columns)?.0.iter().map(|values| values.data_type().clone()).collect();
    let listed = by_item && is_list(&types[0]);
    let refused = |_| Error::ColumnType {
        column: names.join("`, `"),
        found: types.iter().map(DataType::to_string).collect::<Vec<_>>().join(", "),
        expected: "values must be comparable; name another column in guards.distinct, or set guards.duplicates = false"
            .into(),
    };
    let sorted = types.iter().map(|data_type| match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) if listed => {
            item.data_type().clone()
        }
        other => other.clone(),
    });
    let converter = RowConverter::new(sorted.map(SortField::new).collect()).map_err(refused)?;
    let (mut hashes, mut nulls) = (Vec::with_capacity(store.len()), 0);
    for item in store.record_batches() {
        let (first, batch) = item?;
        let sample = |row: usize| SampleId::new(first.index() + row);
        let (values, mut absent) = values(batch, columns)?;
        if listed {
            let list = cast(&values[0], &large(&values[0])).map_err(refused)?;
            let list = list.as_list::<i64>();
            let items = equatable(list.values().clone());
            let (rows, absent) = (converter.convert_columns(std::slice::from_ref(&items)), items.logical_nulls());
            let rows = rows.map_err(refused)?;
            let is_there = |item: usize| absent.as_ref().is_none_or(|nulls| nulls.is_valid(item));
            for row in (0..list.len()).filter(|&row| list.is_valid(row)) {
                let items = list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
                hashes.extend(
                    items.filter(|&item| is_there(item)).map(|item| (hash(rows.row(item).as_ref()), sample(row))),
                );
            }
            continue;
        }
        let values: Vec<_> = values.into_iter().map(equatable).collect();
        let rows = converter.convert_columns(&values).map_err(refused)?;
        for values in &values {
            absent = NullBuffer::union(absent.as_ref(), values.logical_nulls().as_ref());
        }
        nulls += absent.as_ref().map_or(0, NullBuffer::null_count);
        let there = (0..batch.num_rows()).filter(|&row| absent.as_ref().is_none_or(|nulls| nulls.is_valid(row)));
        hashes.extend(there.map(|row| (hash(rows.row(row).as_ref()), sample(row))));
    }
    Ok((hashes, (!listed).then_some(nulls)))
}

/// What is at these paths, in columns that stand in the same order; and where a struct that should hold some is null.
fn values(batch: &RecordBatch, paths: &[ColumnPath]) -> Result<(Vec<ArrayRef>, Option<NullBuffer>)> {
    let mut absent = None;
    let values = batch.columns().iter().zip(paths).map(|(column, path)| {
        let Some(field) = &path.field else { return Ok(column.clone()) };
        let structs = column.as_struct_opt();
        absent = NullBuffer::union(absent.as_ref(), structs.and_then(Array::nulls));
        structs.and_then(|structs| structs.column_by_name(field)).cloned().ok_or_else(|| Error::ColumnType {
            column: path.column.clone(),
            found: column.data_type().to_string(),
            expected: format!("a struct with `{field}` is read; name another column"),
        })
    });
    let values = values.collect::<Result<_>>()?;
    Ok((values, absent))
}

/// As filters compare: −0 is 0, and NaN equals nothing, as null does.
fn equatable(values: ArrayRef) -> ArrayRef {
    fn of<T: ArrowPrimitiveType>(values: &ArrayRef, same: impl Fn(T::Native) -> Option<T::Native>) -> ArrayRef {
        let values: PrimitiveArray<T> = values.as_primitive::<T>().unary_opt(same);
        std::sync::Arc::new(values)
    }
    match values.data_type() {
        DataType::Float16 => of::<Float16Type>(&values, |x| (!x.is_nan()).then_some(x + half::f16::ZERO)),
        DataType::Float32 => of::<Float32Type>(&values, |x| (!x.is_nan()).then_some(x + 0.0)),
        DataType::Float64 => of::<Float64Type>(&values, |x| (!x.is_nan()).then_some(x + 0.0)),
        _ => values,
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// The type of the same lists with 64-bit offsets.
fn large(list: &ArrayRef) -> DataType {
    match list.data_type() {
        DataType::List(item) | DataType::FixedSizeList(item, _) => DataType::LargeList(item.clone()),
        other => other.clone(),
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
