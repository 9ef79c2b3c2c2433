//! "Here is heavy work, keep it off tokio's threads."
//!
//! A [`ComputePool`] runs embedding and graph building; its size is a setting. It is not for choosing and gathering a
//! mini-batch, which is short: that runs on tokio's blocking threads, so that no mini-batch queues behind a refresh
//! that fills the pool.
//!
//! A background pool runs refreshes. Its threads have a lower priority, and they use a GPU only for a share of the
//! time: priorities mean nothing there, so each thread sleeps after its work.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;

use crate::error::{Error, Result};
use crate::panics::guarded;

/// A pool of threads for embedding and graph building. Cloning shares it.
#[derive(Clone, Debug)]
pub struct ComputePool(Arc<rayon::ThreadPool>);

impl ComputePool {
    /// A pool of `threads` threads; 0 means one for each core.
    ///
    /// # Errors
    /// [`Error::System`] if the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("prosampler-{i}"))
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(refused)
    }

    /// A pool whose threads have a lower priority than all others of the machine, for work beside a trainer.
    ///
    /// Each keeps a GPU busy at most `gpu_share` of the time, above 0 and at most 1.
    ///
    /// # Errors
    /// [`Error::System`] if the system refuses the threads.
    pub fn in_background(threads: usize, gpu_share: f64) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("prosampler-bg-{i}"))
            .start_handler(move |_| {
                lower_priority();
                GPU_SHARE.set(gpu_share);
            })
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(refused)
    }

    /// The number of threads in the pool.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `work` in the pool and blocks until it is done. Rayon's parallel iterators inside use this pool.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }

    /// Runs `work` in the pool without blocking the calling task.
    ///
    /// A panic inside becomes [`Error::TaskDied`]. Dropping the future does not stop work that has begun.
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
            // The receiver is gone; nothing to report to.
            let _ = tx.send(span.in_scope(|| guarded(work)));
        });
        match rx.await {
            Ok(Ok(result)) => result,
            Ok(Err(message)) => Err(Error::TaskDied { task, message }),
            Err(_) => Err(Error::TaskDied { task, message: "the compute pool was shut down".into() }),
        }
    }
}

fn refused(error: rayon::ThreadPoolBuildError) -> Error {
    Error::System { action: "start the threads that compute.threads asks for", cause: error.into() }
}

/// Lowers the priority of the current thread on Linux, where each thread has its own; does nothing elsewhere.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    // SAFETY: a plain system call; 0 is the calling thread. Lowering is always allowed, and harmless if it fails.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND_NICE);
    }
}

/// The nice value of background threads: one of normal priority gets about nine times as much of a core.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 10;

thread_local! {
    /// The share of the time that work of this thread may keep a GPU busy.
    static GPU_SHARE: Cell<f64> = const { Cell::new(1.0) };
}

/// Whether this thread may keep a GPU busy only a share of the time.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "only models run on GPUs"))]
pub(crate) fn is_gpu_throttled() -> bool {
    GPU_SHARE.get() < 1.0
}

/// Runs `work`, then sleeps so that this thread keeps the GPU busy at most its share of the time.
///
/// Call it while holding the session's lock: the pause then limits the session, too.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "only models run on GPUs"))]
pub(crate) fn throttled<T>(work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    run_and_rest(GPU_SHARE.get(), || begun.elapsed(), std::thread::sleep, work)
}

/// Runs `work`, then rests so long that work is `share` of both together.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "only models run on GPUs"))]
fn run_and_rest<T>(share: f64, now: impl Fn() -> Duration, rest: impl FnOnce(Duration), work: impl FnOnce() -> T) -> T {
    let begun = now();
    let done = work();
    if share < 1.0 {
        rest((now() - begun).mul_f64(1.0 / share - 1.0));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured by a clock of its own, from the first work to the end of the last rest.
    #[test]
    fn throttled_work_takes_its_share_of_the_time() {
        for (share, rests) in [(1.0, 0), (0.5, 5), (0.2, 5), (0.01, 5)] {
            let clock = Cell::new(Duration::ZERO);
            let busy = Cell::new(Duration::ZERO);
            let rested = Cell::new(0);
            let advance = |cell: &Cell<Duration>, by: Duration| cell.set(cell.get() + by);
            for milliseconds in [3, 40, 1, 0, 250] {
                let length = Duration::from_millis(milliseconds);
                let rest = |length| {
                    advance(&clock, length);
                    rested.set(rested.get() + 1);
                };
                let done = run_and_rest(
                    share,
                    || clock.get(),
                    rest,
                    || {
                        advance(&clock, length);
                        advance(&busy, length);
                        milliseconds
                    },
                );
                assert_eq!(done, milliseconds);
            }
            assert_eq!(rested.get(), rests);
            assert!((busy.get().div_duration_f64(clock.get()) - share).abs() < 1e-6, "{share}");
        }
    }

    #[test]
    fn only_threads_of_a_background_pool_rest() {
        assert_eq!(ComputePool::new(1).unwrap().install(|| GPU_SHARE.get()), 1.0);
        assert_eq!(ComputePool::in_background(1, 0.25).unwrap().install(|| GPU_SHARE.get()), 0.25);
    }
}
