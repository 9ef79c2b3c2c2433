//! Checks the lengths that compressed buffers state before the decoder believes them.
//!
//! A compressed buffer begins with its decompressed length, and Arrow's decoder allocates that much memory at once. If
//! that fails, the process aborts, which nobody can catch. The lengths are therefore checked as they pass by, before
//! the body that they are in has been read to its end.

use std::io::{Error, ErrorKind, Read, Result};

use arrow::ipc::{Message, root_as_message};

/// A reader of an IPC stream that fails on a length for which there is no memory.
pub(super) struct CheckedLengths<R> {
    input: R,
    section: Section,
    /// The bytes that remain of the section.
    left: usize,
    /// The bytes read of the prefix, the metadata, or a length in the body.
    seen: Vec<u8>,
    /// How many bytes of the body have been read.
    passed: u64,
    /// The compressed buffers of the body that are to be checked, as start and length; the next one is last.
    buffers: Vec<(u64, u64)>,
}

/// The parts of a message.
enum Section {
    Prefix,
    Metadata,
    Body,
}

impl<R: Read> CheckedLengths<R> {
    pub fn new(input: R) -> Self {
        Self { input, section: Section::Prefix, left: WORD_BYTES, seen: Vec::new(), passed: 0, buffers: Vec::new() }
    }

    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Looks at bytes that lie within one section.
    fn see(&mut self, bytes: &[u8]) -> Result<()> {
        self.left -= bytes.len();
        match self.section {
            Section::Body => self.see_body(bytes)?,
            Section::Prefix | Section::Metadata => self.seen.extend_from_slice(bytes),
        }
        while self.left == 0 {
            self.next_section();
        }
        Ok(())
    }

    /// Goes to the next section, whose length the one before states.
    fn next_section(&mut self) {
        match self.section {
            Section::Prefix => {
                let word = self.seen.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
                self.seen.clear();
                // The length follows a continuation mark. A length of 0 is the end, whatever follows.
                (self.section, self.left) = match word {
                    u32::MAX => (Section::Prefix, WORD_BYTES),
                    0 => (Section::Body, usize::MAX),
                    length => (Section::Metadata, length as usize),
                };
            }
            Section::Metadata => {
                let message = root_as_message(&self.seen).ok();
                let length = message.map_or(0, |message| usize::try_from(message.bodyLength()).unwrap_or(0));
                self.buffers = message.map(compressed_buffers).unwrap_or_default();
                self.seen.clear();
                (self.section, self.left, self.passed) = (Section::Body, length, 0);
            }
            Section::Body => (self.section, self.left) = (Section::Prefix, WORD_BYTES),
        }
    }

    /// Checks the lengths at the start of compressed buffers among these bytes of the body.
    fn see_body(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.passed + bytes.len() as u64;
        while let Some(&(start, length)) = self.buffers.last()
            && start < end
        {
            // A length may be split between two reads.
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

/// Returns the starts and lengths of a message's compressed buffers, from the last to the first.
fn compressed_buffers(message: Message<'_>) -> Vec<(u64, u64)> {
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let Some(batch) = message.header_as_record_batch().or(dictionary) else { return Vec::new() };
    if batch.compression().is_none() {
        return Vec::new();
    }
    let buffers = batch.buffers().into_iter().flatten();
    let body = u64::try_from(message.bodyLength()).unwrap_or(0);
    // A buffer that is said to go on behind the body has no more bytes for that.
    let place = |start: i64, length: i64| {
        let start = u64::try_from(start).ok()?;
        Some((start, u64::try_from(length).ok()?.min(body.saturating_sub(start))))
    };
    let mut found: Vec<_> = buffers.filter_map(|buffer| place(buffer.offset(), buffer.length())).collect();
    found.retain(|(_, length)| *length >= 8);
    // Of several that start at one place the shortest stays, which may hold the least.
    found.sort_unstable_by(|(a, short), (b, long)| b.cmp(a).then(short.cmp(long)));
    found.dedup_by_key(|(start, _)| *start);
    found
}

/// Tries to allocate the decompressed length that a buffer states, if it is longer than any compression makes it.
///
/// # Errors
/// An IO error if there is no memory for it.
fn must_fit(declared: i64, compressed: u64) -> Result<()> {
    // −1 means that the buffer is not compressed; the decoder refuses other negative lengths.
    let Ok(declared) = u64::try_from(declared) else { return Ok(()) };
    if declared <= compressed.saturating_mul(MAX_LIKELY_RATIO) {
        return Ok(());
    }
    let fits = usize::try_from(declared).is_ok_and(|length| Vec::<u8>::new().try_reserve_exact(length).is_ok());
    let message =
        || format!("a buffer of {compressed} bytes is said to be {declared} bytes, for which memory is lacking");
    if fits { Ok(()) } else { Err(Error::new(ErrorKind::InvalidData, message())) }
}

/// The bytes of a continuation mark, and of a length.
const WORD_BYTES: usize = 4;

/// The most bytes that LZ4 makes of one.
const MAX_LIKELY_RATIO: u64 = 255;
