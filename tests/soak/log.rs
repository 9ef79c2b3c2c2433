//! The warnings that the crate logs while a case runs, so that a fault says what came before it.

use std::collections::VecDeque;
use std::io::{Result, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tracing_subscriber::filter::LevelFilter;

/// The last lines at WARN and ERROR.
static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Collects lines from now on, in the whole process.
pub fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::WARN)
            .with_writer(|| Collector)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .init();
    });
}

/// Takes the lines that were logged since the last call, oldest first. Without [`collect`] there are none.
pub fn take() -> Vec<String> {
    lines().drain(..).collect()
}

fn lines() -> MutexGuard<'static, VecDeque<String>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is written one event at a time.
struct Collector;

impl Write for Collector {
    fn write(&mut self, event: &[u8]) -> Result<usize> {
        let mut lines = lines();
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(event).trim().to_owned());
        Ok(event.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The most lines that are kept.
const MAX_LINES: usize = 20;

#[test]
fn the_last_warnings_are_collected_in_their_order() {
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(|| Collector);
    tracing::subscriber::with_default(subscriber.with_ansi(false).without_time().finish(), || {
        (0..30).for_each(|number| tracing::warn!(reason = number, "failed"));
        tracing::info!("not a warning");
    });
    let lines = take();
    assert_eq!(lines.len(), MAX_LINES);
    assert!(lines[0].contains("failed reason=10"), "{lines:?}");
    assert!(lines[MAX_LINES - 1].contains("failed reason=29"), "{lines:?}");
    assert!(take().is_empty());
}
