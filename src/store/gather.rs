//! Copies rows of many record batches into one.
//!
//! Arrow's `interleave` copies one row after the other. A row that lies anywhere in memory takes longer to fetch than
//! to copy, and the processor fetches ahead only once it reads from front to back. Therefore values of variable length
//! are prefetched here before they are copied. Columns of other types, whose values are short or nested, are left to
//! Arrow.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, SchemaRef, Utf8Type,
};
use arrow::error::ArrowError;

use crate::simd::prefetch;

/// Copies the given rows, each a record batch and a row in it, in this order.
///
/// There must be at least one record batch, and all must have the columns of `schema`. Metadata of their own schemas is
/// dropped.
///
/// # Errors
/// [`ArrowError::OffsetOverflowError`] if the values of a column are longer than its offsets can express.
pub(super) fn interleave(
    schema: SchemaRef,
    batches: &[&RecordBatch],
    rows: &[(usize, usize)],
) -> Result<RecordBatch, ArrowError> {
    let column = |number| {
        let arrays: Vec<_> = batches.iter().map(|batch| batch.column(number).as_ref()).collect();
        match arrays[0].data_type() {
            DataType::Binary => values::<BinaryType>(&arrays, rows),
            DataType::LargeBinary => values::<LargeBinaryType>(&arrays, rows),
            DataType::Utf8 => values::<Utf8Type>(&arrays, rows),
            DataType::LargeUtf8 => values::<LargeUtf8Type>(&arrays, rows),
            _ => compute::interleave(&arrays, rows),
        }
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<_, _>>()?;
    // Without columns nothing else says how many rows there are.
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

/// Copies values of variable length.
fn values<T: ByteArrayType>(arrays: &[&dyn Array], rows: &[(usize, usize)]) -> Result<ArrayRef, ArrowError> {
    let arrays: Vec<_> = arrays.iter().map(|array| array.as_bytes::<T>()).collect();
    let values: Vec<&[u8]> = rows.iter().map(|&(array, row)| arrays[array].value(row).as_ref()).collect();
    let mut offsets = vec![T::Offset::default()];
    let mut end = 0;
    for value in &values {
        end += value.len();
        offsets.push(T::Offset::from_usize(end).ok_or(ArrowError::OffsetOverflowError(end))?);
    }
    let nulls = arrays
        .iter()
        .any(|array| array.null_count() > 0)
        .then(|| NullBuffer::new(BooleanBuffer::collect_bool(rows.len(), |i| arrays[rows[i].0].is_valid(rows[i].1))));
    let offsets = OffsetBuffer::new(offsets.into());
    let joined = concat(&values, end).into();
    // SAFETY: the last offset is the length of the joined values, and valid UTF-8 texts in a row are valid UTF-8. To
    // check texts again would take longer than to copy them.
    Ok(Arc::new(unsafe { GenericByteArray::<T>::new_unchecked(offsets, joined, nulls) }))
}

/// Joins these values, `len` bytes in all, and prefetches each before it is copied.
fn concat(values: &[&[u8]], len: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(len);
    let mut next = values.iter();
    let mut prefetched = 0;
    for value in values {
        while prefetched < all.len() + PREFETCH_BYTES
            && let Some(value) = next.next()
        {
            prefetch(&value[..value.len().min(PREFETCH_BYTES)]);
            prefetched += value.len();
        }
        all.extend_from_slice(value);
    }
    all
}

/// How many bytes are prefetched before they are copied.
const PREFETCH_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, StringArray};
    use arrow::compute::cast;
    use proptest::prelude::*;

    use super::*;

    /// A text: short, as long as what is prefetched, half of that, or null.
    fn value(seed: u16) -> Option<String> {
        let seed = usize::from(seed);
        let length = match seed % 9 {
            0 => return None,
            1 => 0,
            2 => PREFETCH_BYTES,
            3 => 1 + PREFETCH_BYTES / 2,
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
            // The columns were not checked when they were made.
            for column in ours.columns() {
                column.to_data().validate_full().unwrap();
            }
        }
    }

    /// 2 GiB of text in a column: one row of 64 MB, gathered 32 times.
    #[test]
    fn more_than_offsets_reach_is_an_error() {
        let text = StringArray::from(vec!["x".repeat(64 << 20)]);
        let batch = RecordBatch::try_from_iter([("text", Arc::new(text) as ArrayRef)]).unwrap();
        let error = interleave(batch.schema(), &[&batch], &[(0, 0); 32]).unwrap_err();
        assert!(matches!(error, ArrowError::OffsetOverflowError(n) if n == 32 << 26), "{error}");
    }
}
