//! What the decoders of Parquet and Arrow IPC share: the request, the record batches, and the error.

use std::ops::ControlFlow;

use arrow::array::RecordBatch;

use super::location::Location;
use crate::error::{Cause, Error};

/// How texts are decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Texts {
    /// Texts are decoded as texts. One that is not UTF-8 is an error, at the latest when its record batch is decoded.
    Strict,
    /// Texts are decoded as bytes, which become texts record batch by record batch. A column with a text that is not
    /// UTF-8 remains bytes in that record batch.
    Lenient,
}

/// What to read of a file.
#[derive(Clone, Copy)]
pub(super) struct PartRequest<'a> {
    /// The part's number among those of the file, from 0.
    pub number: usize,
    /// The indices of the columns in the file's schema, in the order wanted.
    pub columns: &'a [usize],
    pub texts: Texts,
    /// How many rows at the start to leave out.
    pub skip: usize,
}

/// Receives a record batch, and says whether to go on.
pub(super) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> ControlFlow<()>;

/// Returns the indices that bring the output of a projected reader, which is in the file's order, to that of `columns`.
pub(super) fn order_of(columns: &[usize]) -> Vec<usize> {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    columns.iter().map(|c| sorted.partition_point(|s| s < c)).collect()
}

/// The error for a file that cannot be decoded; `place` follows its name in the message.
pub(super) fn corrupt(location: &Location, place: Option<String>, cause: Cause) -> Error {
    Error::Corrupt { uri: location.uri(), place, expected: "Parquet or Arrow IPC", cause }
}

/// The most rows of a record batch.
pub(super) const MAX_BATCH_ROWS: usize = 2048;

/// About the most bytes of a record batch; one with a single row may have more.
pub(super) const MAX_BATCH_BYTES: usize = 8 << 20;
