//! Leaves GPU sessions to the system when the process exits.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, Once, PoisonError};

use crate::config::Provider;

/// A value that is not dropped once the process exits.
///
/// It is for sessions on a GPU, which a background thread may be the last to drop. ONNX Runtime aborts the process if a
/// session is closed after CUDA has shut down. The system frees everything anyway.
pub(crate) struct UntilExit<T>(ManuallyDrop<T>);

impl<T> UntilExit<T> {
    /// Wraps a value that was opened on this provider.
    pub fn new(value: T, provider: Provider) -> Self {
        static ONCE: Once = Once::new();
        if provider != Provider::Cpu {
            ONCE.call_once(|| {
                // SAFETY: the function may be called at any time. It is registered after CUDA's own functions, so it is
                // called before them. If it cannot be registered, nothing changes.
                unsafe { libc::atexit(note_exit) };
            });
        }
        Self(ManuallyDrop::new(value))
    }
}

/// Whether the process is exiting. The lock is held while a value is dropped, so that the exit waits for that.
static EXITING: Mutex<bool> = Mutex::new(false);

extern "C" fn note_exit() {
    *EXITING.lock().unwrap_or_else(PoisonError::into_inner) = true;
}

impl<T> Drop for UntilExit<T> {
    fn drop(&mut self) {
        drop_unless(&EXITING, &mut self.0);
    }
}

/// Drops the value unless the process is exiting.
fn drop_unless<T>(exiting: &Mutex<bool>, value: &mut ManuallyDrop<T>) {
    let exiting = exiting.lock().unwrap_or_else(PoisonError::into_inner);
    if !*exiting {
        // SAFETY: `drop` calls this once, and nothing reads the value afterwards.
        unsafe { ManuallyDrop::drop(value) };
    }
}

impl<T> Deref for UntilExit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for UntilExit<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_dropped_once_the_end_has_begun() {
        let value = Arc::new(());
        let ending = Mutex::new(false);
        drop_unless(&ending, &mut ManuallyDrop::new(value.clone()));
        assert_eq!(Arc::strong_count(&value), 1);
        *ending.lock().unwrap() = true;
        drop_unless(&ending, &mut ManuallyDrop::new(value.clone()));
        assert_eq!(Arc::strong_count(&value), 2);
        // While the process runs, as what it stands for.
        drop(UntilExit::new(value.clone(), Provider::Cpu));
        assert_eq!(Arc::strong_count(&value), 2);
    }

    #[test]
    fn the_end_waits_for_what_is_being_dropped() {
        struct Slow<'a>(&'a Mutex<bool>, std::sync::mpsc::Sender<bool>);
        impl Drop for Slow<'_> {
            fn drop(&mut self) {
                self.1.send(self.0.try_lock().is_err()).unwrap();
            }
        }
        let ending = Mutex::new(false);
        let (sender, receiver) = std::sync::mpsc::channel();
        drop_unless(&ending, &mut ManuallyDrop::new(Slow(&ending, sender)));
        assert!(receiver.recv().unwrap(), "the lock was free meanwhile");
        assert!(!*ending.lock().unwrap());
    }
}
