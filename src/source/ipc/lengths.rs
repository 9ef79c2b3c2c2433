//! "Here is a stream of Arrow IPC, let me know before a length in it is believed."
//!
//! A compressed buffer begins with its length once decompressed, and Arrow's decoder asks for that much memory at once:
//! where there is not so much, the process is aborted, which nobody can catch. So such lengths are tried as they pass by,
//! before the body that they are in has been read to its end.

use std::io::{Error, ErrorKind, Read, Result};

use arrow::ipc::{Message, root_as_message};

/// Hands on what it reads.
pub(super) struct CheckedLengths<R> {
    input: R,
    at: At,
    /// Bytes before the next part of a message.
    left: usize,
    /// Of the prefix or the metadata.
    seen: Vec<u8>,
    /// Of the body: what has passed, and where compressed buffers begin and how long they are, first ones last.
    passed: u64,
    buffers: Vec<(u64, u64)>,
}

enum At {
    Prefix,
    Metadata,
    Body,
}

impl<R: Read> CheckedLengths<R> {
    pub fn new(input: R) -> Self {
        Self { input, at: At::Prefix, left: WORD, seen: Vec::new(), passed: 0, buffers: Vec::new() }
    }

    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Looks at some bytes, which lie within one part.
    fn see(&mut self, bytes: &[u8]) -> Result<()> {
        self.left -= bytes.len();
        match self.at {
            At::Body => self.see_body(bytes)?,
            At::Prefix | At::Metadata => self.seen.extend_from_slice(bytes),
        }
        while self.left == 0 {
            self.next_part();
        }
        Ok(())
    }

    fn next_part(&mut self) {
        match self.at {
            At::Prefix => {
                let word = self.seen.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
                self.seen.clear();
                // Behind a continuation mark comes the length; none is the end, whatever follows.
                (self.at, self.left) = match word {
                    u32::MAX => (At::Prefix, WORD),
                    0 => (At::Body, usize::MAX),
                    length => (At::Metadata, length as usize),
                };
            }
            At::Metadata => {
                let message = root_as_message(&self.seen).ok();
                let length = message.map_or(0, |message| usize::try_from(message.bodyLength()).unwrap_or(0));
                self.buffers = message.map(compressed_buffers).unwrap_or_default();
                self.seen.clear();
                (self.at, self.left, self.passed) = (At::Body, length, 0);
            }
            At::Body => (self.at, self.left) = (At::Prefix, WORD),
        }
    }

    fn see_body(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.passed + bytes.len() as u64;
        while let Some(&(start, length)) = self.buffers.last()
            && start < end
        {
            // A length may come in two pieces.
            let from = (start + self.seen.len() as u64).saturating_sub(self.passed) as usize;
            let missing = (8 - self.seen.len()).min(bytes.len() - from);
            self.seen.extend_from_slice(&bytes[from..from + missing]);
            let Some(declared) = self.seen.first_chunk().map(|word| i64::from_le_bytes(*word)) else { break };
            self.seen.clear();
            self.buffers.pop();
            must_fit(declared, length)?;
        }
        self.passed = end;
        Ok(())
    }
}

impl<R: Read> Read for CheckedLengths<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = buffer.len().min(self.left);
        let read = self.input.read(&mut buffer[..most])?;
        self.see(&buffer[..read])?;
        Ok(read)
    }
}

/// Places and lengths of a message's compressed buffers, from the last to the first.
fn compressed_buffers(message: Message<'_>) -> Vec<(u64, u64)> {
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let Some(batch) = message.header_as_record_batch().or(dictionary) else { return Vec::new() };
    if batch.compression().is_none() {
        return Vec::new();
    }
    let buffers = batch.buffers().into_iter().flatten();
    let place = |start: i64, length: i64| u64::try_from(start).ok().zip(u64::try_from(length).ok());
    let mut found: Vec<_> = buffers.filter_map(|buffer| place(buffer.offset(), buffer.length())).collect();
    found.retain(|(_, length)| *length >= 8);
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup_by_key(|(start, _)| *start);
    found
}

/// Whether there is memory for what a buffer is said to be, where that is more than it is likely to be.
fn must_fit(declared: i64, compressed: u64) -> Result<()> {
    // -1 says that it is not compressed; other negative lengths are the decoder's to refuse.
    let Ok(declared) = u64::try_from(declared) else { return Ok(()) };
    if declared <= compressed.saturating_mul(LIKELY) {
        return Ok(());
    }
    let fits = usize::try_from(declared).is_ok_and(|length| Vec::<u8>::new().try_reserve_exact(length).is_ok());
    let message =
        || format!("a buffer of {compressed} bytes is said to be {declared} bytes, for which memory is lacking");
    if fits { Ok(()) } else { Err(Error::new(ErrorKind::InvalidData, message())) }
}

const WORD: usize = 4;

/// What LZ4 makes of a byte at most.
const LIKELY: u64 = 255;
