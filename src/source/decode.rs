//! What the decoders of both formats share: what they are asked for, and what they answer with.

use std::ops::ControlFlow;

use arrow::array::RecordBatch;

use super::location::Location;
use crate::error::{Cause, Error};

/// How texts are decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Texts {
    /// As such: one that is not UTF-8 is an error, at the latest when its record batch is decoded.
    Strict,
    /// As bytes, and turned into texts record batch by record batch. A column that has one that is not UTF-8 stays
    /// bytes in that record batch.
    Lenient,
}

/// What is to be read of a file.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Of a file's parts, from 0 on.
    pub number: usize,
    pub columns: &'a [usize],
    pub texts: Texts,
    /// Rows at the start that are not wanted.
    pub skip: usize,
}

/// Takes a record batch, and says whether it takes more.
pub(super) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> ControlFlow<()>;

/// A projected reader gives columns in the file's order; these positions in its output restore the order asked for.
pub(super) fn order_of(columns: &[usize]) -> Vec<usize> {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    columns.iter().map(|c| sorted.partition_point(|s| s < c)).collect()
}

pub(super) fn corrupt(location: &Location, place: String, cause: Cause) -> Error {
    Error::Corrupt { uri: location.uri(), place, expected: "Parquet or Arrow IPC", cause }
}

/// Rows of a record batch, at most.
pub(super) const ROWS: usize = 2048;

/// And bytes, about, unless a single row has more.
pub(super) const BYTES: usize = 8 << 20;
