//! `prosampler run`: streams a pipeline's mini-batches, as a trainer would take them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use futures::{Stream, TryStreamExt};

use super::ending::{Ending, early_end};
use super::output::Output;
use super::progress::{StageBars, mini_batch_bar, thousands};
use super::state::StateFile;
use super::summary::{Finished, Timing};
use crate::config::PipelineConfig;
use crate::report::Observer;
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
        let config = self.config()?;
        let mut files = Files::open(&self, &config)?;
        let begun = Instant::now();
        let mut stream = start(&config, files.state.as_ref()).await?;
        if let Some(output) = &mut files.output {
            output.begin(&stream)?;
        }

        let start = begun.elapsed();
        let step = Duration::from_millis(self.step_ms);
        let streamed = consume(&mut stream, &config, &mut files, step).await?;
        files.finish(&stream).await?;

        let Some(first) = &streamed.first else {
            let done = thousands(stream.delivered());
            let whole = if streamed.ending == Ending::Done { ", the whole run" } else { "" };
            note!("no mini-batch in this run; {done} before it{whole}");
            return Ok(streamed.ending);
        };
        let pretended = Duration::from_millis(self.step_ms * stream.counts().delivered);
        let streaming = streamed.elapsed.saturating_sub(pretended);
        let finished = Finished {
            config: &config,
            stream: &stream,
            ending: streamed.ending,
            timing: Timing { start, waits: streamed.waits, streaming },
            first,
            summary: streamed.observer.summary(stream.snapshot().as_deref()),
        };
        finished.print()?;
        Ok(streamed.ending)
    }

    /// The settings of the pipeline file, with those of the command line in their place.
    fn config(&self) -> Result<PipelineConfig> {
        let mut config = PipelineConfig::from_file_with(&self.pipeline, &self.set)?;
        if let Some(model) = &self.model {
            // The file's tokenizer belongs to the file's model.
            config.encode.model = Some(model.clone());
            config.encode.tokenizer = None;
        }
        if let Some(tokenizer) = &self.tokenizer {
            config.encode.tokenizer = Some(tokenizer.clone());
        }
        if let Some(column) = &self.column {
            config.encode.column = Some(column.clone());
        }
        Ok(config)
    }
}

/// The files that a run writes.
struct Files {
    state: Option<StateFile>,
    output: Option<Output>,
}

impl Files {
    /// Opens them, and refuses an output that the run reads.
    fn open(run: &Run, config: &PipelineConfig) -> Result<Self> {
        let state = run.state.clone().map(StateFile::open).transpose()?;
        let output = run.output.clone().map(Output::open).transpose()?;
        if let Some(output) = &output {
            let others: Vec<&Path> = state.iter().map(StateFile::path).chain([run.pipeline.as_path()]).collect();
            output.must_be_apart(config, &others)?;
        }
        Ok(Self { state, output })
    }

    async fn write(&mut self, mini_batch: &MiniBatch, stream: &MiniBatchStream) -> Result<()> {
        if let Some(output) = &mut self.output {
            output.write(mini_batch)?;
        }
        if let Some(state) = &mut self.state {
            state.follow(stream).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, stream: &MiniBatchStream) -> Result<()> {
        if let Some(output) = self.output.take() {
            output.finish()?;
        }
        if let Some(state) = &mut self.state {
            state.save(stream).await?;
        }
        Ok(())
    }
}

/// Starts the pipeline, from the state in the file if there is one.
async fn start(config: &PipelineConfig, state: Option<&StateFile>) -> Result<MiniBatchStream> {
    let mut bars = StageBars::new();
    let mut builder = Pipeline::from_config(config.clone()).on_progress(move |progress| bars.show(progress));
    let Some(file) = state else { return builder.start().await };
    require_checkpoints(config)?;
    if let Some(state) = file.read()? {
        builder = builder.resume(state);
    }
    builder.start().await.map_err(|error| file.named(error))
}

/// What a run has seen of its stream.
struct Streamed {
    ending: Ending,
    first: Option<MiniBatch>,
    /// How long the consumer waited for each mini-batch.
    waits: Vec<Duration>,
    elapsed: Duration,
    observer: Observer,
}

/// Takes mini-batches until the stream ends or the user ends it, one training step of length `step` after each.
async fn consume(
    stream: &mut MiniBatchStream,
    config: &PipelineConfig,
    files: &mut Files,
    step: Duration,
) -> Result<Streamed> {
    let label = config.report.label.as_deref();
    let mut observer = Observer::new(stream.samples(), &config.walk, config.seed, label);
    let bar = mini_batch_bar(stream.size_hint().1.unwrap_or(usize::MAX) as u64);
    let mut first = None;
    let mut waits = Vec::new();
    let mut ending = Ending::Done;
    let mut early = std::pin::pin!(early_end());
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let next = tokio::select! {
            // Polled first, since a stream that always has a mini-batch ready would keep it from being heard.
            biased;
            early = &mut early => {
                ending = early?;
                None
            }
            next = stream.try_next() => next?,
        };
        let Some(mini_batch) = next else { break };
        waits.push(asked.elapsed());

        observer.observe(&mini_batch)?;
        files.write(&mini_batch, stream).await?;
        bar.inc(1);
        bar.set_message(stream.handle().progress().map(refresh_message).unwrap_or_default());
        first.get_or_insert(mini_batch);
        if !step.is_zero() {
            tokio::time::sleep(step).await;
        }
    }
    bar.finish_and_clear();
    Ok(Streamed { ending, first, waits, elapsed: begun.elapsed(), observer })
}

/// Refuses `--state` without checkpoints: a state alone cannot be resumed.
fn require_checkpoints(config: &PipelineConfig) -> Result<()> {
    if config.checkpoint.dir.is_some() {
        return Ok(());
    }
    let message = "is required with --state; name a folder, for example by --set checkpoint.dir=run";
    Err(Error::setting("checkpoint.dir", message))
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
