//! Progress bars on standard error, and the numbers in all output.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::{Progress, Stage};

/// Shows a bar for the stage that is running, on a terminal only, and prints a line for each stage that has ended.
pub(super) struct StageBars {
    stage: Option<(Stage, Instant)>,
    bar: ProgressBar,
    is_terminal: bool,
}

impl StageBars {
    pub fn new() -> Self {
        Self { stage: None, bar: ProgressBar::hidden(), is_terminal: std::io::stderr().is_terminal() }
    }

    pub fn show(&mut self, progress: Progress) {
        if self.stage.is_none_or(|(stage, _)| stage != progress.stage) {
            self.stage = Some((progress.stage, Instant::now()));
            if self.is_terminal {
                self.bar = bar(progress.total.unwrap_or(0) as u64, progress.stage.name());
            }
        }
        self.bar.set_position(progress.done as u64);
        if Some(progress.done) == progress.total
            && let Some((stage, begun)) = self.stage
        {
            self.bar.finish_and_clear();
            let seconds = begun.elapsed().as_secs_f64();
            note!("{:<12} {} samples in {seconds:.1} s", stage.name(), thousands(progress.done as u64));
        }
    }
}

/// The bar that counts mini-batches; hidden if standard error is no terminal.
pub(super) fn mini_batch_bar(total: u64) -> ProgressBar {
    if std::io::stderr().is_terminal() { bar(total, "streaming") } else { ProgressBar::hidden() }
}

fn bar(total: u64, name: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<12} {wide_bar} {human_pos}/{human_len} {per_sec} {eta} {msg}");
    let bar = ProgressBar::new(total).with_prefix(name);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// 1234567 as `1,234,567`.
pub(super) fn thousands(n: u64) -> String {
    HumanCount(n).to_string()
}
