//! What `prosampler run` prints at its end.

use std::fmt;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::ending::Ending;
use super::progress::thousands;
use crate::config::{FeatureKind, PipelineConfig};
use crate::refresh::RefreshCounts;
use crate::report::Summary;
use crate::source::SourceCounts;
use crate::{MiniBatch, MiniBatchStream};

/// How long the parts of a run took.
pub(super) struct Timing {
    /// From opening the source until the stream was there.
    pub start: Duration,
    /// How long the consumer waited for each mini-batch.
    pub waits: Vec<Duration>,
    /// From the beginning of the stream to its end, without pretended training steps.
    pub streaming: Duration,
}

/// How long the waits for all mini-batches after the first one were; `None` if there are none.
pub(super) struct OtherWaits {
    pub median: Option<Duration>,
    pub longest: Option<Duration>,
}

impl Timing {
    /// From opening the source to the first mini-batch; `None` if there was none.
    pub fn first(&self) -> Option<Duration> {
        self.waits.first().map(|&wait| self.start + wait)
    }

    pub fn other_waits(&self) -> OtherWaits {
        let mut others = self.waits.get(1..).unwrap_or_default().to_vec();
        others.sort_unstable();
        OtherWaits { median: others.get(others.len() / 2).copied(), longest: others.last().copied() }
    }
}

/// A run that has had a mini-batch, as people read of it.
pub(super) struct Finished<'a> {
    pub config: &'a PipelineConfig,
    pub stream: &'a MiniBatchStream,
    pub ending: Ending,
    pub timing: Timing,
    pub first: &'a MiniBatch,
    /// How hard the mini-batches are.
    pub summary: Summary,
}

impl fmt::Display for Finished<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{}{} mini-batches of {} out of {} samples",
            if self.ending == Ending::Done { "" } else { "interrupted after " },
            thousands(self.stream.counts().delivered),
            self.config.walk.batch_size,
            thousands(self.stream.samples() as u64),
        )?;
        self.write_times(f)?;
        self.write_refreshes(f)?;
        self.write_source(f)?;
        self.write_saved(f)?;
        writeln!(f)?;

        let is_text = self.config.encode.kind() == FeatureKind::Text;
        let column = self.config.encode.column.as_deref().filter(|_| is_text);
        write_samples(f, self.first, column, self.config.report.label.as_deref())?;
        write!(f, "{}", self.summary)
    }
}

impl Finished<'_> {
    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.timing.first().unwrap_or_default();
        writeln!(f, "{:<34}{:>10.1} s", "time to the first mini-batch", first.as_secs_f64())?;

        let waits = self.timing.other_waits();
        let median = waits.median.unwrap_or_default();
        let longest = waits.longest.unwrap_or_default();
        let name = "wait for each of the others";
        writeln!(f, "{name:<34}{:>10.2} ms, at most {:.2} ms", milliseconds(median), milliseconds(longest))?;

        let seconds = self.timing.streaming.as_secs_f64().max(1e-9);
        let rate = (self.summary.samples as f64 / seconds) as u64;
        writeln!(f, "{:<34}{:>10} rows/s", "streamed, training steps aside", thousands(rate))
    }

    fn write_refreshes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.stream.handle().counts();
        if counts == RefreshCounts::default() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<34}{:>10} published, {} skipped, {} failed, {} cancelled",
            "refreshes", counts.published, counts.skipped, counts.failed, counts.cancelled,
        )
    }

    fn write_source(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.stream.handle().source_counts();
        if counts == SourceCounts::default() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<34}{:>10} skipped rows, {} bad texts (no UTF-8), {} failed requests",
            "source",
            thousands(counts.skipped_rows as u64),
            thousands(counts.bad_texts as u64),
            thousands(counts.failed_requests as u64),
        )
    }

    /// What the caches saved, and what could not be saved for a later run.
    fn write_saved(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reused = self.stream.handle().embeddings_reused();
        if reused > 0 {
            writeln!(f, "{:<34}{:>10} samples from the cache", "embeddings", thousands(reused))?;
        }
        let unsaved = self.stream.counts().unsaved;
        if unsaved > 0 {
            writeln!(f, "{:<34}{:>10} graphs from which no run can be resumed", "checkpoints", thousands(unsaved))?;
        }
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Writes the texts of a mini-batch's first samples, each with its label.
fn write_samples(
    f: &mut fmt::Formatter<'_>,
    mini_batch: &MiniBatch,
    column: Option<&str>,
    label: Option<&str>,
) -> fmt::Result {
    let rows = mini_batch.rows.slice(0, SHOWN_SAMPLES.min(mini_batch.rows.num_rows()));
    let Some(texts) = column.and_then(|column| texts(&rows, column)) else { return Ok(()) };
    let labels = label.and_then(|label| self::texts(&rows, label));
    writeln!(f, "the first mini-batch, {SHOWN_SAMPLES} of its samples:")?;
    for (index, text) in texts.iter().enumerate() {
        let label = labels.as_ref().map(|labels| format!("{:<20}", labels[index])).unwrap_or_default();
        let cut: String = text.chars().take(TEXT_WIDTH).collect();
        let ellipsis = if cut.len() < text.len() { "…" } else { "" };
        writeln!(f, "  {label}{cut}{ellipsis}")?;
    }
    writeln!(f)
}

/// The values of a column as texts, nulls as empty ones; `None` if it is missing or its values have no text form.
fn texts(rows: &RecordBatch, column: &str) -> Option<Vec<String>> {
    let values = cast(rows.column_by_name(column)?, &DataType::Utf8View).ok()?;
    let values = values.as_string_view().iter();
    Some(values.map(|value| value.unwrap_or_default().to_owned()).collect())
}

/// Samples of the first mini-batch that are printed.
const SHOWN_SAMPLES: usize = 8;

/// Characters of a printed text.
const TEXT_WIDTH: usize = 90;
