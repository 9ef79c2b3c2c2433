//! Keeps nulls from encoders: rows that have one are refused, or are left out and reported.

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;

use super::{BadRow, Encoded, Encoder};
use crate::error::{ColumnError, Error, Result};
use crate::sample::SampleId;

/// Returns an error for the first null.
pub(super) fn refuse_nulls(first: SampleId, rows: &RecordBatch) -> Result<()> {
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { continue };
        let row = (0..column.len()).find(|&row| nulls.is_null(row)).unwrap_or(0);
        return Err(ColumnError::Null {
            column: field.name().clone(),
            sample: SampleId::new(first.index() + row),
            count: nulls.null_count(),
            rows: rows.num_rows(),
        }
        .into());
    }
    Ok(())
}

/// Encodes the rows that have no nulls, and reports the others as bad rows: encoders never see a null.
pub(super) fn encode_without_nulls(encoder: &dyn Encoder, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
    // The nulls of dictionaries, run ends and untyped columns are not in the array's own buffer.
    let nulls: Vec<_> = rows.columns().iter().map(Array::logical_nulls).collect();
    if nulls.iter().flatten().all(|nulls| nulls.null_count() == 0) {
        return encoder.encode_readable(rows, vectors);
    }
    let (kept, bad) = without_nulls(rows, &nulls);
    let encoded = encode_kept(encoder, rows, &kept, vectors)?;
    Ok(among_all(encoded, &kept, bad, rows.num_rows()))
}

/// Returns the rows without nulls, and the others as bad rows.
fn without_nulls(rows: &RecordBatch, nulls: &[Option<NullBuffer>]) -> (Vec<usize>, Vec<BadRow>) {
    let mut kept = Vec::new();
    let mut bad = Vec::new();
    for row in 0..rows.num_rows() {
        match nulls.iter().position(|nulls| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))) {
            None => kept.push(row),
            Some(column) => {
                let column = rows.schema().field(column).name().clone();
                bad.push(BadRow { row, column, reason: NULL.into() });
            }
        }
    }
    (kept, bad)
}

/// Encodes the rows `kept`, and puts their vectors in their places. What it returns counts among these rows only.
fn encode_kept(encoder: &dyn Encoder, rows: &RecordBatch, kept: &[usize], vectors: &mut [f32]) -> Result<Encoded> {
    if kept.is_empty() {
        return Ok(Encoded::default());
    }
    let mut mask = vec![false; rows.num_rows()];
    kept.iter().for_each(|&row| mask[row] = true);
    let rows = filter_record_batch(rows, &BooleanArray::from(mask))
        .map_err(|cause| Error::Arrow { action: "leave nulls out", cause })?;
    let d = encoder.dimension();
    let mut kept_vectors = vec![0f32; kept.len() * d];
    let encoded = encoder.encode_readable(&rows, &mut kept_vectors)?;
    for (&row, vector) in kept.iter().zip(kept_vectors.chunks_exact(d)) {
        vectors[row * d..][..d].copy_from_slice(vector);
    }
    Ok(encoded)
}

/// Turns what was returned for the rows `kept` into what is true of all `rows`, of which others are `bad`.
fn among_all(encoded: Encoded, kept: &[usize], mut bad: Vec<BadRow>, rows: usize) -> Encoded {
    bad.extend(encoded.bad.into_iter().map(|bad| BadRow { row: kept[bad.row], ..bad }));
    bad.sort_by_key(|bad| bad.row);
    let are_pairs = !encoded.pair_similarities.is_empty();
    let mut pair_similarities = vec![0.0; if are_pairs { rows } else { 0 }];
    for (&row, similarity) in kept.iter().zip(encoded.pair_similarities) {
        pair_similarities[row] = similarity;
    }
    Encoded { bad, pair_similarities }
}

/// The reason why a null is bad.
pub(super) const NULL: &str = "is null";
