//! Reads an object like a file: fetches large blocks, and keeps the last few of them.
//!
//! Parquet's asynchronous reader holds all bytes of a row group at the same time. With blocks, memory is bounded
//! whatever the size of a row group.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::object::Object;
use crate::error::{Error, Result};

/// A reader of an object that can seek. Clones share its blocks.
#[derive(Clone, Debug)]
pub(in crate::source) struct Blocks {
    shared: Arc<SharedBlocks>,
    position: u64,
}

/// Why bytes could not be fetched. A decoder would pass on the text of the error only.
pub(in crate::source) type Failure = Arc<Mutex<Option<Error>>>;

#[derive(Debug)]
struct SharedBlocks {
    object: Object,
    /// The ranges that will be read, sorted and disjoint.
    spans: Vec<Range<u64>>,
    /// The blocks used last, each with its start; the most recent one is last.
    recent: Mutex<VecDeque<(u64, Bytes)>>,
    /// The most blocks in `recent`.
    keep: usize,
    failure: Failure,
    runtime: Handle,
}

impl Blocks {
    /// Makes a reader, on a blocking thread of tokio.
    ///
    /// `spans` are the ranges that will be read; they may overlap, in any order. Up to `at_once` of them are read side
    /// by side.
    pub fn new(object: Object, spans: &[Range<u64>], at_once: usize) -> Self {
        let shared = SharedBlocks {
            object,
            spans: joined(spans),
            recent: Mutex::default(),
            keep: at_once + 1,
            failure: Failure::default(),
            runtime: Handle::current(),
        };
        Self { shared: Arc::new(shared), position: 0 }
    }

    pub fn len(&self) -> u64 {
        self.shared.object.size
    }

    pub fn failure(&self) -> Failure {
        self.shared.failure.clone()
    }

    /// Reads `length` bytes from `start` on.
    pub fn range(&self, start: u64, length: usize) -> std::io::Result<Bytes> {
        let first = self.shared.rest_of_block(start)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut all = BytesMut::with_capacity(length);
        all.extend_from_slice(&first);
        while all.len() < length {
            let next = self.shared.rest_of_block(start + all.len() as u64)?;
            if next.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            all.extend_from_slice(&next[..next.len().min(length - all.len())]);
        }
        Ok(all.freeze())
    }
}

impl SharedBlocks {
    /// Returns the bytes from `position` to the end of their block; none at the end of the object.
    fn rest_of_block(&self, position: u64) -> std::io::Result<Bytes> {
        if position >= self.object.size {
            return Ok(Bytes::new());
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |(start, bytes): &(u64, Bytes)| (*start..start + bytes.len() as u64).contains(&position);
        let found = recent.iter().position(holds).and_then(|i| recent.remove(i));
        let (start, bytes) = match found {
            Some(block) => block,
            None => {
                let block = self.block_at(position);
                let bytes = self.fetch(block.clone()).map_err(|error| {
                    let text = error.to_string();
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    std::io::Error::other(text)
                })?;
                (block.start, bytes)
            }
        };
        let rest = bytes.slice((position - start) as usize..);
        recent.push_back((start, bytes));
        if recent.len() > self.keep {
            recent.pop_front();
        }
        Ok(rest)
    }

    /// Waits for a task of the runtime to fetch a block. The runtime may end first, and nobody needs the block then.
    fn fetch(&self, block: Range<u64>) -> Result<Bytes> {
        let (tx, rx) = oneshot::channel();
        let object = self.object.clone();
        self.runtime.spawn(async move { tx.send(object.fetch(block).await).ok() });
        let ended = |_| Error::TaskEnded { task: "source" };
        rx.blocking_recv().map_err(ended)?
    }

    /// Returns the block that holds `position`. Blocks are counted from the start of their span, and end with it.
    fn block_at(&self, position: u64) -> Range<u64> {
        let next = self.spans.partition_point(|span| span.start <= position);
        let before = next.checked_sub(1).map(|i| &self.spans[i]).filter(|span| span.contains(&position));
        let (start, end) = match before {
            Some(span) => (position - (position - span.start) % BLOCK_BYTES, span.end),
            None => (position, self.spans.get(next).map_or(self.object.size, |span| span.start)),
        };
        start..(start + BLOCK_BYTES).min(end).min(self.object.size)
    }
}

/// Sorts spans, and joins those with little between them.
fn joined(spans: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = spans.iter().filter(|span| !span.is_empty()).cloned().collect();
    sorted.sort_by_key(|span| span.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for span in sorted {
        match joined.last_mut() {
            Some(last) if span.start <= last.end + MAX_GAP_BYTES => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.shared.rest_of_block(self.position)?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Blocks {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Bytes of a request: about ten times what a connection transfers while a store prepares its answer.
const BLOCK_BYTES: u64 = 8 << 20;

/// The most bytes between spans that are fetched along, since that costs less than another request.
const MAX_GAP_BYTES: u64 = 1 << 20;
