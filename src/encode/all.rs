//! Runs an encoder over a whole store, and decides about the samples that it cannot encode.
//!
//! From the outermost function to the innermost:
//!
//! 1. [`encode_all`] embeds all samples; one that cannot be encoded is an error.
//! 2. [`encode_present`] embeds all samples by a policy, [`BadSamples`], which may skip some.
//! 3. [`encode_rest`] appends the samples that a table lacks: all of them, or those added to the store since.
//! 4. [`encode_without_nulls`] takes rows with nulls out, which no encoder gets.
//! 5. [`Encoder::encode_readable`] encodes rows, and reports those that it cannot read.
//!
//! [`encode_some`] does the same for rows on their own, without a store: those that a trainer asks for.

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;

use super::ahead::in_order;
use super::{BadRow, EmbeddingCache, Encoded, Encoder};
use crate::config::{OnBadSample, Similarity, Storage};
use crate::embeddings::{EmbeddingTable, Flaw, SkipReason};
use crate::error::{ColumnError, EmbeddingError, Error, Result, quoted};
use crate::sample::{ModelVersion, SampleId};
use crate::store::Store;
use crate::telemetry;

/// Embeds all samples of `store`; a sample that cannot be encoded is an error.
///
/// `progress` is called with the number of samples done. Blocks, for minutes if the model is large: run it in a
/// [`ComputePool`](crate::ComputePool). Takes the memory of the table, and little more.
///
/// # Errors
/// - [`ColumnError::Missing`].
/// - [`ColumnError::Null`] for a null in a column that the encoder reads.
/// - [`EmbeddingError::BadSample`] for a sample that cannot be read, or whose vector is not finite or has no usable
///   length.
/// - [`EmbeddingError::NoVectors`] if all samples of the first record batches are bad.
/// - The errors of the encoder.
pub fn encode_all(
    encoder: &dyn Encoder,
    store: &Store,
    storage: Storage,
    similarity: Similarity,
    model_version: ModelVersion,
    progress: &mut dyn FnMut(usize),
) -> Result<EmbeddingTable> {
    encode_present(encoder, store, BadSamples::default(), (storage, similarity, model_version), None, progress)
}

/// What to do with samples that cannot be encoded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BadSamples {
    pub on_bad_sample: OnBadSample,
    /// How many samples were skipped before, and were logged then.
    pub known: usize,
}

/// Embeds all samples of `store`, except for those that the policy `bad` lets it skip.
///
/// # Errors
/// The errors of [`encode_all`]; bad samples are errors only if the policy says so.
pub(crate) fn encode_present(
    encoder: &dyn Encoder,
    store: &Store,
    bad: BadSamples,
    (storage, similarity, model_version): (Storage, Similarity, ModelVersion),
    cache: Option<&EmbeddingCache>,
    progress: &mut dyn FnMut(usize),
) -> Result<EmbeddingTable> {
    let _span = telemetry::encode(encoder.name(), store.len(), model_version).entered();
    let dimension = encoder.dimension();
    let mut table = EmbeddingTable::with_capacity(store.len(), dimension, storage, similarity, model_version)?;
    encode_rest(encoder, store, bad, &mut table, cache, progress)?;
    Ok(table)
}

/// Embeds the remaining samples of `store`, which follow those that `table` already has.
///
/// # Errors
/// The errors of [`encode_present`].
pub(crate) fn encode_rest(
    encoder: &dyn Encoder,
    store: &Store,
    bad: BadSamples,
    table: &mut EmbeddingTable,
    cache: Option<&EmbeddingCache>,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    if bad.on_bad_sample == OnBadSample::Fail
        && let (count, Some((sample, column))) = store.bad_texts()
    {
        let reason = format!("is no UTF-8 ({count} such values)");
        return Err(EmbeddingError::BadSample { sample, column: column.to_owned(), reason }.into());
    }
    let store = store.select(encoder.columns())?;
    let d = encoder.dimension();
    let known = table.len();
    let encoder_cache = cache.and_then(|cache| cache.for_encoder(encoder));
    let missing = store.record_batches().filter_map(|item| {
        let (first, rows) = match item {
            Ok(item) => item,
            Err(error) => return Some(Err(error)),
        };
        let known = known.saturating_sub(first.index());
        let left = rows.num_rows().checked_sub(known).filter(|left| *left > 0)?;
        Some(Ok((SampleId::new(first.index() + known), rows.slice(known, left))))
    });
    let encode = |item: Result<(SampleId, RecordBatch)>| {
        let (first, rows) = item?;
        if bad.on_bad_sample == OnBadSample::Fail {
            refuse_nulls(first, &rows)?;
        }
        let mut vectors = vec![0f32; rows.num_rows() * d];
        let encode = |vectors: &mut [f32]| encode_without_nulls(encoder, &rows, vectors);
        let encoded = match &encoder_cache {
            Some(encoder_cache) => encoder_cache.vectors(&rows, &mut vectors, encode)?,
            None => encode(&mut vectors)?,
        };
        Ok((first, vectors, encoded))
    };
    let take = |(first, mut vectors, encoded): (SampleId, Vec<f32>, Encoded)| {
        let nulls = encoded.bad.iter().filter(|bad| bad.reason == NULL).count();
        let found = push(encoder, table, &mut vectors, encoded)?;
        let rows = vectors.len() / d;
        if found.len() == rows && rows - nulls > 1 && table.present() == 0 {
            return Err(no_vectors(encoder, &found, |row| SampleId::new(first.index() + row)));
        }
        for BadRow { row, column, reason } in found {
            let sample = SampleId::new(first.index() + row);
            if bad.on_bad_sample == OnBadSample::Fail {
                return Err(EmbeddingError::BadSample { sample, column, reason }.into());
            }
            table.count_skip_reason(sample, &column, &reason);
        }
        progress(first.index() + rows);
        Ok(())
    };
    in_order(missing, encoder.calls_at_once(), encode, take)?;
    if table.skipped() > bad.known {
        for SkipReason { samples, first, column, reason } in table.skip_reasons() {
            telemetry::samples_skipped(*samples, *first, column, reason);
        }
    }
    Ok(())
}

/// Appends vectors to the table, and returns the rows for which it has none, in order.
///
/// These are the rows that could not be read, and those whose vector is not finite or has no usable length.
fn push(
    encoder: &dyn Encoder,
    table: &mut EmbeddingTable,
    vectors: &mut [f32],
    encoded: Encoded,
) -> Result<Vec<BadRow>> {
    let Encoded { mut bad, pair_similarities } = encoded;
    let unread: Vec<_> = bad.iter().map(|bad| bad.row).collect();
    table.push_except(vectors, &unread, |row, flaw| {
        bad.push(flawed(encoder, row, flaw));
        Ok(())
    })?;
    table.push_pair_similarities(&pair_similarities);
    bad.sort_by_key(|bad| bad.row);
    Ok(bad)
}

/// Describes a row for which the encoder makes a vector with a flaw.
pub(super) fn flawed(encoder: &dyn Encoder, row: usize, flaw: Flaw) -> BadRow {
    let (column, reason) = match encoder.columns() {
        [column] => (column.clone(), flaw.reason()),
        [column, others @ ..] => (column.clone(), format!("together with {} {}", quoted(others), flaw.reason())),
        [] => (encoder.name().to_owned(), flaw.reason()),
    };
    BadRow { row, column, reason }
}

/// The error for rows that are all bad.
fn no_vectors(encoder: &dyn Encoder, bad: &[BadRow], sample: impl Fn(usize) -> SampleId) -> Error {
    // Other reasons tell more than a null does.
    let BadRow { row, column, reason } = bad.iter().find(|bad| bad.reason != NULL).unwrap_or(&bad[0]).clone();
    EmbeddingError::NoVectors {
        encoder: encoder.name().to_owned(),
        rows: bad.len(),
        sample: sample(row),
        column,
        reason,
    }
    .into()
}

/// Embeds some samples, whose rows have no nulls, into a table of their own.
///
/// # Errors
/// The errors of [`encode_all`]; with [`OnBadSample::Skip`], bad samples are skipped in the table instead.
pub(crate) fn encode_some(
    encoder: &dyn Encoder,
    (ids, rows): (&[SampleId], &RecordBatch),
    on_bad_sample: OnBadSample,
    similarity: Similarity,
) -> Result<EmbeddingTable> {
    let d = encoder.dimension();
    let mut table = EmbeddingTable::with_capacity(ids.len(), d, Storage::F32, similarity, ModelVersion(0))?;
    let mut vectors = vec![0f32; ids.len() * d];
    let encoded = encoder.encode_readable(rows, &mut vectors)?;
    let bad = push(encoder, &mut table, &mut vectors, encoded)?;
    if bad.len() == ids.len() && ids.len() > 1 {
        return Err(no_vectors(encoder, &bad, |row| ids[row]));
    }
    match bad.into_iter().next() {
        Some(BadRow { row, column, reason }) if on_bad_sample == OnBadSample::Fail => {
            Err(EmbeddingError::BadSample { sample: ids[row], column, reason }.into())
        }
        _ => Ok(table),
    }
}

/// Encodes the rows that have no nulls, and reports the others as bad rows: encoders never see a null.
fn encode_without_nulls(encoder: &dyn Encoder, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
    // The nulls of dictionaries, run ends and untyped columns are not in the array's own buffer.
    let nulls: Vec<_> = rows.columns().iter().map(Array::logical_nulls).collect();
    if nulls.iter().flatten().all(|nulls| nulls.null_count() == 0) {
        return encoder.encode_readable(rows, vectors);
    }
    let null_column = |row: usize| nulls.iter().position(|nulls| nulls.as_ref().is_some_and(|n| n.is_null(row)));
    let mut kept = Vec::new();
    let mut bad = Vec::new();
    for row in 0..rows.num_rows() {
        match null_column(row) {
            None => kept.push(row),
            Some(column) => {
                let column = rows.schema().field(column).name().clone();
                bad.push(BadRow { row, column, reason: NULL.into() });
            }
        }
    }
    let mask: BooleanArray = (0..rows.num_rows()).map(|row| Some(null_column(row).is_none())).collect();
    let rows = filter_record_batch(rows, &mask).map_err(|cause| Error::Arrow { action: "leave nulls out", cause })?;
    let d = encoder.dimension();
    let mut kept_vectors = vec![0f32; kept.len() * d];
    let empty = kept.is_empty();
    let encoded = if empty { Encoded::default() } else { encoder.encode_readable(&rows, &mut kept_vectors)? };
    for (&row, vector) in kept.iter().zip(kept_vectors.chunks_exact(d)) {
        vectors[row * d..][..d].copy_from_slice(vector);
    }
    bad.extend(encoded.bad.into_iter().map(|bad| BadRow { row: kept[bad.row], ..bad }));
    bad.sort_by_key(|bad| bad.row);
    let pairs = !encoded.pair_similarities.is_empty();
    let mut pair_similarities = vec![0.0; if pairs { mask.len() } else { 0 }];
    for (&row, similarity) in kept.iter().zip(encoded.pair_similarities) {
        pair_similarities[row] = similarity;
    }
    Ok(Encoded { bad, pair_similarities })
}

/// Returns an error for the first null.
fn refuse_nulls(first: SampleId, rows: &RecordBatch) -> Result<()> {
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

/// The reason why a null is bad.
const NULL: &str = "is null";
