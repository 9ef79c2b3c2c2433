//! One file of a data set: what it is, its schema, its parts.

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::foreign;
use crate::error::{Error, Result};
use crate::panics;
use crate::source::decode::{Emit, Part, Texts, corrupt};
use crate::source::ipc::{self, IpcFile};
use crate::source::location::{Input, Location};
use crate::source::parquet::{self, ParquetFile};

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

    /// Rows of a part, as the footer promises; Arrow IPC promises nothing.
    pub fn part_rows(&self, part: usize) -> Option<usize> {
        match &self.format {
            Format::Parquet(file) => Some(file.row_group_rows(part)),
            Format::Ipc(_) => None,
        }
    }

    pub fn rows(&self) -> Option<usize> {
        (0..self.parts()).map(|part| self.part_rows(part)).sum()
    }

    /// Hands over a part's record batches, all of its rows or an error. A column of texts of which one is not UTF-8
    /// comes as bytes, in the record batch that has it. Blocks.
    pub fn read(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let error = match (self.read_whole(part, columns, emit), &self.format) {
            (Err(error @ Error::Corrupt { .. }), Format::Parquet(_)) => error,
            (other, _) => return other,
        };
        let Error::Corrupt { uri, expected, cause, .. } = error else { return Err(error) };
        let place = self.damaged(part, columns);
        if self.is_encrypted() {
            let reason =
                format!("it has encrypted columns{place}; leave them out of `source.columns`, or write it plain");
            return Err(Error::UnsupportedSource { uri, reason });
        }
        Err(Error::Corrupt { uri, place, expected, cause })
    }

    fn is_encrypted(&self) -> bool {
        let Ok(mut input) = self.location.open_ends() else { return false };
        parquet::is_encrypted(&mut input).unwrap_or(false)
    }

    /// The row group, and the column that is damaged: found by reading them one by one.
    fn damaged(&self, row_group: usize, columns: &[usize]) -> String {
        let is_damaged = |column: usize| {
            matches!(
                self.read_whole(row_group, &[column], &mut |_| ControlFlow::Continue(())),
                Err(Error::Corrupt { .. })
            )
        };
        let damaged = columns.iter().find(|column| is_damaged(**column));
        let column = damaged.map(|&column| format!(", column `{}`", self.schema().field(column).name()));
        format!(", row group {row_group}{}", column.unwrap_or_default())
    }

    /// Counts what is handed over: no more rows than promised, and no fewer.
    fn read_whole(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let promised = self.part_rows(part);
        let (mut rows, mut beyond) = (0, false);
        let mut counted = |batch: RecordBatch| {
            beyond = promised.is_some_and(|promised| rows + batch.num_rows() > promised);
            if beyond {
                return ControlFlow::Break(());
            }
            rows += batch.num_rows();
            emit(batch)
        };
        let flow = self.decode(part, columns, &mut counted)?;
        let says = |found: String| {
            let cause = format!("it holds {found}, and its footer says {}", promised.unwrap_or(0));
            Err(corrupt(&self.location, String::new(), cause.into()))
        };
        match (flow, promised) {
            _ if beyond => says(format!("more than {rows} rows")),
            (ControlFlow::Continue(()), Some(promised)) if rows < promised => says(format!("{rows} rows")),
            (flow, _) => Ok(flow),
        }
    }

    fn decode(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let texts = match &self.format {
            Format::Parquet(file) => file.texts(columns),
            Format::Ipc(_) => Texts::Strict,
        };
        let mut rows = 0;
        let mut counted = |batch: RecordBatch| {
            rows += batch.num_rows();
            emit(batch)
        };
        let first = self.decode_as(Part { number: part, columns, texts, skip: 0 }, &mut counted);
        match first {
            // One of its texts may be no UTF-8: that is the fault of a row, not of all that follow.
            Err(error @ Error::Corrupt { .. }) if texts == Texts::Strict => {
                let rest = Part { number: part, columns, texts: Texts::Lenient, skip: rows };
                self.decode_as(rest, emit).map_err(|again| match again {
                    Error::Corrupt { .. } => error,
                    other => other,
                })
            }
            other => other,
        }
    }

    fn decode_as(&self, part: Part<'_>, emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let location = &self.location;
        match &self.format {
            Format::Parquet(file) => {
                let spans = file.spans(part.number, part.columns);
                let input = location.open(&spans, spans.len())?;
                guarded(location, input, |input| file.read(location, input, part, emit))
            }
            Format::Ipc(file) => {
                let whole = 0..u64::MAX;
                let input = location.open(std::slice::from_ref(&whole), 1)?;
                guarded(location, input, |input| file.read(location, input, part, emit))
            }
        }
    }
}

impl Format {
    fn open(location: &Location, mut input: Input) -> Result<Self> {
        let mut begin = Vec::new();
        let read = input.by_ref().take(FIRST_BYTES).read_to_end(&mut begin).and_then(|_| input.rewind());
        read.map_err(|e| corrupt(location, String::new(), e.into()))?;
        Ok(match &begin[..] {
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Self::Ipc(IpcFile::open(location, input, true)?),
            [0xff, 0xff, 0xff, 0xff, ..] => Self::Ipc(IpcFile::open(location, input, false)?),
            [b'P', b'A', b'R', b'1', ..] => {
                let mut end = [0; 4];
                let at_end = input.seek(SeekFrom::End(-4)).and_then(|_| input.read_exact(&mut end));
                if at_end.is_ok() && &end != b"PAR1" {
                    return Err(corrupt(location, String::new(), CUT_SHORT.into()));
                }
                Self::Parquet(ParquetFile::open(location, &mut input)?)
            }
            [] => return Err(corrupt(location, String::new(), "the file is empty".into())),
            begin if ipc::is_old_stream(begin) => Self::Ipc(IpcFile::open(location, input, false)?),
            begin => {
                let unsupported = |reason| Error::UnsupportedSource { uri: location.uri(), reason };
                let unknown = || corrupt(location, String::new(), "it begins like neither of the two".into());
                return Err(foreign::recognized(begin).map_or_else(unknown, unsupported));
            }
        })
    }
}

/// Decoders panic on some damaged files; that must not look like the end of the data. And they take bytes that did not
/// come for damage.
fn guarded<T>(location: &Location, input: Input, work: impl FnOnce(Input) -> Result<T>) -> Result<T> {
    #[cfg(feature = "cloud")]
    let failure = input.failure();
    let result =
        panics::guarded(|| work(input)).unwrap_or_else(|panic| Err(corrupt(location, String::new(), panic.into())));
    #[cfg(feature = "cloud")]
    if result.is_err()
        && let Some(failed) = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    {
        return Err(failed);
    }
    result
}

/// Bytes that tell what a file is.
const FIRST_BYTES: u64 = 4096;

const CUT_SHORT: &str = "it has no footer: it was cut short, or is still being written";
