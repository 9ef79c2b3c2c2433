//! Rows of many record batches, copied together.
//!
//! Arrow's `interleave` copies one row after the other. A row that lies anywhere in memory costs more waiting than
//! copying, until the processor has seen that a stretch is read from front to back and fetches ahead. Here values of any
//! length are asked for some time before they are copied. Not in other columns, whose values are short or have an inner
//! structure; those are Arrow's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, SchemaRef, Utf8Type,
};
use arrow::error::ArrowError;

use crate::simd::prefetch;

/// The rows at these places, each a record batch and a row in it, in this order. There must be a record batch, and all
/// must have the columns of `schema`; what their own schemas note besides is left behind.
///
/// # Errors
/// [`ArrowError::OffsetOverflowError`] where a column's values pass what its offsets reach.
pub(super) fn interleave(
    schema: SchemaRef,
    batches: &[&RecordBatch],
    places: &[(usize, usize)],
) -> Result<RecordBatch, ArrowError> {
    let column = |number| {
        let arrays: Vec<_> = batches.iter().map(|batch| batch.column(number).as_ref()).collect();
        match arrays[0].data_type() {
            DataType::Binary => values::<BinaryType>(&arrays, places),
            DataType::LargeBinary => values::<LargeBinaryType>(&arrays, places),
            DataType::Utf8 => values::<Utf8Type>(&arrays, places),
            DataType::LargeUtf8 => values::<LargeUtf8Type>(&arrays, places),
            _ => compute::interleave(&arrays, places),
        }
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<_, _>>()?;
    // Without columns nothing else says how many rows there are.
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

fn values<T: ByteArrayType>(arrays: &[&dyn Array], places: &[(usize, usize)]) -> Result<ArrayRef, ArrowError> {
    let arrays: Vec<_> = arrays.iter().map(|array| array.as_bytes::<T>()).collect();
    let values: Vec<&[u8]> = places.iter().map(|&(array, row)| arrays[array].value(row).as_ref()).collect();
    let (mut offsets, mut end) = (vec![T::Offset::default()], 0);
    for value in &values {
        end += value.len();
        offsets.push(T::Offset::from_usize(end).ok_or(ArrowError::OffsetOverflowError(end))?);
    }
    let nulls = arrays.iter().any(|array| array.null_count() > 0).then(|| {
        NullBuffer::new(BooleanBuffer::collect_bool(places.len(), |i| arrays[places[i].0].is_valid(places[i].1)))
    });
    let (offsets, joined) = (OffsetBuffer::new(offsets.into()), concat(&values, end).into());
    // SAFETY: the last offset is the length of what is joined, and whole values in a row are as good UTF-8 as each of
    // them. Checking a text again would take longer than copying it.
    Ok(Arc::new(unsafe { GenericByteArray::<T>::new_unchecked(offsets, joined, nulls) }))
}

/// These values one after another, `len` bytes in all.
fn concat(values: &[&[u8]], len: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(len);
    let (mut next, mut asked) = (values.iter(), 0);
    for value in values {
        while asked < all.len() + AHEAD
            && let Some(value) = next.next()
        {
            prefetch(&value[..value.len().min(AHEAD)]);
            asked += value.len();
        }
        all.extend_from_slice(value);
    }
    all
}

/// Bytes that are asked for before they are copied.
const AHEAD: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, StringArray};
    use arrow::compute::cast;
    use proptest::prelude::*;

    use super::*;

    /// A text: short, as long as what is asked for ahead, half of that, or null.
    fn value(seed: u16) -> Option<String> {
        let seed = usize::from(seed);
        let length = match seed % 9 {
            0 => return None,
            1 => 0,
            2 => AHEAD,
            3 => 1 + AHEAD / 2,
            _ => seed % 1000,
        };
        Some((seed..seed + length).map(|i| char::from(b'a' + (i % 26) as u8)).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same rows as Arrow's.
        #[test]
        fn rows_are_those_of_arrows_interleave(
            seeds in proptest::collection::vec(proptest::collection::vec(any::<u16>(), 1..40), 1..4),
            sliced in 0usize..3,
            picks in proptest::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..60),
        ) {
            let batch = |seeds: &Vec<u16>| {
                let texts: StringArray = seeds.iter().map(|&seed| value(seed)).collect();
                let types = [DataType::Utf8, DataType::LargeUtf8, DataType::Binary, DataType::LargeBinary];
                let columns = types.map(|to| (format!("{to:?}"), cast(&texts, &to).unwrap()));
                let whole = BinaryArray::from_iter_values(seeds.iter().map(|seed| seed.to_le_bytes()));
                let columns = columns.into_iter().chain([("whole".into(), Arc::new(whole) as ArrayRef)]);
                let columns = columns.chain([("other".into(), compute::kernels::length::length(&texts).unwrap())]);
                // The first rows may be cut off: a column then begins in the middle of its buffers.
                let cut = sliced.min(seeds.len() - 1);
                let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
                batch.slice(cut, seeds.len() - cut)
            };
            let batches: Vec<_> = seeds.iter().map(batch).collect();
            let batches: Vec<_> = batches.iter().collect();
            let place = |(batch, row): &(prop::sample::Index, prop::sample::Index)| {
                let batch = batch.index(batches.len());
                (batch, row.index(batches[batch].num_rows()))
            };
            let places: Vec<_> = picks.iter().map(place).collect();
            let ours = interleave(batches[0].schema(), &batches, &places).unwrap();
            prop_assert_eq!(&ours, &compute::interleave_record_batch(&batches, &places).unwrap());
            // Which has not been checked when it was made.
            for column in ours.columns() {
                column.to_data().validate_full().unwrap();
            }
        }
    }

    /// 2 GiB of text in a column: one row of 64 MB, asked for 32 times.
    #[test]
    fn more_than_offsets_reach_is_an_error() {
        let text = StringArray::from(vec!["x".repeat(64 << 20)]);
        let batch = RecordBatch::try_from_iter([("text", Arc::new(text) as ArrayRef)]).unwrap();
        let error = interleave(batch.schema(), &[&batch], &[(0, 0); 32]).unwrap_err();
        assert!(matches!(error, ArrowError::OffsetOverflowError(n) if n == 32 << 26), "{error}");
    }
}
