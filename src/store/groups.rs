use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::slice::from_ref;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::Store;
use crate::error::{Error, Result};
use crate::sample::SampleId;

/// Samples that share a value: a group for each value that at least two samples have, of each of some keys.
///
/// Values are compared by 32 bits of their hash: of two unlike values, one pair in four billion counts as the same, which
/// keeps two samples apart that need not be. 4 bytes a sample and key, and 8 for each sample that is in a group.
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
    /// The most samples that can be together by each key.
    most_together: Vec<usize>,
}

impl Groups {
    /// Groups by the content of some columns together, key 0, and by each of the columns in `distinct`, the keys after
    /// it. Without content columns, no two samples share it. A null is in no group. Of list columns in `distinct`, the
    /// items are values. Reads the columns once; blocks meanwhile.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; [`Error::ColumnType`] for types that have no equality; [`Error::TooManySamples`] where
    /// lists have more than four billion items.
    pub fn of(store: &Store, content: &[String], distinct: &[String]) -> Result<Self> {
        let mut groups = Self { first_members: vec![0], first_groups: vec![0], ..Self::default() };
        let mut memberships: Vec<(SampleId, u32)> = Vec::new();
        let keys = std::iter::once((content, false)).chain(distinct.iter().map(|column| (from_ref(column), true)));
        for (key, by_item) in keys {
            if key.is_empty() {
                groups.most_together.push(store.len());
                groups.first_groups.push(groups.len() as u32);
                continue;
            }
            let (mut hashes, nulls) = hashes(store, key, by_item)?;
            let mut values = 0;
            hashes.sort_unstable();
            hashes.dedup();
            for same in hashes.chunk_by(|a, b| a.0 == b.0) {
                values += 1;
                if same.len() < 2 {
                    continue;
                }
                let group = groups.len() as u32;
                memberships.extend(same.iter().map(|&(_, id)| (id, group)));
                groups.members.extend(same.iter().map(|&(_, id)| id));
                groups.first_members.push(position(groups.members.len(), store)?);
            }
            groups.most_together.push(nulls.map_or(store.len(), |nulls| nulls + values));
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
    /// its own. Of lists all samples, though it may be fewer.
    #[must_use]
    pub fn most_together(&self, key: usize) -> usize {
        self.most_together[key]
    }
}

type Hashes = (Vec<(u32, SampleId)>, Option<usize>);

/// A number for every value of a key, or for every item of its lists, with its sample; and, but for items, how many
/// samples have none.
fn hashes(store: &Store, key: &[String], by_item: bool) -> Result<Hashes> {
    let store = store.select(key)?;
    let schema = store.schema();
    let listed = by_item && is_list(schema.field(0).data_type());
    let types = schema.fields().iter().map(|field| match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) if listed => {
            item.data_type().clone()
        }
        other => other.clone(),
    });
    let refused = |_| Error::ColumnType {
        column: key.join("`, `"),
        found: schema.fields().iter().map(|field| field.data_type().to_string()).collect::<Vec<_>>().join(", "),
        expected: "values must be comparable; name another column in guards.distinct, or set guards.duplicates = false"
            .into(),
    };
    let converter = RowConverter::new(types.map(SortField::new).collect()).map_err(refused)?;
    let (mut hashes, mut nulls) = (Vec::with_capacity(store.len()), 0);
    for item in store.record_batches() {
        let (first, batch) = item?;
        let sample = |row: usize| SampleId::new(first.index() + row);
        if listed {
            let list = cast(batch.column(0), &large(batch.column(0))).map_err(refused)?;
            let list = list.as_list::<i64>();
            let rows = converter.convert_columns(std::slice::from_ref(list.values())).map_err(refused)?;
            for row in 0..list.len() {
                let items = list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
                let items = items.filter(|&item| list.is_valid(row) && list.values().is_valid(item));
                hashes.extend(items.map(|item| (hash(rows.row(item).as_ref()), sample(row))));
            }
            continue;
        }
        let rows = converter.convert_columns(batch.columns()).map_err(refused)?;
        for row in 0..batch.num_rows() {
            if batch.columns().iter().any(|column| column.is_null(row)) {
                nulls += 1;
            } else {
                hashes.push((hash(rows.row(row).as_ref()), sample(row)));
            }
        }
    }
    Ok((hashes, (!listed).then_some(nulls)))
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

fn hash(bytes: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish() as u32
}

fn position(at: usize, store: &Store) -> Result<u32> {
    u32::try_from(at).map_err(|_| Error::TooManySamples { uri: store.uri().to_owned() })
}
