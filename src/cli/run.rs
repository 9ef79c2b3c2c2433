use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::ipc::writer::StreamWriter;
use clap::Args;
use futures::{Stream, TryStreamExt};

use super::progress::{StageBars, mini_batch_bar, thousands};
use super::state::StateFile;
use crate::config::{Fault, Faults, FeatureKind, PipelineConfig};
use crate::refresh::RefreshCounts;
use crate::report::Observer;
use crate::source::{SourceCounts, positions};
use crate::{Error, MiniBatch, MiniBatchStream, Pipeline, Progress, Result, Stage};

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

    /// Writes the mini-batches to this file as an Arrow IPC stream, one record batch each.
    #[arg(long, short)]
    output: Option<PathBuf>,

    /// Goes on from the state in this file if it is there, and keeps it there from then on, with the pipeline's
    /// checkpoint.dir. Ctrl-C ends a run early; the same command goes on with it.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

impl Run {
    pub async fn run(self) -> Result<()> {
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
        let begun = Instant::now();
        let mut bars = StageBars::new();
        let mut builder = Pipeline::from_config(config.clone()).on_progress(move |progress| bars.show(progress));
        let mut state = self.state.map(StateFile::new);
        if let Some(state) = &state {
            must_keep_checkpoints(&config)?;
            builder = match state.read()? {
                Some(state) => builder.resume(state),
                None => builder,
            };
        }
        let mut stream = builder.start().await?;
        let mut output = self.output.map(|path| Output::create(path, &stream)).transpose()?;

        let label = config.report.label.as_deref();
        let mut observer = Observer::new(stream.samples(), &config.walk, config.seed, label);
        let bar = mini_batch_bar(stream.size_hint().1.unwrap_or(usize::MAX) as u64);
        let mut first: Option<MiniBatch> = None;
        let mut waits = Waits::default();
        let mut interrupted = false;
        let mut ctrl_c = std::pin::pin!(tokio::signal::ctrl_c());
        let started = Instant::now();
        loop {
            let asked = Instant::now();
            let next = tokio::select! {
                // First, or a stream that always has something would keep it from being heard.
                biased;
                interrupt = &mut ctrl_c => {
                    interrupt.map_err(|cause| Error::TaskDied { task: "Ctrl-C", message: cause.to_string() })?;
                    interrupted = true;
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
            eprintln!(
                "no mini-batch in this run; {done} before it{}",
                if interrupted { "" } else { ", the whole run" }
            );
            return Ok(());
        };
        let summary = observer.summary(&stream.snapshot());
        println!(
            "\n{}{} mini-batches of {} out of {} samples",
            if interrupted { "interrupted after " } else { "" },
            thousands(stream.counts().delivered),
            config.walk.batch_size,
            thousands(stream.samples() as u64),
        );
        println!("{:<34}{:>10.1} s", "time to the first mini-batch", (started - begun + waits.first()).as_secs_f64());
        println!(
            "{:<34}{:>10.2} ms, at most {:.2} ms",
            "wait for each of the others",
            ms(waits.median()),
            ms(waits.most())
        );
        let pretended = Duration::from_millis(self.step_ms * stream.counts().delivered);
        let streaming = elapsed.saturating_sub(pretended).as_secs_f64().max(1e-9);
        let rate = (summary.samples as f64 / streaming) as u64;
        println!("{:<34}{:>10} rows/s", "streamed, training steps aside", thousands(rate));
        let refreshes = stream.handle().counts();
        if refreshes != RefreshCounts::default() {
            println!(
                "{:<34}{:>10} published, {} skipped, {} failed, {} given up",
                "refreshes", refreshes.published, refreshes.skipped, refreshes.failed, refreshes.cancelled,
            );
        }
        let source = stream.handle().source_counts();
        if source != SourceCounts::default() {
            println!(
                "{:<34}{:>10} rows skipped, {} texts that are no UTF-8, {} requests sent again",
                "source",
                thousands(source.skipped_rows as u64),
                thousands(source.bad_texts as u64),
                thousands(source.faults as u64),
            );
        }
        let unsaved = stream.counts().unsaved;
        if unsaved > 0 {
            println!("{:<34}{:>10} graphs from which no run can be resumed", "checkpoints", thousands(unsaved));
        }
        println!();
        let column = config.encode.column.as_deref().filter(|_| config.encode.kind() == FeatureKind::Text);
        show(&first, column, label);
        println!("{summary}");
        Ok(())
    }
}

/// A state alone is of no use.
fn must_keep_checkpoints(config: &PipelineConfig) -> Result<()> {
    if config.checkpoint.dir.is_some() {
        return Ok(());
    }
    let message = "is required with --state; name a folder, for example by --set checkpoint.dir=run";
    let fault = Fault { key: "checkpoint.dir".into(), line: None, message: message.into() };
    Err(Faults { origin: "the settings".into(), faults: vec![fault] }.into())
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
fn show(mini_batch: &MiniBatch, column: Option<&str>, label: Option<&str>) {
    let rows = mini_batch.rows.slice(0, SHOWN.min(mini_batch.rows.num_rows()));
    let values = |column: Option<&str>| column.and_then(|column| texts(&rows, column));
    let (labels, Some(texts)) = (values(label), values(column)) else { return };
    println!("the first mini-batch, {SHOWN} of its samples:");
    for (i, text) in texts.iter().enumerate() {
        let label = labels.as_ref().map(|l| format!("{:<20}", l[i])).unwrap_or_default();
        let cut: String = text.chars().take(WIDTH).collect();
        println!("  {label}{cut}{}", if cut.len() < text.len() { "…" } else { "" });
    }
    println!();
}

/// A column's values as text, where it is there and has a text form.
fn texts(rows: &RecordBatch, column: &str) -> Option<Vec<String>> {
    let values = cast(rows.column_by_name(column)?, &DataType::Utf8View).ok()?;
    let values = values.as_string_view();
    Some((0..values.len()).map(|i| if values.is_null(i) { String::new() } else { values.value(i).into() }).collect())
}

/// An Arrow IPC stream of mini-batches.
struct Output {
    path: PathBuf,
    writer: StreamWriter<BufWriter<File>>,
}

impl Output {
    fn create(path: PathBuf, stream: &MiniBatchStream) -> Result<Self> {
        let file = File::create(&path).map_err(|cause| Error::Io { action: "create", path: path.clone(), cause })?;
        let schema = MiniBatch::schema(&stream.schema());
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
        positions("the file of mini-batches", &schema, &names)?;
        let writer = StreamWriter::try_new_buffered(file, &schema).map_err(|e| failed(&path, e))?;
        Ok(Self { path, writer })
    }

    fn write(&mut self, mini_batch: &MiniBatch) -> Result<()> {
        self.writer.write(&mini_batch.to_record_batch()?).map_err(|e| failed(&self.path, e))
    }

    fn finish(mut self) -> Result<()> {
        self.writer.finish().and_then(|()| self.writer.flush()).map_err(|e| failed(&self.path, e))
    }
}

fn failed(path: &Path, error: arrow::error::ArrowError) -> Error {
    Error::Io { action: "write", path: path.to_owned(), cause: std::io::Error::other(error) }
}

const SHOWN: usize = 8;
const WIDTH: usize = 90;
