use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};

use super::Store;
use crate::error::{Error, Result};
use crate::sample::SampleId;

/// Samples that share a value: a group for each value that at least two samples have, of each of some keys.
///
/// Values are compared by 64 bits of their hash. Two unlike values may have the same, which then keeps samples apart
/// that need not be, and never brings two together that must not be: among a million values the odds are one in 37
/// million, among a billion one in 37. 4 bytes a sample and key, and 8 for each sample that is in a group; 16 for each
/// value while they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Where in `of` the groups of each sample begin; one more than there are samples.
    starts: Vec<u32>,
    of: Vec<u32>,
    /// Where in `members` those of each group begin; one more than there are groups.
    first_members: Vec<u32>,
    members: Vec<SampleId>,
    /// Where the groups of each key begin; one more than there are keys.
    first_groups: Vec<u32>,
    /// The most samples that can be together by each key, and which of its columns says so.
    most_together: Vec<(usize, usize)>,
}

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

impl Groups {
    /// Groups by each of these keys. A null is in no group, nor is NaN, and −0 is 0. Reads the columns once; blocks
    /// meanwhile. Groups are numbered by key, and then by their first sample.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; [`Error::ColumnType`] for types that have no equality; [`Error::TooManySamples`] where
    /// lists have more than four billion items.
    pub fn of(store: &Store, keys: &[Key]) -> Result<Self> {
        let mut groups = Self { first_members: vec![0], first_groups: vec![0], ..Self::default() };
        let mut memberships: Vec<(SampleId, u32)> = Vec::new();
        for key in keys {
            let (mut hashes, mut most_together) = (Vec::new(), (store.len(), 0));
            for (place, (columns, by_item)) in key.values().into_iter().enumerate() {
                let (mut found, nulls) = self::hashes(store, &columns, by_item)?;
                found.sort_unstable();
                found.dedup();
                if let Some(nulls) = nulls {
                    let values = found.chunk_by(|a, b| a.0 == b.0).count();
                    most_together = most_together.min((nulls + values, place));
                }
                if hashes.is_empty() {
                    hashes = found;
                } else {
                    hashes.append(&mut found);
                    hashes.sort();
                    hashes.dedup();
                }
            }
            let mut shared: Vec<_> = hashes.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1).collect();
            // Not by hash: another Rust release may hash differently, and mini-batches must not depend on that.
            shared.sort_unstable_by(|a, b| a.iter().map(|of| of.1).cmp(b.iter().map(|of| of.1)));
            for same in shared {
                let group = groups.len() as u32;
                memberships.extend(same.iter().map(|&(_, id)| (id, group)));
                groups.members.extend(same.iter().map(|&(_, id)| id));
                groups.first_members.push(position(groups.members.len(), store)?);
            }
            groups.most_together.push(most_together);
            groups.first_groups.push(groups.len() as u32);
        }
        memberships.sort_unstable();
        groups.starts.reserve(store.len() + 1);
        groups.of.reserve(memberships.len());
        for id in 0..store.len() {
            groups.starts.push(position(groups.of.len(), store)?);
            let rest = &memberships[groups.of.len()..];
            groups.of.extend(rest.iter().take_while(|(member, _)| member.index() == id).map(|&(_, group)| group));
        }
        groups.starts.push(position(groups.of.len(), store)?);
        Ok(groups)
    }

    /// How many groups there are, of all keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first_members.len().saturating_sub(1)
    }

    /// Whether no two samples share a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The groups that a sample is in; none for samples that came later.
    #[inline]
    #[must_use]
    pub fn groups_of(&self, id: SampleId) -> &[u32] {
        match self.starts.get(id.index()..id.index() + 2) {
            Some(&[start, end]) => &self.of[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The samples in a group, by id.
    #[must_use]
    pub fn members(&self, group: u32) -> &[SampleId] {
        let range = |group: usize| self.first_members[group] as usize..self.first_members[group + 1] as usize;
        &self.members[range(group as usize)]
    }

    /// How many keys were looked at.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.most_together.len()
    }

    /// The groups of a key.
    #[must_use]
    pub fn of_key(&self, key: usize) -> Range<u32> {
        self.first_groups[key]..self.first_groups[key + 1]
    }

    /// The most samples that can be together without sharing a value of a key: its different values, every null one of
    /// its own; of several columns those of the one that has the fewest. Of lists all samples, though it may be fewer.
    #[must_use]
    pub fn most_together(&self, key: usize) -> usize {
        self.most_together[key].0
    }

    /// Which of a key's columns has so few values, from 0.
    pub(crate) fn scarcest(&self, key: usize) -> usize {
        self.most_together[key].1
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

fn position(at: usize, store: &Store) -> Result<u32> {
    u32::try_from(at).map_err(|_| Error::TooManySamples { uri: store.uri().to_owned() })
}
