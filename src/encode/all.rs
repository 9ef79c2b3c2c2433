//! Runs an encoder over a whole store, and decides about the samples that it cannot encode.
//!
//! From the outermost function to the innermost:
//!
//! 1. [`encode_all`] embeds all samples; one that cannot be encoded is an error.
//! 2. [`encode_present`] embeds all samples by a policy, [`BadSamples`], which may skip some.
//! 3. [`encode_rest`] appends the samples that a table lacks: all of them, or those added to the store since.
//! 4. [`RowQueue`] takes vectors of record batches from the cache, and hands out the others. [`Pass::encode`] encodes
//!    one of those; [`Pass::append`] puts vectors into the table, and decides about bad rows.
//! 5. [`encode_without_nulls`] takes rows with nulls out, which no encoder gets.
//! 6. [`Encoder::encode_readable`] encodes rows, and reports those that it cannot read.
//!
//! [`encode_some`] does the same for rows on their own, without a store: those on which drift is measured.

use arrow::array::RecordBatch;

use super::ahead::do_all;
use super::cache::EncoderCache;
use super::help::UnclaimedRows;
use super::nulls::{NULL, encode_without_nulls, refuse_nulls};
use super::queue::{ClaimedRows, EmbeddedCounts, EncodedRows, RowQueue};
use super::{BadRow, EmbeddingCache, Encoded, Encoder};
use crate::config::{OnBadSample, Similarity, Storage};
use crate::embeddings::{EmbeddingTable, Flaw, SkipReason};
use crate::error::{EmbeddingError, Error, Result, quoted};
use crate::sample::{ModelVersion, SampleId};
use crate::store::Store;
use crate::telemetry;

/// Embeds all samples of `store`; a sample that cannot be encoded is an error.
///
/// `progress` is called with the number of samples done. Blocks, for minutes if the model is large: run it in a
/// [`ComputePool`](crate::ComputePool). Takes the memory of the table, and little more.
///
/// # Errors
/// - [`ColumnError::Missing`](crate::error::ColumnError::Missing).
/// - [`ColumnError::Null`](crate::error::ColumnError::Null) for a null in a column that the encoder reads.
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
    let settings = TableSettings { storage, similarity, model_version };
    let mut report = |done| {
        progress(done);
        Ok(())
    };
    encode_present(encoder, store, BadSamples::default(), settings, None, &mut report)
}

/// What to do with samples that cannot be encoded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BadSamples {
    pub on_bad_sample: OnBadSample,
    /// How many samples were skipped before this pass; their reasons are in the log already.
    pub skipped_before: usize,
}

/// How a new table keeps vectors, and which model they are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableSettings {
    pub storage: Storage,
    pub similarity: Similarity,
    pub model_version: ModelVersion,
}

/// Embeds all samples of `store`, except for those that the policy `bad` lets it skip.
///
/// With a `cache`, embeddings that it has are read, and other processes with the same cache share the work. An error of
/// `progress` ends it; it is also called while this process waits for others.
///
/// # Errors
/// The errors of [`encode_all`], and of `progress`; bad samples are errors only if the policy says so.
pub(crate) fn encode_present(
    encoder: &dyn Encoder,
    store: &Store,
    bad: BadSamples,
    settings: TableSettings,
    cache: Option<&EmbeddingCache>,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<EmbeddingTable> {
    let TableSettings { storage, similarity, model_version } = settings;
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
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    if bad.on_bad_sample == OnBadSample::Fail {
        refuse_bad_texts(store)?;
    }
    let store = store.select(encoder.columns())?;
    let missing = rows_from(&store, table.len());
    let cache = cache.and_then(|cache| cache.for_encoder(encoder));
    let pass = Pass { encoder, cache, on_bad_sample: bad.on_bad_sample };
    let mut queue = RowQueue::new(&pass, table, missing, progress);
    do_all(&mut queue, encoder.calls_at_once(), |claimed| pass.encode(claimed))?;
    let EmbeddedCounts { here, before, elsewhere } = queue.counts();
    if let Some(cache) = &pass.cache {
        cache.count_reused(before + elsewhere);
        telemetry::embedded(here, before, elsewhere);
    }
    if table.skipped() > bad.skipped_before {
        log_skip_reasons(table);
    }
    Ok(())
}

/// Embeds samples of `store` from `begin` on that nobody has embedded or claimed, and keeps their vectors in `cache`.
///
/// That is for another process, which puts them in its table. Without a cache nothing is done.
///
/// # Errors
/// Those of the encoder, and of `progress`.
pub(crate) fn encode_for_others(
    encoder: &dyn Encoder,
    store: &Store,
    begin: usize,
    cache: Option<&EmbeddingCache>,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let store = store.select(encoder.columns())?;
    let cache = cache.and_then(|cache| cache.for_encoder(encoder));
    let pass = Pass { encoder, cache, on_bad_sample: OnBadSample::Skip };
    let Some(mut unclaimed) = UnclaimedRows::of(&pass, rows_from(&store, begin), progress) else { return Ok(()) };
    do_all(&mut unclaimed, encoder.calls_at_once(), |claimed| pass.encode(claimed))?;
    if unclaimed.embedded > 0 {
        telemetry::embedded(unclaimed.embedded, 0, 0);
    }
    Ok(())
}

/// Returns an error for texts that are null in the store since they are not UTF-8.
fn refuse_bad_texts(store: &Store) -> Result<()> {
    let (count, Some((sample, column))) = store.bad_texts() else { return Ok(()) };
    let reason = format!("is no UTF-8 ({count} such values)");
    Err(EmbeddingError::BadSample { sample, column: column.to_owned(), reason }.into())
}

fn log_skip_reasons(table: &EmbeddingTable) {
    for SkipReason { samples, first, column, reason } in table.skip_reasons() {
        telemetry::samples_skipped(*samples, *first, column, reason);
    }
}

/// Iterates over the rows of a store from the sample `begin` on, a record batch at a time.
fn rows_from(store: &Store, begin: usize) -> impl Iterator<Item = Result<(SampleId, RecordBatch)>> {
    let rest = move |first: SampleId, rows: &RecordBatch| {
        let skip = begin.saturating_sub(first.index());
        let left = rows.num_rows().checked_sub(skip).filter(|left| *left > 0)?;
        Some((SampleId::new(first.index() + skip), rows.slice(skip, left)))
    };
    store.record_batches().filter_map(move |item| match item {
        Ok((first, rows)) => rest(first, rows).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

/// What a pass of an encoder over samples uses for every record batch.
pub(super) struct Pass<'a> {
    pub encoder: &'a dyn Encoder,
    /// The embeddings that are kept, if any are of this encoder.
    pub cache: Option<EncoderCache<'a>>,
    on_bad_sample: OnBadSample,
}

impl Pass<'_> {
    /// Refuses rows with a null in a column that the encoder reads, if bad samples are not skipped.
    pub fn check_nulls(&self, first: SampleId, rows: &RecordBatch) -> Result<()> {
        if self.on_bad_sample == OnBadSample::Fail { refuse_nulls(first, rows) } else { Ok(()) }
    }

    /// Encodes rows, and keeps their vectors. Runs for several record batches side by side.
    fn encode(&self, ClaimedRows { first, rows, path, claim }: ClaimedRows) -> Result<EncodedRows> {
        let mut vectors = vec![0f32; rows.num_rows() * self.encoder.dimension()];
        let encoded = encode_without_nulls(self.encoder, &rows, &mut vectors)?;
        let keep = |(cache, path): (&EncoderCache<'_>, _)| cache.keep(path, &vectors, &encoded);
        let is_kept = self.cache.as_ref().zip(path.as_deref()).is_some_and(keep);
        if is_kept {
            claim.end();
        }
        Ok(EncodedRows { first, vectors, encoded, is_kept, rows: rows.num_rows() })
    }

    /// Appends vectors to the table. A bad sample is an error, or is skipped and counted, as the policy says.
    pub fn append(&self, table: &mut EmbeddingTable, rows: EncodedRows) -> Result<()> {
        let EncodedRows { first, mut vectors, encoded, .. } = rows;
        let sample_of = |row: usize| SampleId::new(first.index() + row);
        let bad = push(self.encoder, table, &mut vectors, encoded)?;
        let rows = vectors.len() / self.encoder.dimension();
        let nulls = bad.iter().filter(|bad| bad.reason == NULL).count();
        if bad.len() == rows && rows - nulls > 1 && table.present() == 0 {
            return Err(no_vectors(self.encoder, &bad, sample_of));
        }
        for BadRow { row, column, reason } in bad {
            let sample = sample_of(row);
            if self.on_bad_sample == OnBadSample::Fail {
                return Err(EmbeddingError::BadSample { sample, column, reason }.into());
            }
            table.count_skip_reason(sample, &column, &reason);
        }
        Ok(())
    }
}

/// Embeds the samples `ids` with these rows, which have no nulls, into a table of their own.
///
/// # Errors
/// The errors of [`encode_all`]; with [`OnBadSample::Skip`], bad samples are skipped in the table instead.
pub(crate) fn encode_some(
    encoder: &dyn Encoder,
    ids: &[SampleId],
    rows: &RecordBatch,
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
