//! Progress on standard error, as bars on a terminal and as plain lines elsewhere; and the numbers in all output.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::{Progress, Stage};

/// Shows the stage of a start that is running, and prints a line for each stage that has ended.
pub(super) struct StageBars {
    stage: Option<(Stage, Instant)>,
    bar: ProgressBar,
    pace: Pace,
    is_terminal: bool,
}

impl StageBars {
    pub fn new() -> Self {
        let pace = Pace::new(Instant::now());
        Self { stage: None, bar: ProgressBar::hidden(), pace, is_terminal: std::io::stderr().is_terminal() }
    }

    pub fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        let begun = match self.stage {
            Some((stage, begun)) if stage == progress.stage => begun,
            _ => {
                self.stage = Some((progress.stage, now));
                self.pace = Pace::new(now);
                if self.is_terminal {
                    self.bar = bar(progress.total.map(|total| total as u64), progress.stage.name());
                }
                now
            }
        };
        let name = progress.stage.name();
        let done = progress.done as u64;
        self.bar.set_position(done);
        if Some(progress.done) == progress.total {
            self.bar.finish_and_clear();
            note!("{name:<12} {} samples in {:.1} s", thousands(done), (now - begun).as_secs_f64());
        } else if !self.is_terminal && self.pace.is_due(now) {
            let so_far = so_far(done, progress.total.map(|total| total as u64));
            note!("{name:<12} {so_far} samples after {:.0} s", (now - begun).as_secs_f64());
        }
    }
}

/// Shows how many mini-batches a run has delivered.
pub(super) struct MiniBatchProgress {
    display: Display,
    begun: Instant,
    done: u64,
    total: Option<u64>,
}

enum Display {
    Nothing,
    Bar(ProgressBar),
    Lines(Pace),
}

impl MiniBatchProgress {
    pub fn new(total: Option<u64>, is_quiet: bool) -> Self {
        let begun = Instant::now();
        let display = if is_quiet {
            Display::Nothing
        } else if std::io::stderr().is_terminal() {
            Display::Bar(bar(total, STREAMING))
        } else {
            Display::Lines(Pace::new(begun))
        };
        Self { display, begun, done: 0, total }
    }

    /// One more mini-batch has been delivered, while a refresh, if there is one, is at `refresh`.
    pub fn advance(&mut self, refresh: Option<Progress>) {
        self.done += 1;
        match &mut self.display {
            Display::Nothing => {}
            Display::Bar(bar) => {
                bar.inc(1);
                bar.set_message(refresh.map(refresh_message).unwrap_or_default());
            }
            Display::Lines(pace) => {
                let now = Instant::now();
                if pace.is_due(now) {
                    let so_far = so_far(self.done, self.total);
                    let seconds = (now - self.begun).as_secs_f64();
                    let refresh = refresh.map(|refresh| format!(", {}", refresh_message(refresh))).unwrap_or_default();
                    note!("{STREAMING:<12} {so_far} mini-batches after {seconds:.0} s{refresh}");
                }
            }
        }
    }

    pub fn finish(self) {
        if let Display::Bar(bar) = self.display {
            bar.finish_and_clear();
        }
    }
}

/// How often plain lines come.
struct Pace {
    last: Instant,
}

impl Pace {
    fn new(begun: Instant) -> Self {
        Self { last: begun }
    }

    /// Whether the next line is due; the one after it is due `LINE_INTERVAL` later.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.saturating_duration_since(self.last) >= LINE_INTERVAL;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

/// `12,288 of 117,659`, or `12,288` if nobody knows of how many.
fn so_far(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{} of {}", thousands(done), thousands(total)),
        None => thousands(done),
    }
}

/// What a background refresh is doing.
fn refresh_message(progress: Progress) -> String {
    let Progress { stage, done, total } = progress;
    match (stage, total) {
        (Stage::Encode, Some(total)) => format!("refresh: {} {} %", stage.name(), 100 * done / total.max(1)),
        // Most refreshes find no files to read.
        (Stage::Store, _) => "refresh: looking".to_owned(),
        (Stage::Encode | Stage::Graph, _) => format!("refresh: {}", stage.name()),
    }
}

fn bar(total: Option<u64>, name: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<12} {wide_bar} {human_pos}/{human_len} {per_sec} {eta} {msg}");
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_prefix(name);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// 1234567 as `1,234,567`.
pub(super) fn thousands(n: u64) -> String {
    HumanCount(n).to_string()
}

/// 1234567 bytes as `1.2 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// What the stage of mini-batches is called.
const STREAMING: &str = "streaming";

/// The least time between two plain lines of one stage.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_every_ten_seconds() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let due: Vec<_> = (0..=35).filter(|&second| pace.is_due(begun + Duration::from_secs(second))).collect();
        assert_eq!(due, [10, 20, 30]);
        assert_eq!(so_far(12_288, Some(117_659)), "12,288 of 117,659");
        assert_eq!(so_far(12_288, None), "12,288");
    }
}
