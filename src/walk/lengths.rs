use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::draw::Draw;
use crate::error::{ColumnError, Error, Result};
use crate::sample::SampleId;
use crate::store::Store;

/// How long samples are, by a column of the rows; 4 bytes a sample.
#[derive(Debug)]
pub(crate) struct Lengths(Vec<u32>);

impl Lengths {
    /// Refuses a column of another type than whole numbers.
    ///
    /// # Errors
    /// [`ColumnError::Type`].
    pub fn check_type(schema: &Schema, column: &str) -> Result<()> {
        match schema.field_with_name(column).map(Field::data_type) {
            Ok(found) if !found.is_integer() => Err(ColumnError::Type {
                column: column.to_owned(),
                found: found.to_string(),
                expected: "walk.length_column needs whole numbers; name another column, or write them as integers"
                    .to_owned(),
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Reads the lengths of all samples. Blocks.
    ///
    /// # Errors
    /// [`ColumnError::Missing`]; [`ColumnError::Type`]; [`Error::Config`] for a null, and for a number below 0 or above
    /// 4,294,967,295.
    pub fn of(store: &Store, column: &str) -> Result<Self> {
        let store = store.select(&[column.to_owned()])?;
        Self::check_type(&store.schema(), column)?;
        let mut lengths = Vec::with_capacity(store.len());
        for item in store.record_batches() {
            let (first, rows) = item?;
            append(&mut lengths, rows.column(0), |row, found| {
                let sample = SampleId::new(first.index() + row);
                let message = format!(
                    "names `{column}`, which is {found} at {sample}; lengths are whole numbers from 0 to \
                     4,294,967,295: correct these rows, filter them out, or leave the key out"
                );
                Error::setting("walk.length_column", message)
            })?;
        }
        Ok(Self(lengths))
    }

    /// Reorders a mini-batch so that its `ranks` slices of equal length have nearly equal sums of lengths.
    ///
    /// The longest sample is dealt first, each to the rank with the least sum that has places left. What ranks cannot
    /// share equally stays at the end. Within a slice, samples keep their order, or, if it is to be `by_length`, come
    /// longest first. Samples of one length keep their order. O(B (log B + ranks)).
    pub fn deal(&self, draw: &mut Draw, ranks: usize, by_length: bool) {
        let share = draw.ids.len() / ranks;
        let length = |place: &usize| self.0[draw.ids[*place].index()];
        let mut longest_first: Vec<usize> = (0..share * ranks).collect();
        longest_first.sort_by_key(|place| std::cmp::Reverse(length(place)));
        let mut slices = vec![(0u64, Vec::with_capacity(share)); ranks];
        if ranks == 1 {
            slices[0].1.clone_from(&longest_first);
        } else {
            for &place in &longest_first {
                let open = slices.iter_mut().filter(|(_, places)| places.len() < share);
                let Some((sum, places)) = open.min_by_key(|(sum, _)| *sum) else { break };
                *sum += u64::from(length(&place));
                places.push(place);
            }
        }
        let mut order = Vec::with_capacity(draw.ids.len());
        for (_, mut places) in slices {
            if !by_length {
                places.sort_unstable();
            }
            order.append(&mut places);
        }
        order.extend(share * ranks..draw.ids.len());
        let count = draw.negatives.len() / draw.ids.len().max(1);
        draw.negatives =
            order.iter().flat_map(|place| &draw.negatives[place * count..(place + 1) * count]).copied().collect();
        draw.ids = order.iter().map(|&place| draw.ids[place]).collect();
    }
}

/// Appends whole numbers; `bad` makes the error for a row that has none, or one that is no length.
fn append(lengths: &mut Vec<u32>, values: &ArrayRef, bad: impl Fn(usize, String) -> Error) -> Result<()> {
    if let Some(row) = (0..values.len()).find(|&row| values.is_null(row)) {
        return Err(bad(row, "null".to_owned()));
    }
    // Numbers that do not fit become null.
    let numbers = cast(values, &DataType::Int64).map_err(|cause| Error::Arrow { action: "read lengths", cause })?;
    let numbers = numbers.as_primitive::<Int64Type>();
    for (row, number) in numbers.iter().enumerate() {
        let length = number.and_then(|number| u32::try_from(number).ok());
        let found = || number.map_or_else(|| "above 4,294,967,295".to_owned(), |number| number.to_string());
        lengths.push(length.ok_or_else(|| bad(row, found()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::walk::WalkCounts;

    /// The same rule, place by place: of the samples not dealt yet the first of the longest goes to the first of the
    /// least loaded ranks.
    fn slices(lengths: &[u32], ranks: usize) -> Vec<Vec<usize>> {
        let share = lengths.len() / ranks;
        let mut slices = vec![Vec::new(); ranks];
        let mut dealt = vec![false; share * ranks];
        while let Some(longest) = (0..share * ranks).filter(|&i| !dealt[i]).map(|i| lengths[i]).max() {
            let place = (0..share * ranks).find(|&i| !dealt[i] && lengths[i] == longest).unwrap();
            dealt[place] = true;
            let sum = |slice: &Vec<usize>| slice.iter().map(|&i| u64::from(lengths[i])).sum::<u64>();
            let least = slices.iter().filter(|slice| slice.len() < share).map(sum).min().unwrap();
            slices.iter_mut().find(|slice| slice.len() < share && sum(slice) == least).unwrap().push(place);
        }
        slices
    }

    proptest! {
        #[test]
        fn a_mini_batch_is_dealt_by_the_rule(
            lengths in prop::collection::vec(prop_oneof![0u32..4, 0u32..1000, Just(u32::MAX)], 1..60),
            ranks in 1usize..6,
            count in 0usize..3,
            by_length: bool,
        ) {
            // Samples come in another order than their ids.
            let len = lengths.len();
            let ids: Vec<_> = (0..len).rev().map(SampleId::new).collect();
            let of_places: Vec<u32> = ids.iter().map(|id| lengths[id.index()]).collect();
            let of = |id: &SampleId| (0..count as u32).map(|n| Some(SampleId(id.0 * 10 + n))).collect::<Vec<_>>();
            let negatives = ids.iter().flat_map(of).collect();
            let mut draw = Draw { ids: ids.clone(), negatives, counts: WalkCounts::default() };
            Lengths(lengths).deal(&mut draw, ranks, by_length);

            let share = len / ranks;
            let mut expected = Vec::new();
            for mut slice in slices(&of_places, ranks) {
                slice.sort_by_key(|&i| if by_length { (u32::MAX - of_places[i], i) } else { (0, i) });
                expected.append(&mut slice);
            }
            expected.extend(share * ranks..len);
            prop_assert_eq!(&draw.ids, &expected.iter().map(|&i| ids[i]).collect::<Vec<_>>());
            prop_assert_eq!(draw.negatives, draw.ids.iter().flat_map(of).collect::<Vec<_>>());
        }
    }
}
