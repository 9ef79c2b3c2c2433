//! An object as a reader that can seek: fetched in large blocks, of which the last few are kept.
//!
//! Memory is bounded whatever the size of a row group, which is why Parquet is read through this and not through its
//! asynchronous reader: that one holds all bytes of a row group at the same time.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::object::Object;
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(in crate::source) struct Blocks {
    shared: Arc<Shared>,
    position: u64,
}

/// Why the bytes did not come: a decoder only passes a text on.
pub(in crate::source) type Failure = Arc<Mutex<Option<Error>>>;

#[derive(Debug)]
struct Shared {
    object: Object,
    /// What will be read: in order, apart from each other.
    spans: Vec<Range<u64>>,
    /// The blocks used last, by where they start, and how many to keep.
    recent: Mutex<VecDeque<(u64, Bytes)>>,
    keep: usize,
    failure: Failure,
    runtime: Handle,
}

impl Blocks {
    /// To be called on a blocking thread of tokio. `spans` may overlap and come in any order; `at_once` places are read
    /// side by side.
    pub fn new(object: Object, spans: &[Range<u64>], at_once: usize) -> Self {
        let shared = Shared {
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

    /// `length` bytes from `start` on.
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

impl Shared {
    /// The bytes from `at` to the end of their block; none at the end of the object.
    fn rest_of_block(&self, at: u64) -> std::io::Result<Bytes> {
        if at >= self.object.size {
            return Ok(Bytes::new());
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |(start, bytes): &(u64, Bytes)| (*start..start + bytes.len() as u64).contains(&at);
        let found = recent.iter().position(holds).and_then(|i| recent.remove(i));
        let (start, bytes) = match found {
            Some(block) => block,
            None => {
                let block = self.block_at(at);
                let bytes = self.fetch(block.clone()).map_err(|error| {
                    let text = error.to_string();
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    std::io::Error::other(text)
                })?;
                (block.start, bytes)
            }
        };
        let rest = bytes.slice((at - start) as usize..);
        recent.push_back((start, bytes));
        if recent.len() > self.keep {
            recent.pop_front();
        }
        Ok(rest)
    }

    /// Waits for a task of the runtime, which may end before it: then there is nobody to read for.
    fn fetch(&self, block: Range<u64>) -> Result<Bytes> {
        let (tx, rx) = oneshot::channel();
        let object = self.object.clone();
        self.runtime.spawn(async move { tx.send(object.fetch(block).await).ok() });
        let ended = |_| Error::TaskDied { task: "source", message: "the runtime has ended".into() };
        rx.blocking_recv().map_err(ended)?
    }

    /// The block that holds `at`. Blocks of a span begin at its start, and never reach beyond it.
    fn block_at(&self, at: u64) -> Range<u64> {
        let next = self.spans.partition_point(|span| span.start <= at);
        let before = next.checked_sub(1).map(|i| &self.spans[i]).filter(|span| span.contains(&at));
        let (start, end) = match before {
            Some(span) => (at - (at - span.start) % BLOCK, span.end),
            None => (at, self.spans.get(next).map_or(self.object.size, |span| span.start)),
        };
        start..(start + BLOCK).min(end).min(self.object.size)
    }
}

/// Spans in order, those with little between them as one.
fn joined(spans: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = spans.iter().filter(|span| !span.is_empty()).cloned().collect();
    sorted.sort_by_key(|span| span.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for span in sorted {
        match joined.last_mut() {
            Some(last) if span.start <= last.end + GAP => last.end = last.end.max(span.end),
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

/// Bytes of a request: some ten times what a connection moves while a store makes up its answer.
const BLOCK: u64 = 8 << 20;

/// Bytes between spans that cost less than another request.
const GAP: u64 = 1 << 20;
