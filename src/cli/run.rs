use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use clap::Args;
use futures::{Stream, TryStreamExt};

use super::ending::{Ending, early_end};
use super::output::Output;
use super::progress::{StageBars, mini_batch_bar, thousands};
use super::state::StateFile;
use crate::config::{FeatureKind, PipelineConfig};
use crate::refresh::RefreshCounts;
use crate::report::Observer;
use crate::source::SourceCounts;
use crate::{Error, MiniBatch, Pipeline, Progress, Result, Stage};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The pipeline file.
    pipeline: PathBuf,

    /// Another ONNX model than the file's, also for views without one of their own; the tokenizer.json of a model of
    /// texts is looked for beside it.
    #[arg(long)]
    model: Option<PathBuf>,

    /// The tokenizer that belongs to the model, for texts.
    #[arg(long)]
    tokenizer: Option<PathBuf>,

    /// Another column to embed than the file's: texts, images or vectors.
    #[arg(long)]
    column: Option<String>,

    /// Another setting than the file's, for example graph.neighbors=50. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Pretends that a training step takes this many milliseconds, which gives background refreshes their time.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    step_ms: u64,

    /// Writes the mini-batches to this file as an Arrow IPC stream, one record batch each. It must be none that the run
    /// reads.
    #[arg(long, short)]
    output: Option<PathBuf>,

    /// Goes on from the state in this file if it is there, and keeps it there from then on, with the pipeline's
    /// checkpoint.dir. Ctrl-C or SIGTERM ends a run early; the same command goes on with it.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

impl Run {
    pub async fn run(self) -> Result<Ending> {
        let mut config = PipelineConfig::from_file_with(&self.pipeline, &self.set)?;
        if let Some(model) = self.model {
            // The file's tokenizer belongs to the file's model.
            config.encode.model = Some(model);
            config.encode.tokenizer = None;
        }
        if self.tokenizer.is_some() {
            config.encode.tokenizer = self.tokenizer;
        }
        if self.column.is_some() {
            config.encode.column = self.column;
        }
        let mut state = self.state.map(StateFile::open).transpose()?;
        let mut output = self.output.map(Output::open).transpose()?;
        if let Some(output) = &output {
            let others: Vec<&Path> = state.iter().map(StateFile::path).chain([self.pipeline.as_path()]).collect();
            output.must_be_apart(&config, &others)?;
        }
        let begun = Instant::now();
        let mut bars = StageBars::new();
        let mut builder = Pipeline::from_config(config.clone()).on_progress(move |progress| bars.show(progress));
        if let Some(state) = &state {
            must_keep_checkpoints(&config)?;
            builder = match state.read()? {
                Some(state) => builder.resume(state),
                None => builder,
            };
        }
        let mut stream = builder.start().await.map_err(|error| match &state {
            Some(state) => state.named(error),
            None => error,
        })?;
        if let Some(output) = &mut output {
            output.begin(&stream)?;
        }

        let label = config.report.label.as_deref();
        let mut observer = Observer::new(stream.samples(), &config.walk, config.seed, label);
        let bar = mini_batch_bar(stream.size_hint().1.unwrap_or(usize::MAX) as u64);
        let mut first: Option<MiniBatch> = None;
        let mut waits = Waits::default();
        let mut ending = Ending::Done;
        let mut early = std::pin::pin!(early_end());
        let started = Instant::now();
        loop {
            let asked = Instant::now();
            let next = tokio::select! {
                // First, or a stream that always has something would keep it from being heard.
                biased;
                early = &mut early => {
                    ending = early?;
                    None
                }
                next = stream.try_next() => next?,
            };
            let Some(mini_batch) = next else { break };
            waits.0.push(asked.elapsed());
            observer.observe(&mini_batch)?;
            if let Some(output) = &mut output {
                output.write(&mini_batch)?;
            }
            if let Some(state) = &mut state {
                state.follow(&stream).await?;
            }
            bar.inc(1);
            bar.set_message(stream.handle().progress().map(under_way).unwrap_or_default());
            first.get_or_insert(mini_batch);
            if self.step_ms > 0 {
                tokio::time::sleep(Duration::from_millis(self.step_ms)).await;
            }
        }
        bar.finish_and_clear();
        let elapsed = started.elapsed();
        if let Some(output) = output {
            output.finish()?;
        }
        if let Some(state) = &mut state {
            state.save(&stream).await?;
        }
        let Some(first) = first else {
            let done = thousands(stream.delivered());
            let whole = if ending == Ending::Done { ", the whole run" } else { "" };
            note!("no mini-batch in this run; {done} before it{whole}");
            return Ok(ending);
        };
        let summary = observer.summary(&stream.snapshot());
        say!(
            "\n{}{} mini-batches of {} out of {} samples",
            if ending == Ending::Done { "" } else { "interrupted after " },
            thousands(stream.counts().delivered),
            config.walk.batch_size,
            thousands(stream.samples() as u64),
        )?;
        say!("{:<34}{:>10.1} s", "time to the first mini-batch", (started - begun + waits.first()).as_secs_f64())?;
        say!(
            "{:<34}{:>10.2} ms, at most {:.2} ms",
            "wait for each of the others",
            ms(waits.median()),
            ms(waits.most())
        )?;
        let pretended = Duration::from_millis(self.step_ms * stream.counts().delivered);
        let streaming = elapsed.saturating_sub(pretended).as_secs_f64().max(1e-9);
        let rate = (summary.samples as f64 / streaming) as u64;
        say!("{:<34}{:>10} rows/s", "streamed, training steps aside", thousands(rate))?;
        let refreshes = stream.handle().counts();
        if refreshes != RefreshCounts::default() {
            say!(
                "{:<34}{:>10} published, {} skipped, {} failed, {} cancelled",
                "refreshes",
                refreshes.published,
                refreshes.skipped,
                refreshes.failed,
                refreshes.cancelled,
            )?;
        }
        let source = stream.handle().source_counts();
        if source != SourceCounts::default() {
            say!(
                "{:<34}{:>10} rows skipped, {} texts that are no UTF-8, {} requests sent again",
                "source",
                thousands(source.skipped_rows as u64),
                thousands(source.bad_texts as u64),
                thousands(source.faults as u64),
            )?;
        }
        let reused = stream.handle().embeddings_reused();
        if reused > 0 {
            say!("{:<34}{:>10} samples from the cache", "embeddings", thousands(reused))?;
        }
        let unsaved = stream.counts().unsaved;
        if unsaved > 0 {
            say!("{:<34}{:>10} graphs from which no run can be resumed", "checkpoints", thousands(unsaved))?;
        }
        say!()?;
        let column = config.encode.column.as_deref().filter(|_| config.encode.kind() == FeatureKind::Text);
        show(&first, column, label)?;
        say!("{summary}")?;
        Ok(ending)
    }
}

/// A state alone is of no use.
fn must_keep_checkpoints(config: &PipelineConfig) -> Result<()> {
    if config.checkpoint.dir.is_some() {
        return Ok(());
    }
    let message = "is required with --state; name a folder, for example by --set checkpoint.dir=run";
    Err(Error::setting("checkpoint.dir", message))
}

/// What a background refresh is at.
fn under_way(progress: Progress) -> String {
    let Progress { stage, done, total } = progress;
    match (stage, total) {
        (Stage::Encode, Some(total)) => format!("refresh: embedding {} %", 100 * done / total.max(1)),
        (Stage::Encode, None) => "refresh: embedding".to_owned(),
        (Stage::Store, _) => "refresh: looking".to_owned(),
        (Stage::Graph, _) => "refresh: graph".to_owned(),
    }
}

/// How long the consumer waited for each mini-batch.
#[derive(Default)]
struct Waits(Vec<Duration>);

impl Waits {
    fn first(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    fn others(&self) -> Vec<Duration> {
        let mut others = self.0.get(1..).unwrap_or_default().to_vec();
        others.sort_unstable();
        others
    }

    fn median(&self) -> Duration {
        let others = self.others();
        others.get(others.len() / 2).copied().unwrap_or_default()
    }

    fn most(&self) -> Duration {
        self.others().last().copied().unwrap_or_default()
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Prints the beginning of a mini-batch.
fn show(mini_batch: &MiniBatch, column: Option<&str>, label: Option<&str>) -> Result<()> {
    let rows = mini_batch.rows.slice(0, SHOWN.min(mini_batch.rows.num_rows()));
    let values = |column: Option<&str>| column.and_then(|column| texts(&rows, column));
    let (labels, Some(texts)) = (values(label), values(column)) else { return Ok(()) };
    say!("the first mini-batch, {SHOWN} of its samples:")?;
    for (i, text) in texts.iter().enumerate() {
        let label = labels.as_ref().map(|l| format!("{:<20}", l[i])).unwrap_or_default();
        let cut: String = text.chars().take(WIDTH).collect();
        say!("  {label}{cut}{}", if cut.len() < text.len() { "…" } else { "" })?;
    }
    say!()
}

/// A column's values as text, where it is there and has a text form.
fn texts(rows: &RecordBatch, column: &str) -> Option<Vec<String>> {
    let values = cast(rows.column_by_name(column)?, &DataType::Utf8View).ok()?;
    let values = values.as_string_view();
    Some((0..values.len()).map(|i| if values.is_null(i) { String::new() } else { values.value(i).into() }).collect())
}

const SHOWN: usize = 8;
const WIDTH: usize = 90;
