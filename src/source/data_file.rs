//! One file of a data set: what it is, its schema, its parts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::ipc::IpcFile;
use super::location::{Input, Location};
use super::parquet::ParquetFile;
use crate::compute::panic_message;
use crate::error::{Cause, Error, Result};

#[derive(Debug)]
pub(super) struct DataFile {
    pub location: Location,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Parquet(ParquetFile),
    Ipc(IpcFile),
}

/// What goes on after a record batch was handed over.
pub(super) enum Listening {
    Yes,
    /// Nobody takes any more.
    No,
}

/// Takes a record batch.
pub(super) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> Listening;

impl DataFile {
    /// Reads begin and footer. Blocks.
    pub fn open(location: Location) -> Result<Self> {
        let format = guarded(&location, location.open_ends()?, |input| Format::open(&location, input))?;
        Ok(Self { location, format })
    }

    pub fn kind(&self) -> &'static str {
        match &self.format {
            Format::Parquet(_) => "Parquet",
            Format::Ipc(file) if file.is_file() => "Arrow IPC file",
            Format::Ipc(_) => "Arrow IPC stream",
        }
    }

    pub fn schema(&self) -> SchemaRef {
        match &self.format {
            Format::Parquet(file) => file.schema(),
            Format::Ipc(file) => file.schema(),
        }
    }

    pub fn parts(&self) -> usize {
        match &self.format {
            Format::Parquet(file) => file.row_groups(),
            Format::Ipc(_) => 1,
        }
    }

    pub fn part_rows(&self, part: usize) -> Option<usize> {
        match &self.format {
            Format::Parquet(file) => file.row_group_rows(part),
            Format::Ipc(_) => None,
        }
    }

    pub fn rows(&self) -> Option<usize> {
        (0..self.parts()).map(|part| self.part_rows(part)).sum()
    }

    /// Hands over a part's record batches. Blocks.
    pub fn read(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<Listening> {
        match &self.format {
            Format::Parquet(file) => {
                let spans = file.spans(part, columns);
                let input = self.location.open(&spans, spans.len())?;
                let read =
                    guarded(&self.location, input, |input| file.read(&self.location, input, part, columns, emit));
                read.map_err(|error| match error {
                    Error::Corrupt { uri, expected, cause, .. } => {
                        let column = file.damaged(&self.location, part, columns);
                        let column = column.map(|c| format!(", column `{c}`")).unwrap_or_default();
                        Error::Corrupt { uri, place: format!(", row group {part}{column}"), expected, cause }
                    }
                    other => other,
                })
            }
            Format::Ipc(file) => {
                let whole = 0..u64::MAX;
                let input = self.location.open(std::slice::from_ref(&whole), 1)?;
                guarded(&self.location, input, |input| file.read(&self.location, input, columns, emit))
            }
        }
    }
}

impl Format {
    fn open(location: &Location, mut input: Input) -> Result<Self> {
        let mut begin = Vec::new();
        let read = std::io::Read::take(&mut input, 8);
        std::io::Read::read_to_end(&mut { read }, &mut begin)
            .map_err(|e| corrupt(location, String::new(), e.into()))?;
        Ok(match &begin[..] {
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Self::Ipc(IpcFile::open(location, input, true)?),
            [0xff, 0xff, 0xff, 0xff, ..] => Self::Ipc(IpcFile::open(location, input, false)?),
            [b'P', b'A', b'R', b'1', ..] => Self::Parquet(ParquetFile::open(location, &input)?),
            [] => return Err(corrupt(location, String::new(), "the file is empty".into())),
            _ => return Err(corrupt(location, String::new(), "it begins like neither of the two".into())),
        })
    }
}

/// Decoders panic on some damaged files; that must not look like the end of the data. And they take bytes that did not
/// come for damage.
fn guarded<T>(location: &Location, input: Input, work: impl FnOnce(Input) -> Result<T>) -> Result<T> {
    #[cfg(feature = "cloud")]
    let failure = input.failure();
    let result = catch_unwind(AssertUnwindSafe(|| work(input)))
        .unwrap_or_else(|panic| Err(corrupt(location, String::new(), panic_message(panic.as_ref()).into())));
    #[cfg(feature = "cloud")]
    if result.is_err()
        && let Some(failed) = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    {
        return Err(failed);
    }
    result
}

pub(super) fn corrupt(location: &Location, place: String, cause: Cause) -> Error {
    Error::Corrupt { uri: location.uri(), place, expected: "Parquet or Arrow IPC", cause }
}

/// Rows of a record batch, at most.
pub(super) const ROWS: usize = 2048;

/// And bytes, about, unless a single row has more.
pub(super) const BYTES: usize = 8 << 20;
