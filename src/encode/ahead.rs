//! Starts work before the results of earlier work are taken.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use rayon::Yield;

/// Hands out tasks, and takes their results.
pub(super) trait Tasks {
    type Task: Send;
    type Done: Send;
    type Error: Send;

    /// Returns the next task.
    fn next(&mut self) -> Result<Next<Self::Task>, Self::Error>;

    /// Takes the result of a task; results come in the order of their tasks.
    fn take(&mut self, done: Self::Done) -> Result<(), Self::Error>;
}

/// What there is to do next.
pub(super) enum Next<T> {
    Task(T),
    /// There is no task before a result is taken, or before something happens elsewhere.
    Later,
    End,
}

/// Does the work of up to `at_once` tasks at the same time, until there are no more.
///
/// The work is done on the current rayon pool; tasks are handed out and results are taken on this thread.
///
/// # Errors
/// The first error of `tasks` or `work`, which ends both.
pub(super) fn do_all<T: Tasks>(
    tasks: &mut T,
    at_once: usize,
    work: impl Fn(T::Task) -> Result<T::Done, T::Error> + Sync,
) -> Result<(), T::Error> {
    if at_once <= 1 {
        return loop {
            match tasks.next()? {
                Next::Task(task) => tasks.take(work(task)?)?,
                Next::Later => give_way(LATER_SLEEP),
                Next::End => break Ok(()),
            }
        };
    }
    rayon::in_place_scope(|scope| {
        let mut ahead = VecDeque::with_capacity(at_once);
        loop {
            let is_full = ahead.len() == at_once;
            match if is_full { Next::Later } else { tasks.next()? } {
                Next::Task(task) => {
                    let (sender, receiver) = channel();
                    let work = &work;
                    // If an earlier task has failed, nobody receives the result.
                    scope.spawn(move |_| drop(sender.send(work(task))));
                    ahead.push_back(receiver);
                }
                Next::End if ahead.is_empty() => return Ok(()),
                Next::Later if ahead.is_empty() => give_way(LATER_SLEEP),
                Next::Later | Next::End => match receive_next(&mut ahead) {
                    Some(done) => tasks.take(done?)?,
                    // The work panicked, and the scope resumes the panic.
                    None => return Ok(()),
                },
            }
        }
    })
}

/// Waits for the oldest result; `None` if its work panicked.
fn receive_next<T>(ahead: &mut VecDeque<Receiver<T>>) -> Option<T> {
    let next = ahead.pop_front()?;
    loop {
        match next.try_recv() {
            Ok(done) => return Some(done),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => give_way(RESULT_SLEEP),
        }
    }
}

/// Does other work of the pool, whose only thread this one may be, or else sleeps.
fn give_way(sleep: Duration) {
    if rayon::yield_now() != Some(Yield::Executed) {
        std::thread::sleep(sleep);
    }
}

/// How long a thread sleeps that waits for a result of its own pool.
const RESULT_SLEEP: Duration = Duration::from_micros(100);

/// How long a thread sleeps that waits for another process.
const LATER_SLEEP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::ComputePool;

    /// Hands out the numbers below 100, each of which must wait until it is asked for a second time.
    struct Numbers {
        next: usize,
        is_late: bool,
        taken: Vec<(usize, usize)>,
        fails_at: usize,
    }

    impl Numbers {
        fn new(fails_at: usize) -> Self {
            Self { next: 0, is_late: false, taken: Vec::new(), fails_at }
        }
    }

    impl Tasks for Numbers {
        type Task = usize;
        type Done = (usize, usize);
        type Error = &'static str;

        fn next(&mut self) -> Result<Next<usize>, &'static str> {
            if self.next == 100 {
                return Ok(Next::End);
            }
            self.is_late = !self.is_late && self.next.is_multiple_of(20);
            if self.is_late {
                return Ok(Next::Later);
            }
            self.next += 1;
            Ok(Next::Task(self.next - 1))
        }

        fn take(&mut self, done: (usize, usize)) -> Result<(), &'static str> {
            if done.0 == self.fails_at {
                return Err("take");
            }
            self.taken.push(done);
            Ok(())
        }
    }

    #[test]
    fn results_are_taken_in_order_with_so_many_at_once() {
        for (threads, at_once) in [(1, 1), (1, 3), (4, 1), (4, 2), (4, 3)] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |task: usize| {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                let sum: usize =
                    rayon::iter::ParallelIterator::sum(rayon::iter::IntoParallelIterator::into_par_iter(0..task));
                running.fetch_sub(1, SeqCst);
                Ok((task, sum))
            };
            let mut numbers = Numbers::new(usize::MAX);
            ComputePool::new(threads).unwrap().install(|| do_all(&mut numbers, at_once, work)).unwrap();
            assert_eq!(numbers.taken, (0..100).map(|task| (task, (0..task).sum())).collect::<Vec<_>>());
            assert!(most.load(SeqCst) <= at_once.max(1), "{} at once", most.load(SeqCst));
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        for at_once in [1, 3] {
            let (begun, pool) = (AtomicUsize::new(0), ComputePool::new(2).unwrap());
            let work = |task| {
                begun.fetch_add(1, SeqCst);
                if task == 5 { Err("work") } else { Ok((task, 0)) }
            };
            let mut numbers = Numbers::new(usize::MAX);
            assert_eq!(pool.install(|| do_all(&mut numbers, at_once, work)), Err("work"));
            assert_eq!(numbers.taken, [0, 1, 2, 3, 4].map(|task| (task, 0)));
            assert!(begun.load(SeqCst) <= 5 + at_once);
            assert_eq!(pool.install(|| do_all(&mut Numbers::new(2), at_once, |task| Ok((task, 0)))), Err("take"));
        }
    }

    #[test]
    fn a_panic_of_the_work_ends_it() {
        for at_once in [1, 3] {
            let pool = ComputePool::new(2).unwrap();
            let work = |task| if task == 5 { panic!("at five") } else { Ok((task, 0)) };
            let mut numbers = Numbers::new(usize::MAX);
            let run = || pool.install(|| do_all(&mut numbers, at_once, work));
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"at five"));
            assert_eq!(numbers.taken.len(), 5);
        }
    }
}
