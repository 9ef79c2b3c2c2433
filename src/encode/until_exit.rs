use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, Once, PoisonError};

use crate::config::Provider;

/// What is not dropped any more once the process has begun to end: a session on a GPU, which a thread of the background
/// may let go of last. CUDA refuses to give memory back by then, and ONNX Runtime aborts the process for that; the
/// system takes it all back anyway.
pub(crate) struct UntilExit<T>(ManuallyDrop<T>);

impl<T> UntilExit<T> {
    /// Something that was opened on this provider.
    pub fn new(value: T, provider: Provider) -> Self {
        static ONCE: Once = Once::new();
        if provider != Provider::Cpu {
            ONCE.call_once(|| {
                // SAFETY: the function may be called at any time. It is registered after CUDA has registered its own, so
                // it is called before these. Where there is no room for it, things are as they were without.
                unsafe { libc::atexit(note_exit) };
            });
        }
        Self(ManuallyDrop::new(value))
    }
}

/// Whether the process has begun to end; held while something is dropped, so that the end waits for it.
static ENDING: Mutex<bool> = Mutex::new(false);

extern "C" fn note_exit() {
    *ENDING.lock().unwrap_or_else(PoisonError::into_inner) = true;
}

impl<T> Drop for UntilExit<T> {
    fn drop(&mut self) {
        drop_unless(&ENDING, &mut self.0);
    }
}

fn drop_unless<T>(ending: &Mutex<bool>, value: &mut ManuallyDrop<T>) {
    let ending = ending.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ending {
        // SAFETY: called once, by `drop`, after which nothing reads it.
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
