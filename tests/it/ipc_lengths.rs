//! A damaged length in an Arrow IPC file with compressed buffers is an error that names the file.
//!
//! Each file is read by a process of its own: the decoder allocates the length that a buffer states, and a process ends
//! if that fails.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use prosampler::arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use prosampler::arrow::ipc::{CompressionType, root_as_message};
use tempfile::TempDir;

use crate::support::assert_says;

const ROWS: usize = 5000;

/// A length that no machine has the memory for.
const TERABYTES: i64 = 1 << 45;

/// A length for which that would be likely.
const PETABYTES: i64 = 1 << 50;

/// Rows that any codec makes shorter.
fn rows() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(UInt32Array::from(vec![7; ROWS]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a text"; ROWS]));
    RecordBatch::try_from_iter([("n", numbers), ("text", texts)]).unwrap()
}

/// The bytes of a file or stream whose buffers are compressed.
fn compressed(rows: &RecordBatch, codec: CompressionType, is_file: bool) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
    if is_file {
        let mut writer = FileWriter::try_new_with_options(Vec::new(), &rows.schema(), options).unwrap();
        writer.write(rows).unwrap();
        return writer.into_inner().unwrap();
    }
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &rows.schema(), options).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

/// The places of the first record batch.
struct Places {
    /// Its list of buffers: the start and the length of each, 8 bytes a number.
    buffers: usize,
    /// Its body.
    body: usize,
}

impl Places {
    fn of(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let mut at = bytes.windows(4).position(|word| word == [0xff; 4]).unwrap();
        loop {
            let metadata = &bytes[at + 8..at + 8 + word(at + 4)];
            let body = at + 8 + metadata.len();
            let message = root_as_message(metadata).unwrap();
            let Some(batch) = message.header_as_record_batch() else {
                at = body + message.bodyLength() as usize;
                continue;
            };
            let buffers = batch.buffers().unwrap().bytes().as_ptr() as usize - bytes.as_ptr() as usize;
            return Self { buffers, body };
        }
    }

    fn start(&self, buffer: usize) -> usize {
        self.buffers + 16 * buffer
    }

    fn length(&self, buffer: usize) -> usize {
        self.start(buffer) + 8
    }
}

fn put(bytes: &mut [u8], at: usize, number: i64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn number(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What a process says that reads a file and refuses it.
fn refusal(file: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_prosampler")).arg("inspect").arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(5), "{}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Damages the buffer with the numbers of column `n`, which comes after the one with its nulls.
fn assert_refused(damage: impl Fn(&mut [u8], &Places)) {
    let dir = TempDir::new().unwrap();
    let rows = rows();
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        for name in ["a.arrow", "a.arrows"] {
            let mut bytes = compressed(&rows, codec, name == "a.arrow");
            let places = Places::of(&bytes);
            let stated = number(&bytes, places.body + number(&bytes, places.start(NUMBERS)) as usize);
            assert_eq!(stated, 4 * ROWS as i64, "the buffer with the numbers");
            damage(&mut bytes, &places);
            let file = dir.path().join(name);
            fs::write(&file, bytes).unwrap();
            assert_says(&refusal(&file), &[&format!("{name}`"), "write it again"]);
        }
    }
}

#[test]
fn a_buffer_that_states_terabytes_names_the_file() {
    assert_refused(|bytes, places| {
        let start = number(bytes, places.start(NUMBERS)) as usize;
        put(bytes, places.body + start, TERABYTES);
    });
}

#[test]
fn a_buffer_that_is_longer_than_the_body_names_the_file() {
    assert_refused(|bytes, places| {
        let start = number(bytes, places.start(NUMBERS)) as usize;
        put(bytes, places.body + start, TERABYTES);
        put(bytes, places.length(NUMBERS), PETABYTES);
    });
}

/// The length is that of two buffers, of which only the one that comes first is as long as it says.
#[test]
fn a_buffer_that_begins_where_a_longer_one_does_names_the_file() {
    assert_refused(|bytes, places| {
        let start = number(bytes, places.start(NUMBERS));
        put(bytes, places.body + start as usize, TERABYTES);
        put(bytes, places.start(NUMBERS + 1), start);
        put(bytes, places.length(NUMBERS + 1), PETABYTES);
    });
}

/// The number of the buffer with the numbers of column `n`.
const NUMBERS: usize = 1;
