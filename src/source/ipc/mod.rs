//! Reads one Arrow IPC file or stream from front to back. A file is a stream between a mark and a footer.

mod lengths;

use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{StreamReader, read_footer_length};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, write_message};
use arrow::ipc::{Endianness, root_as_footer, root_as_message};
use parquet::file::reader::Length;

use self::lengths::CheckedLengths;
use super::decode::{Emit, MAX_BATCH_ROWS, PartRequest, Texts, corrupt, order_of};
use super::location::{Location, ShardReader};
use super::texts::{bytes_to_texts, texts_as_bytes};
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(super) struct IpcFile {
    schema: SchemaRef,
    /// The number of record batches that a file's footer states; `None` for a stream.
    batches: Option<usize>,
}

impl IpcFile {
    /// Reads the schema, and checks that a stream has its end mark.
    pub fn open(location: &Location, mut input: ShardReader, is_file: bool) -> Result<Self> {
        let failed = |e: ArrowError| corrupt(location, None, e.into());
        if is_big_endian(&mut input, is_file).unwrap_or(false) {
            return Err(Error::UnsupportedSource { uri: location.uri(), reason: BIG_ENDIAN.into() });
        }
        input.rewind().map_err(|e| failed(e.into()))?;
        if is_file {
            let (schema, batches) = footer(&mut input).map_err(failed)?;
            return Ok(Self { schema, batches: Some(batches) });
        }
        if !has_end_mark(&mut input).map_err(|e| failed(e.into()))? {
            return Err(corrupt(location, None, "it has no end mark: it was cut short".into()));
        }
        let reader = StreamReader::try_new(BufReader::new(input), None).map_err(failed)?;
        Ok(Self { schema: reader.schema(), batches: None })
    }

    pub fn is_file(&self) -> bool {
        self.batches.is_some()
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Reads all record batches, in slices of at most [`MAX_BATCH_ROWS`] rows.
    pub fn read(
        &self,
        location: &Location,
        input: ShardReader,
        part: PartRequest<'_>,
        emit: Emit<'_>,
    ) -> Result<ControlFlow<()>> {
        let failed = |e: ArrowError| corrupt(location, None, e.into());
        let mut input = BufReader::new(input);
        if self.is_file() {
            skip_mark(&mut input).map_err(|e| failed(e.into()))?;
        }
        let first = schema_message(&mut input).map_err(|e| failed(e.into()))?;
        if !self.has_schema(&first) {
            let cause = "its footer and its start name different columns";
            return Err(corrupt(location, None, cause.into()));
        }
        let start = match part.texts {
            Texts::Strict => with_length(&first),
            Texts::Lenient => start_with_bytes(&self.schema).map_err(failed)?,
        };
        let mut sorted = part.columns.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let input = CheckedLengths::new(Cursor::new(start).chain(input));
        let mut batches = StreamReader::try_new(input, Some(sorted)).map_err(failed)?;
        let order = order_of(part.columns);
        let mut count = 0;
        let mut skip = part.skip;
        for batch in batches.by_ref() {
            let batch = batch.and_then(|batch| bytes_to_texts(batch.project(&order)?, &self.schema, part.columns));
            let batch = batch.map_err(|e| corrupt(location, Some(format!("record batch {count}")), e.into()))?;
            count += 1;
            let skipped = skip.min(batch.num_rows());
            skip -= skipped;
            for start in (skipped..batch.num_rows()).step_by(MAX_BATCH_ROWS) {
                if let ControlFlow::Break(()) = emit(batch.slice(start, MAX_BATCH_ROWS.min(batch.num_rows() - start))) {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        let cause = match self.batches {
            Some(expected) if expected != count => {
                format!("it holds {count} record batches, and its footer says {expected}")
            }
            None if batches.get_mut().get_mut().read(&mut [0]).map_err(|e| failed(e.into()))? > 0 => {
                format!("it goes on after its end mark, which follows record batch {count}")
            }
            _ => return Ok(ControlFlow::Continue(())),
        };
        Err(corrupt(location, None, cause.into()))
    }

    /// Whether a stream's schema message has the columns that the file was opened with.
    fn has_schema(&self, message: &[u8]) -> bool {
        let Ok(message) = root_as_message(message) else { return false };
        let found = message.header_as_schema().and_then(|schema| try_fb_to_schema(schema).ok());
        found.is_some_and(|found| {
            let types = found.fields().iter().map(|field| field.data_type());
            types.eq(self.schema.fields().iter().map(|field| field.data_type()))
        })
    }
}

/// Reads the columns and the number of record batches from a file's footer.
///
/// Arrow's own reader would also decode the dictionaries, which are read later, where they are in the stream.
fn footer(input: &mut ShardReader) -> Result<(SchemaRef, usize), ArrowError> {
    let failed = |reason: &str| ArrowError::IpcError(reason.to_owned());
    let mut trailer = [0; TRAILER_BYTES];
    let end = input.len().checked_sub(TRAILER_BYTES as u64).ok_or_else(|| failed("the file is too short"))?;
    input.seek(SeekFrom::Start(end))?;
    input.read_exact(&mut trailer)?;
    let mut footer = vec![0; read_footer_length(trailer)?];
    let start = end.checked_sub(footer.len() as u64).ok_or_else(|| failed("its footer is longer than the file"))?;
    input.seek(SeekFrom::Start(start))?;
    input.read_exact(&mut footer)?;
    let footer = root_as_footer(&footer).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let schema = footer.schema().ok_or_else(|| failed("its footer has no schema"))?;
    Ok((try_fb_to_schema(schema)?.into(), footer.recordBatches().map_or(0, |batches| batches.len())))
}

/// Whether a stream begins like those from before 2019: with a length, and without a continuation mark.
pub(super) fn is_old_stream(start: &[u8]) -> bool {
    let mut rest = start;
    let length = i32::from_le_bytes(*start.first_chunk().unwrap_or(&[0; 4]));
    (8..start.len() as i32).contains(&length) && schema_message(&mut rest).is_ok_and(|message| is_schema(&message))
}

fn is_schema(message: &[u8]) -> bool {
    root_as_message(message).is_ok_and(|message| message.header_as_schema().is_some())
}

/// Whether numbers have their most significant byte first, by the schema. The decoder of streams does not check.
fn is_big_endian(input: &mut ShardReader, is_file: bool) -> std::io::Result<bool> {
    let mut input = BufReader::new(input);
    if is_file {
        skip_mark(&mut input)?;
    }
    let message = schema_message(&mut input)?;
    let schema = root_as_message(&message).ok().and_then(|message| message.header_as_schema());
    Ok(schema.is_some_and(|schema| schema.endianness() != Endianness::Little))
}

/// Reads the first message, which is the schema.
fn schema_message(input: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut word = [0; 4];
    input.read_exact(&mut word)?;
    if word == CONTINUATION {
        input.read_exact(&mut word)?;
    }
    let mut message = Vec::new();
    let length = u64::from(u32::from_le_bytes(word));
    if (input.take(length).read_to_end(&mut message)? as u64) < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}

/// Prefixes a message with a continuation mark and its length, as in a stream.
fn with_length(message: &[u8]) -> Vec<u8> {
    [&CONTINUATION, &(message.len() as u32).to_le_bytes()[..], message].concat()
}

/// Makes the start of a stream whose schema has bytes in place of texts; both have the same layout in a record batch.
///
/// # Errors
/// An [`ArrowError`] for a schema with dictionaries: the stream refers to them by numbers from its own start.
fn start_with_bytes(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    if schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..))) {
        return Err(ArrowError::IpcError("with dictionaries, its texts cannot be read as bytes".into()));
    }
    let options = IpcWriteOptions::default();
    let mut dictionaries = DictionaryTracker::new(false);
    let generator = IpcDataGenerator::default();
    let message =
        generator.schema_to_bytes_with_dictionary_tracker(&texts_as_bytes(schema), &mut dictionaries, &options);
    let mut start = Vec::new();
    write_message(&mut start, message, &options)?;
    Ok(start)
}

/// Whether a stream has its end mark, without which whole record batches may be missing. Rewinds the input.
fn has_end_mark(input: &mut ShardReader) -> std::io::Result<bool> {
    let mut start = [0; 4];
    let mut end = [0; END_MARK.len()];
    input.read_exact(&mut start)?;
    if input.len() >= END_MARK.len() as u64 {
        input.seek(SeekFrom::End(-(END_MARK.len() as i64)))?;
        input.read_exact(&mut end)?;
    }
    input.rewind()?;
    // Old streams have no continuation mark, also not at the end.
    Ok(end == END_MARK || start != CONTINUATION && end[4..] == END_MARK[4..])
}

/// Goes to the stream of a file, past the mark and its padding, which may have any length.
fn skip_mark(input: &mut BufReader<impl Read + Seek>) -> std::io::Result<()> {
    let mut word = [0; 8];
    input.read_exact(&mut word)?;
    while {
        input.read_exact(&mut word)?;
        word == [0; 8]
    } {}
    input.seek_relative(-8)
}

/// The bytes at the end of a file: the footer's length and a mark.
const TRAILER_BYTES: usize = 10;

/// What precedes the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The end of a stream: a continuation mark, and a length of 0.
const END_MARK: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

const BIG_ENDIAN: &str = "its numbers are big-endian, most significant byte first, which is not read here; write it \
                          again, for example with pyarrow, which swaps them while it reads";
