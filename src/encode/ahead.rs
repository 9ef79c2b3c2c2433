//! Starts work before the results of earlier work are taken.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use rayon::Yield;

/// Does the work of up to `at_once` items at the same time, and takes the results in the order of the items.
///
/// The work is done on the current rayon pool; `take` runs on this thread.
///
/// # Errors
/// The first error of `work` or `take`, which ends both.
pub(super) fn in_order<I: Send, T: Send, E: Send>(
    items: impl Iterator<Item = I>,
    at_once: usize,
    work: impl Fn(I) -> Result<T, E> + Sync,
    mut take: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    if at_once <= 1 {
        return items.map(work).try_for_each(|done| take(done?));
    }
    rayon::in_place_scope(|scope| {
        let mut ahead = VecDeque::with_capacity(at_once);
        for item in items {
            if ahead.len() == at_once {
                take_next(&mut ahead, &mut take)?;
            }
            let (sender, receiver) = channel();
            let work = &work;
            // If an earlier item has failed, nobody receives the result.
            scope.spawn(move |_| drop(sender.send(work(item))));
            ahead.push_back(receiver);
        }
        while !ahead.is_empty() {
            take_next(&mut ahead, &mut take)?;
        }
        Ok(())
    })
}

/// Waits for the oldest result, and takes it.
fn take_next<T, E>(
    ahead: &mut VecDeque<Receiver<Result<T, E>>>,
    take: &mut impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let Some(next) = ahead.pop_front() else { return Ok(()) };
    loop {
        match next.try_recv() {
            Ok(done) => return take(done?),
            // The work panicked, and the scope will resume the panic.
            Err(TryRecvError::Disconnected) => return Ok(()),
            // This thread belongs to the pool and may be its only one, so it does other work while it waits.
            Err(TryRecvError::Empty) => {
                if rayon::yield_now() != Some(Yield::Executed) {
                    std::thread::sleep(IDLE_SLEEP);
                }
            }
        }
    }
}

/// How long a waiting thread sleeps when there is no other work.
const IDLE_SLEEP: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::ComputePool;

    #[test]
    fn results_are_taken_in_order_with_so_many_at_once() {
        for (threads, at_once) in [(1, 1), (1, 3), (4, 1), (4, 2), (4, 3)] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut taken = Vec::new();
            let work = |item: usize| {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                let sum: usize =
                    rayon::iter::ParallelIterator::sum(rayon::iter::IntoParallelIterator::into_par_iter(0..item));
                running.fetch_sub(1, SeqCst);
                Ok::<_, usize>((item, sum))
            };
            let take = |done| {
                taken.push(done);
                Ok(())
            };
            ComputePool::new(threads).unwrap().install(|| in_order(0..100, at_once, work, take)).unwrap();
            assert_eq!(taken, (0..100).map(|item| (item, (0..item).sum())).collect::<Vec<_>>());
            assert!(most.load(SeqCst) <= at_once.max(1), "{} at once", most.load(SeqCst));
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        for at_once in [1, 3] {
            let mut taken = Vec::new();
            let (begun, pool) = (AtomicUsize::new(0), ComputePool::new(2).unwrap());
            let work = |item| {
                begun.fetch_add(1, SeqCst);
                if item == 5 { Err("work") } else { Ok(item) }
            };
            let take = |item| {
                taken.push(item);
                Ok(())
            };
            assert_eq!(pool.install(|| in_order(0..100, at_once, work, take)), Err("work"));
            assert_eq!(taken, [0, 1, 2, 3, 4]);
            assert!(begun.load(SeqCst) <= 5 + at_once);
            let take = |item| if item == 2 { Err("take") } else { Ok(()) };
            assert_eq!(pool.install(|| in_order(0..100, at_once, Ok, take)), Err("take"));
        }
    }
}
