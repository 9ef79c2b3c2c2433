//! "Here is work that may panic, give me its result or the panic's message."
//!
//! Decoders panic on some damaged files, and a defect of this crate must surface as an error. A panic inside a guard is
//! not printed: its message is in the error, with the line that panicked. All other panics reach the hook that was
//! installed before. A panic in a thread that the guarded work starts is outside the guard.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

thread_local! {
    /// How many guards this thread is inside of.
    static GUARDS: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic inside a guard was raised.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does `work`, and returns its result, or the message and the location of a panic.
///
/// After a panic, what `work` was changing may be half-changed, and should not be used.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    install_hook();
    GUARDS.set(GUARDS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDS.set(GUARDS.get() - 1);
    result.map_err(|panic| {
        let text = message(panic.as_ref());
        LOCATION.take().map_or_else(|| text.clone(), |location| format!("{text} ({location})"))
    })
}

/// Does the same as [`guarded`] for a future, which is not polled again after a panic.
pub(crate) async fn guarded_future<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|context| match guarded(|| work.as_mut().poll(context)) {
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(text) => Poll::Ready(Err(text)),
    })
    .await
}

/// Returns the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked without a message".into())
}

/// Installs a hook for all threads, once a process. The previous hook gets the panics that no guard catches.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            // A thread that is ending has lost its locals, and is not in a guard.
            if GUARDS.try_with(Cell::get).unwrap_or(0) == 0 {
                previous(info);
            } else {
                LOCATION.set(info.location().map(file_and_line));
            }
        }));
    });
}

/// Returns file and line, without the folders of this machine in which the crate lies.
fn file_and_line(location: &Location<'_>) -> String {
    let file = location.file();
    let file = match file.rsplit_once("/src/") {
        Some((folder, file)) => format!("{}/src/{file}", folder.rsplit('/').next().unwrap_or_default()),
        None => file.to_owned(),
    };
    format!("{file}:{}", location.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_gives_the_result_or_the_message_with_its_place() {
        assert_eq!(guarded(|| 3), Ok(3));
        let said = guarded(|| panic!("{} are missing", 2)).unwrap_err();
        assert!(said.starts_with("2 are missing (src/panics.rs:"), "{said}");
        let said = guarded(|| [1][std::hint::black_box(7)]).unwrap_err();
        assert!(said.starts_with("index out of bounds: the len is 1 but the index is 7 ("), "{said}");
    }

    #[test]
    fn guards_may_stand_within_each_other() {
        let inner = guarded(|| {
            assert_eq!(guarded::<()>(|| panic!("within")).unwrap_err().split(' ').next(), Some("within"));
            panic!("around");
        });
        assert!(inner.unwrap_err().starts_with("around"));
        assert_eq!(GUARDS.get(), 0);
    }

    #[test]
    fn a_panic_between_two_polls_is_caught() {
        let work = async {
            std::future::ready(()).await;
            panic!("halfway");
        };
        let said = futures::executor::block_on(guarded_future(work)).unwrap_err();
        assert!(said.starts_with("halfway"), "{said}");
    }
}
