//! How work that nobody waits for any longer is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arrow::array::RecordBatch;

use crate::encode::{Encoded, Encoder};
use crate::error::{Error, Result};

/// Cancels work when it is dropped: what shares the flag stops soon afterwards.
pub(crate) struct CancelOnDrop(pub Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// An encoder that fails with [`Error::Cancelled`] once its work is cancelled.
pub(crate) struct CancellableEncoder {
    pub encoder: Arc<dyn Encoder>,
    pub cancelled: Arc<AtomicBool>,
}

impl CancellableEncoder {
    /// Fails if the work is cancelled.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl Encoder for CancellableEncoder {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn columns(&self) -> &[String] {
        self.encoder.columns()
    }

    fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    fn identity(&self) -> Option<String> {
        self.encoder.identity()
    }

    fn calls_at_once(&self) -> usize {
        self.encoder.calls_at_once()
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.check()?;
        self.encoder.encode(rows, vectors)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        self.check()?;
        self.encoder.encode_readable(rows, vectors)
    }
}
