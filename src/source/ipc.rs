//! One Arrow IPC file or stream, from front to back: a file is a stream between a mark and a footer.

use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::file::reader::Length;

use super::data_file::{Emit, Listening, ROWS, corrupt};
use super::location::{Input, Location};
use super::parquet::order_of;
use crate::error::Result;

#[derive(Clone, Debug)]
pub(super) struct IpcFile {
    schema: SchemaRef,
    /// Of a file, as its footer says.
    batches: Option<usize>,
}

impl IpcFile {
    pub fn open(location: &Location, mut input: Input, is_file: bool) -> Result<Self> {
        let failed = |e: ArrowError| corrupt(location, String::new(), e.into());
        if is_file {
            let reader = FileReader::try_new(BufReader::new(input), None).map_err(failed)?;
            return Ok(Self { schema: reader.schema(), batches: Some(reader.num_batches()) });
        }
        if !ends(&mut input).map_err(|e| failed(e.into()))? {
            return Err(corrupt(location, String::new(), "it has no end mark: it was cut short".into()));
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

    pub fn read(&self, location: &Location, input: Input, columns: &[usize], emit: Emit<'_>) -> Result<Listening> {
        let failed = |e: ArrowError| corrupt(location, String::new(), e.into());
        let mut input = BufReader::new(input);
        if self.is_file() {
            skip_mark(&mut input).map_err(|e| failed(e.into()))?;
        }
        let mut sorted = columns.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let batches = StreamReader::try_new(input, Some(sorted)).map_err(failed)?;
        let order = order_of(columns);
        let mut count = 0;
        for (number, batch) in batches.enumerate() {
            count += 1;
            let batch = batch.and_then(|batch| batch.project(&order));
            let batch = batch.map_err(|e| corrupt(location, format!(", record batch {number}"), e.into()))?;
            for start in (0..batch.num_rows()).step_by(ROWS) {
                if let Listening::No = emit(batch.slice(start, ROWS.min(batch.num_rows() - start))) {
                    return Ok(Listening::No);
                }
            }
        }
        if let Some(expected) = self.batches.filter(|expected| *expected != count) {
            let cause = format!("it holds {count} record batches, and its footer says {expected}");
            return Err(corrupt(location, String::new(), cause.into()));
        }
        Ok(Listening::Yes)
    }
}

/// Whether a stream has its end mark. Without, whole record batches may be missing. Goes back to the start.
fn ends(input: &mut Input) -> std::io::Result<bool> {
    let mut end = [0; END.len()];
    if input.len() >= END.len() as u64 {
        input.seek(SeekFrom::End(-(END.len() as i64)))?;
        input.read_exact(&mut end)?;
    }
    input.rewind()?;
    Ok(end == END)
}

/// Goes to the stream of a file: behind the mark and its padding, which is as long as its writer likes.
fn skip_mark(input: &mut BufReader<Input>) -> std::io::Result<()> {
    let mut word = [0; 8];
    input.read_exact(&mut word)?;
    while {
        input.read_exact(&mut word)?;
        word == [0; 8]
    } {}
    input.seek_relative(-8)
}

/// A continuation mark, and no metadata.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
