//! "Here is heavy work, keep it off tokio's threads."
//!
//! One pool of threads for embedding and graph building, its size a setting. Not for the few hundred microseconds of
//! choosing and gathering a mini-batch: those go to tokio's blocking threads, so that no mini-batch queues behind a
//! refresh that fills the pool.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Span;

use crate::error::{Error, Result};

/// The pool that embedding and graph building run on. Cloning shares it.
#[derive(Clone, Debug)]
pub struct ComputePool(Arc<rayon::ThreadPool>);

impl ComputePool {
    /// A pool of `threads` threads; 0 means one for each core.
    ///
    /// # Errors
    /// [`Error::TaskDied`] where the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("prosampler-{i}"))
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(|e| Error::TaskDied { task: "compute pool", message: e.to_string() })
    }

    /// A pool whose threads give way to all others of the machine: what a trainer does not use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_background(threads: usize) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("prosampler-bg-{i}"))
            .start_handler(|_| give_way())
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(|e| Error::TaskDied { task: "compute pool", message: e.to_string() })
    }

    /// Threads in the pool.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `work` in the pool and blocks until it is done; rayon's parallel iterators inside use this pool.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }

    /// Runs `work` in the pool without blocking the calling task. A panic inside becomes [`Error::TaskDied`].
    /// Dropping the future does not stop work that has begun.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::TaskDied`].
    pub async fn run<T: Send + 'static>(
        &self,
        task: &'static str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tx, rx) = oneshot::channel();
        let span = Span::current();
        self.0.spawn(move || {
            // A receiver that is gone has no use for the result.
            let _ = tx.send(span.in_scope(|| catch_unwind(AssertUnwindSafe(work))));
        });
        match rx.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(died(task, panic.as_ref())),
            Err(_) => Err(Error::TaskDied { task, message: "the compute pool was shut down".into() }),
        }
    }
}

/// Lowers the priority of the current thread, where threads have one of their own: on Linux.
fn give_way() {
    #[cfg(target_os = "linux")]
    // SAFETY: a plain system call; 0 is the calling thread. Lowering is always allowed, and harmless where it fails.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

/// How much way background threads give: a thread of normal priority gets nine times as much of a core.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

pub(crate) fn died(task: &'static str, panic: &(dyn Any + Send)) -> Error {
    Error::TaskDied { task, message: panic_message(panic) }
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without a message".into())
}
