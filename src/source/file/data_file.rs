//! One file of a data set: its format, its schema and its parts.

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::foreign;
use crate::error::{Error, Result};
use crate::panics;
use crate::source::decode::{Emit, PartRequest, Texts, corrupt};
use crate::source::ipc::{self, IpcFile};
use crate::source::location::{Location, ShardReader};
use crate::source::parquet::{self, ParquetFile};

#[derive(Debug)]
pub(super) struct DataFile {
    pub location: Location,
    format: FileKind,
}

#[derive(Debug)]
enum FileKind {
    Parquet(ParquetFile),
    Ipc(IpcFile),
}

impl DataFile {
    /// Opens a file by reading its start and its footer. Blocks.
    pub fn open(location: Location) -> Result<Self> {
        let format = guarded(&location, location.open_ends()?, |input| FileKind::open(&location, input))?;
        Ok(Self { location, format })
    }

    pub fn kind(&self) -> &'static str {
        match &self.format {
            FileKind::Parquet(_) => "Parquet",
            FileKind::Ipc(file) if file.is_file() => "Arrow IPC file",
            FileKind::Ipc(_) => "Arrow IPC stream",
        }
    }

    pub fn schema(&self) -> SchemaRef {
        match &self.format {
            FileKind::Parquet(file) => file.schema(),
            FileKind::Ipc(file) => file.schema(),
        }
    }

    pub fn parts(&self) -> usize {
        match &self.format {
            FileKind::Parquet(file) => file.row_groups(),
            FileKind::Ipc(_) => 1,
        }
    }

    /// Returns the rows of a part that the footer promises; Arrow IPC promises nothing.
    pub fn part_rows(&self, part: usize) -> Option<usize> {
        match &self.format {
            FileKind::Parquet(file) => Some(file.row_group_rows(part)),
            FileKind::Ipc(_) => None,
        }
    }

    pub fn rows(&self) -> Option<usize> {
        (0..self.parts()).map(|part| self.part_rows(part)).sum()
    }

    /// Reads a part: emits all of its rows, or returns an error. Blocks.
    ///
    /// A column with a text that is not UTF-8 is a column of bytes in the record batch that has it. From the outermost
    /// function to the innermost:
    ///
    /// 1. `read` names the row group and the column of damage.
    /// 2. `read_counted` refuses a part that has more or fewer rows than promised.
    /// 3. `decode_despite_bad_texts` decodes a second time if a text may not be UTF-8.
    /// 4. `decode_once` runs the decoder of the format.
    pub fn read(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let error = match (self.read_counted(part, columns, emit), &self.format) {
            (Err(error @ Error::Corrupt { .. }), FileKind::Parquet(_)) => error,
            (other, _) => return other,
        };
        let Error::Corrupt { uri, expected, cause, .. } = error else { return Err(error) };
        let place = self.damaged_place(part, columns);
        if self.is_encrypted() {
            let reason =
                format!("it has encrypted columns, {place}; leave them out of `source.columns`, or write it plain");
            return Err(Error::UnsupportedSource { uri, reason });
        }
        Err(Error::Corrupt { uri, place: Some(place), expected, cause })
    }

    fn is_encrypted(&self) -> bool {
        let Ok(mut input) = self.location.open_ends() else { return false };
        parquet::is_encrypted(&mut input).unwrap_or(false)
    }

    /// Names a damaged row group and its damaged column, which it finds by reading the columns one by one.
    fn damaged_place(&self, row_group: usize, columns: &[usize]) -> String {
        let is_damaged = |column: usize| {
            matches!(
                self.read_counted(row_group, &[column], &mut |_| ControlFlow::Continue(())),
                Err(Error::Corrupt { .. })
            )
        };
        let damaged = columns.iter().find(|column| is_damaged(**column));
        let column = damaged.map(|&column| format!(", column `{}`", self.schema().field(column).name()));
        format!("row group {row_group}{}", column.unwrap_or_default())
    }

    /// Reads a part, and checks that it has no more rows than promised and no fewer.
    fn read_counted(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let promised = self.part_rows(part);
        let mut rows = 0;
        let mut beyond = false;
        let mut counted = |batch: RecordBatch| {
            beyond = promised.is_some_and(|promised| rows + batch.num_rows() > promised);
            if beyond {
                return ControlFlow::Break(());
            }
            rows += batch.num_rows();
            emit(batch)
        };
        let flow = self.decode_despite_bad_texts(part, columns, &mut counted)?;
        let says = |found: String| {
            let cause = format!("it holds {found}, and its footer says {}", promised.unwrap_or(0));
            Err(corrupt(&self.location, None, cause.into()))
        };
        match (flow, promised) {
            _ if beyond => says(format!("more than {rows} rows")),
            (ControlFlow::Continue(()), Some(promised)) if rows < promised => says(format!("{rows} rows")),
            (flow, _) => Ok(flow),
        }
    }

    /// Decodes a part. If that fails, decodes the rest with texts as bytes.
    ///
    /// One of the texts may not be UTF-8, which is the fault of a row and not of all that follow.
    fn decode_despite_bad_texts(&self, part: usize, columns: &[usize], emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let texts = match &self.format {
            FileKind::Parquet(file) => file.texts(columns),
            FileKind::Ipc(_) => Texts::Strict,
        };
        let mut rows = 0;
        let mut counted = |batch: RecordBatch| {
            rows += batch.num_rows();
            emit(batch)
        };
        let first = self.decode_once(PartRequest { number: part, columns, texts, skip: 0 }, &mut counted);
        match first {
            Err(error @ Error::Corrupt { .. }) if texts == Texts::Strict => {
                let rest = PartRequest { number: part, columns, texts: Texts::Lenient, skip: rows };
                self.decode_once(rest, emit).map_err(|again| match again {
                    Error::Corrupt { .. } => error,
                    other => other,
                })
            }
            other => other,
        }
    }

    /// Decodes what is asked for of a part. Damage, and bytes that could not be fetched, are errors.
    fn decode_once(&self, part: PartRequest<'_>, emit: Emit<'_>) -> Result<ControlFlow<()>> {
        let location = &self.location;
        match &self.format {
            FileKind::Parquet(file) => {
                let spans = file.spans(part.number, part.columns);
                let input = location.open(&spans, spans.len())?;
                guarded(location, input, |input| file.read(location, input, part, emit))
            }
            FileKind::Ipc(file) => {
                let whole = 0..u64::MAX;
                let input = location.open(std::slice::from_ref(&whole), 1)?;
                guarded(location, input, |input| file.read(location, input, part, emit))
            }
        }
    }
}

impl FileKind {
    fn open(location: &Location, mut input: ShardReader) -> Result<Self> {
        let mut start = Vec::new();
        let read = input.by_ref().take(FORMAT_BYTES).read_to_end(&mut start).and_then(|_| input.rewind());
        read.map_err(|e| corrupt(location, None, e.into()))?;
        Ok(match &start[..] {
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Self::Ipc(IpcFile::open(location, input, true)?),
            [0xff, 0xff, 0xff, 0xff, ..] => Self::Ipc(IpcFile::open(location, input, false)?),
            [b'P', b'A', b'R', b'1', ..] => {
                let mut end = [0; 4];
                let at_end = input.seek(SeekFrom::End(-4)).and_then(|_| input.read_exact(&mut end));
                if at_end.is_ok() && &end != b"PAR1" {
                    return Err(corrupt(location, None, CUT_SHORT.into()));
                }
                Self::Parquet(ParquetFile::open(location, &mut input)?)
            }
            [] => return Err(corrupt(location, None, "the file is empty".into())),
            start if ipc::is_old_stream(start) => Self::Ipc(IpcFile::open(location, input, false)?),
            start => {
                let unsupported = |reason| Error::UnsupportedSource { uri: location.uri(), reason };
                let unknown = || corrupt(location, None, "it begins like neither of the two".into());
                return Err(foreign::recognized(start).map_or_else(unknown, unsupported));
            }
        })
    }
}

/// Runs a decoder and returns the true reason if it fails.
///
/// Decoders panic on some damaged files, which must not look like the end of the data; and they report bytes that could
/// not be fetched as damage.
fn guarded<T>(location: &Location, input: ShardReader, work: impl FnOnce(ShardReader) -> Result<T>) -> Result<T> {
    #[cfg(feature = "cloud")]
    let failure = input.failure();
    let result = panics::guarded(|| work(input)).unwrap_or_else(|panic| Err(corrupt(location, None, panic.into())));
    #[cfg(feature = "cloud")]
    if result.is_err()
        && let Some(failed) = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    {
        return Err(failed);
    }
    result
}

/// How many bytes at the start tell the format.
const FORMAT_BYTES: u64 = 4096;

const CUT_SHORT: &str = "it has no footer: it was cut short, or is still being written";
