//! One Arrow IPC file or stream, from front to back: a file is a stream between a mark and a footer.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use super::file::{Emit, Listening, ROWS, corrupt};
use super::parquet::order_of;
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(super) struct IpcFile {
    schema: SchemaRef,
    /// Of a file, as its footer says.
    batches: Option<usize>,
}

impl IpcFile {
    pub fn open(path: &Path, is_file: bool) -> Result<Self> {
        let failed = |e: ArrowError| corrupt(path, String::new(), e.into());
        if is_file {
            let reader = FileReader::try_new(BufReader::new(open(path)?), None).map_err(failed)?;
            return Ok(Self { schema: reader.schema(), batches: Some(reader.num_batches()) });
        }
        if !ends(path)? {
            return Err(corrupt(path, String::new(), "it has no end mark: it was cut short".into()));
        }
        let reader = StreamReader::try_new(BufReader::new(open(path)?), None).map_err(failed)?;
        Ok(Self { schema: reader.schema(), batches: None })
    }

    pub fn is_file(&self) -> bool {
        self.batches.is_some()
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub fn read(&self, path: &Path, columns: &[usize], emit: Emit<'_>) -> Result<Listening> {
        let mut file = open(path)?;
        if self.is_file() {
            skip_mark(&mut file).map_err(|cause| Error::Io { action: "read", path: path.into(), cause })?;
        }
        let mut sorted = columns.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let failed = |e: ArrowError| corrupt(path, String::new(), e.into());
        let batches = StreamReader::try_new(BufReader::new(file), Some(sorted)).map_err(failed)?;
        let order = order_of(columns);
        let mut count = 0;
        for (number, batch) in batches.enumerate() {
            count += 1;
            let batch = batch.and_then(|batch| batch.project(&order));
            let batch = batch.map_err(|e| corrupt(path, format!(", record batch {number}"), e.into()))?;
            for start in (0..batch.num_rows()).step_by(ROWS) {
                if let Listening::No = emit(batch.slice(start, ROWS.min(batch.num_rows() - start))) {
                    return Ok(Listening::No);
                }
            }
        }
        if let Some(expected) = self.batches.filter(|expected| *expected != count) {
            let cause = format!("it holds {count} record batches, and its footer says {expected}");
            return Err(corrupt(path, String::new(), cause.into()));
        }
        Ok(Listening::Yes)
    }
}

/// Whether a stream has its end mark. Without, whole record batches may be missing.
fn ends(path: &Path) -> Result<bool> {
    let io = |cause| Error::Io { action: "read", path: path.into(), cause };
    let (mut file, mut end) = (open(path)?, [0; END.len()]);
    let long = file.metadata().map_err(io)?.len() >= END.len() as u64;
    if long {
        file.seek(SeekFrom::End(-(END.len() as i64))).map_err(io)?;
        file.read_exact(&mut end).map_err(io)?;
    }
    Ok(end == END)
}

/// Goes to the stream of a file: behind the mark and its padding, which is as long as its writer likes.
fn skip_mark(file: &mut File) -> std::io::Result<()> {
    let mut word = [0; 8];
    file.read_exact(&mut word)?;
    while {
        file.read_exact(&mut word)?;
        word == [0; 8]
    } {}
    file.seek_relative(-8)
}

/// A continuation mark, and no metadata.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })
}
