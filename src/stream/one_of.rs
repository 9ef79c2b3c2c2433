//! One item of each list, which is another one in each epoch.

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::sample::SampleId;

/// A column of lists, of which mini-batches carry one item each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneOf {
    pub column: String,
    pub seed: u64,
}

impl OneOf {
    /// The field of the items.
    pub fn field(lists: &Field) -> Option<FieldRef> {
        let item = item(lists.data_type())?;
        Some(item.as_ref().clone().with_name(lists.name()).with_nullable(true).into())
    }

    /// One item that is not null of each list, those of the samples `ids` in `epoch`; null if there is none.
    pub fn choose(&self, lists: &ArrayRef, ids: &[SampleId], epoch: u64) -> Result<ArrayRef, ArrowError> {
        let item = item(lists.data_type()).ok_or_else(|| ArrowError::CastError("there are no lists".into()))?;
        let lists = cast(lists, &DataType::LargeList(item.clone()))?;
        let lists = lists.as_list::<i64>();
        let nulls = lists.values().logical_nulls();
        let is_there = |item: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*item));
        let chosen = ids.iter().enumerate().map(|(row, &id)| {
            let [begin, end] = [row, row + 1].map(|row| lists.value_offsets()[row] as usize);
            let items: Vec<_> = (begin..end).filter(|_| lists.is_valid(row)).filter(is_there).collect();
            (!items.is_empty()).then(|| items[self.generator(id, epoch).random_range(0..items.len())] as u64)
        });
        take(lists.values(), &chosen.collect::<UInt64Array>(), None)
    }

    /// A generator for one sample and epoch alone, so that a run can start anywhere.
    fn generator(&self, id: SampleId, epoch: u64) -> ChaCha8Rng {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..20].copy_from_slice(&id.0.to_le_bytes());
        key[20..26].copy_from_slice(b"one of");
        ChaCha8Rng::from_seed(key)
    }
}

fn item(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}
