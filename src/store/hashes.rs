//! Hashes values, for samples that share a value to be found.

use std::hash::{DefaultHasher, Hasher};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};

use super::Store;
use crate::error::{ColumnError, Result};
use crate::sample::SampleId;

/// What samples are grouped by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The content of all of these columns together. Without columns, no two samples share it.
    Content(Vec<ColumnPath>),
    /// The value of a column, or any item of a list column.
    Value(String),
    /// The value of any of these columns, such as the two columns of a pair, or any item of a list of texts. They have
    /// types that are [alike](Self::are_alike).
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
    /// Whether values of two types can be equal: both are texts or bytes, or lists of these, or they are one type.
    #[must_use]
    pub fn are_alike(a: &DataType, b: &DataType) -> bool {
        let text_of = |data_type| match item_type(data_type) {
            Some(item) if is_text(item) => item,
            _ => data_type,
        };
        let (a, b) = (text_of(a), text_of(b));
        a == b || is_text(a) && is_text(b)
    }
}

/// Whether values are texts or bytes, in any layout.
fn is_text(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_binary() && !matches!(data_type, DataType::FixedSizeBinary(_))
}

impl Key {
    /// Returns the columns of each value of a sample, and which lists have items that are values.
    fn values(&self) -> Vec<(Vec<ColumnPath>, Items)> {
        match self {
            Self::Content(columns) if columns.is_empty() => Vec::new(),
            Self::Content(columns) => vec![(columns.clone(), Items::None)],
            Self::Value(column) => vec![(vec![column.into()], Items::All)],
            Self::Either(columns) => columns.iter().map(|column| (vec![column.clone()], Items::Texts)).collect(),
        }
    }
}

/// Which lists have items that are values, and are no values themselves.
#[derive(Clone, Copy, Debug)]
enum Items {
    None,
    /// Lists of texts or bytes: lists of numbers are vectors.
    Texts,
    All,
}

impl Items {
    fn are_values(self, data_type: &DataType) -> bool {
        match (self, item_type(data_type)) {
            (Self::None, _) | (_, None) => false,
            (Self::Texts, Some(item)) => is_text(item),
            (Self::All, Some(_)) => true,
        }
    }
}

/// Hashes of a key's values, each with its sample, sorted and without duplicates; then the most samples that can be
/// together without sharing a value, and the index of the key's column that limits them.
pub(crate) type KeyHashes = (Vec<(u64, SampleId)>, (usize, usize));

impl Store {
    /// Hashes a key's values. Reads the columns once, and blocks meanwhile.
    ///
    /// Null and NaN have no hash, and −0 has that of 0.
    ///
    /// # Errors
    /// [`ColumnError::Missing`]; [`ColumnError::Type`] for types that have no equality.
    pub(crate) fn hashes(&self, key: &Key) -> Result<KeyHashes> {
        let mut all = Vec::new();
        let mut most_together = (self.len(), 0);
        for (index, (columns, items)) in key.values().into_iter().enumerate() {
            let (mut found, nulls) = hashes(self, &columns, items)?;
            found.sort_unstable();
            found.dedup();
            if let Some(nulls) = nulls {
                let values = found.chunk_by(|a, b| a.0 == b.0).count();
                most_together = most_together.min((nulls + values, index));
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

/// Hashes the values of some columns together, or the items of a list, each with its sample.
///
/// Also returns how many samples have no value, unless items are hashed.
fn hashes(store: &Store, columns: &[ColumnPath], items: Items) -> Result<Hashes> {
    let names: Vec<_> = columns.iter().map(|path| path.column.clone()).collect();
    let store = store.select(&names)?;
    let empty = RecordBatch::new_empty(store.schema());
    let types: Vec<_> = values(&empty, columns)?.0.iter().map(|values| values.data_type().clone()).collect();
    let listed = items.are_values(&types[0]);
    let refused = |_| ColumnError::Type {
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
    let mut hashes = Vec::with_capacity(store.len());
    let mut nulls = 0;
    for item in store.record_batches() {
        let (first, batch) = item?;
        let sample = |row: usize| SampleId::new(first.index() + row);
        let (values, mut absent) = values(batch, columns)?;
        if listed {
            let list = cast(&values[0], &large(&values[0])).map_err(refused)?;
            let list = list.as_list::<i64>();
            let items = equatable(list.values().clone());
            let rows = converter.convert_columns(std::slice::from_ref(&items)).map_err(refused)?;
            let absent = items.logical_nulls();
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

/// Returns the columns at these paths, and the nulls of the structs that hold them.
///
/// The columns of the record batch are those of the paths, in the same order.
fn values(batch: &RecordBatch, paths: &[ColumnPath]) -> Result<(Vec<ArrayRef>, Option<NullBuffer>)> {
    let mut absent = None;
    let values = batch.columns().iter().zip(paths).map(|(column, path)| {
        let Some(field) = &path.field else { return Ok(column.clone()) };
        let structs = column.as_struct_opt();
        absent = NullBuffer::union(absent.as_ref(), structs.and_then(Array::nulls));
        structs.and_then(|structs| structs.column_by_name(field)).cloned().ok_or_else(|| ColumnError::Type {
            column: path.column.clone(),
            found: column.data_type().to_string(),
            expected: format!("a struct with `{field}` is read; name another column"),
        })
    });
    let values = values.collect::<Result<_, ColumnError>>()?;
    Ok((values, absent))
}

/// Makes equal floats equal bytes, as filters compare them: −0 becomes 0, and NaN, which equals nothing, null.
fn equatable(values: ArrayRef) -> ArrayRef {
    fn map<T: ArrowPrimitiveType>(values: &ArrayRef, same: impl Fn(T::Native) -> Option<T::Native>) -> ArrayRef {
        let values: PrimitiveArray<T> = values.as_primitive::<T>().unary_opt(same);
        std::sync::Arc::new(values)
    }
    match values.data_type() {
        DataType::Float16 => map::<Float16Type>(&values, |x| (!x.is_nan()).then_some(x + half::f16::ZERO)),
        DataType::Float32 => map::<Float32Type>(&values, |x| (!x.is_nan()).then_some(x + 0.0)),
        DataType::Float64 => map::<Float64Type>(&values, |x| (!x.is_nan()).then_some(x + 0.0)),
        _ => values,
    }
}

/// The type of the items of a list; `None` for other types.
fn item_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

/// Returns the type of the lists with 64-bit offsets.
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
