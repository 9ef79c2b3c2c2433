//! Work in the background that Python waits for in turns, so that it hears Ctrl-C.

use std::future::Future;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prosampler::{Error, Result};
use pyo3::prelude::*;
use tokio::runtime::Handle;

use crate::errors::exception;

/// How long a turn is.
pub const TURN: Duration = Duration::from_millis(50);

/// The result of work that a runtime does; it comes once.
pub struct Pending<T>(Mutex<Receiver<Result<T>>>);

impl<T: Send + 'static> Pending<T> {
    pub fn begin(runtime: &Handle, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let (tx, answer) = channel();
        runtime.spawn(async move {
            // If the receiver is gone, there is nobody to tell.
            let _ = tx.send(work.await);
        });
        Self(Mutex::new(answer))
    }

    /// Waits for so long at most.
    pub fn poll(&self, py: Python<'_>, most: Duration) -> PyResult<Option<T>> {
        let waited = py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(most));
        match waited {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(error)) => Err(exception(py, &error)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // The runtime has ended.
            Err(RecvTimeoutError::Disconnected) => Err(exception(py, &Error::Cancelled)),
        }
    }

    /// Waits until it is there, and passes on what is logged meanwhile.
    pub fn wait(self, py: Python<'_>) -> PyResult<T> {
        loop {
            if let Some(value) = self.poll(py, TURN)? {
                return Ok(value);
            }
            py.check_signals()?;
            py.import("prosampler.stream")?.call_method0("log")?;
        }
    }
}
