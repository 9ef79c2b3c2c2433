//! `prosampler run`: streams a pipeline's mini-batches, as a trainer would take them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use futures::Stream;

use super::ending::{EXIT_CODES, Ending, UntilEnded};
use super::output::{Output, is_stdout};
use super::progress::{MiniBatchProgress, StageBars, thousands};
use super::state::StateFile;
use super::summary::{Finished, Timing};
use super::watch::Watch;
use super::{json, resume};
use crate::config::PipelineConfig;
use crate::report::Observer;
use crate::{Error, Fault, Faults, MiniBatch, MiniBatchStream, Pipeline, Result};

#[derive(Debug, Args)]
#[command(after_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
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

    /// Writes the mini-batches to this file, one record batch each: as Parquet if the name ends in .parquet, else as an
    /// Arrow IPC stream. It must be none that the run reads. `-` is standard output, for a pipe into another program;
    /// the summary then goes to standard error.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Prints a line of JSON for each mini-batch and one for the whole run, instead of the summary for people.
    #[arg(long)]
    json: bool,

    /// Prints nothing but errors, and what --json and --output - ask for.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,

    /// Goes on from the state in this file if it is there, and keeps it there from then on, with the pipeline's
    /// checkpoint.dir. Ctrl-C or SIGTERM ends a run early; the same command goes on with it.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    #[command(flatten)]
    watch: Watch,
}

impl Run {
    /// `arguments` are those of the whole command, as they were typed.
    pub async fn run(self, arguments: &[OsString]) -> Result<Ending> {
        self.require_one_output()?;
        let config = self.config()?;
        Self::require_no_trainer(&config)?;
        let mut files = Files::open(&self, &config)?;
        let begun = Instant::now();
        let mut stream = self.start(&config, files.state.as_ref()).await?;
        if let Some(output) = &mut files.output {
            output.begin(&stream)?;
        }

        let start = begun.elapsed();
        let streamed = self.consume(&mut stream, &config, &mut files).await?;
        files.finish(&stream).await?;

        let ending = streamed.ending;
        self.report(&config, &stream, start, streamed)?;
        if ending != Ending::Done && !self.quiet {
            let output = self.output.as_deref().filter(|path| path.is_file());
            note!("{}", resume::advice(arguments, self.state.is_some(), config.checkpoint.dir.is_some(), output));
        }
        Ok(ending)
    }

    /// Whether log lines other than errors are unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Refuses a trigger that needs a trainer.
    fn require_no_trainer(config: &PipelineConfig) -> Result<()> {
        if config.refresh.when_easier.is_none() {
            return Ok(());
        }
        let message = "needs vectors that a trainer pushes, and `run` has no trainer; leave it out here, or train \
                       through the library, its Python package or `serve`";
        Err(Error::setting("refresh.when_easier", message))
    }

    /// Refuses two kinds of content on standard output.
    fn require_one_output(&self) -> Result<()> {
        if !self.json || !self.output.as_deref().is_some_and(is_stdout) {
            return Ok(());
        }
        let message = "prints to standard output, where `--output -` writes the mini-batches; give --output a file, or \
                       leave one of the two out";
        Err(Faults::one(Faults::COMMAND_LINE, Fault::new("--json", message)).into())
    }

    /// Starts the pipeline, from the state in the file if there is one.
    async fn start(&self, config: &PipelineConfig, state: Option<&StateFile>) -> Result<MiniBatchStream> {
        let mut builder = Pipeline::from_config(config.clone());
        if !self.quiet {
            let mut bars = StageBars::new();
            builder = builder.on_progress(move |progress| bars.show(progress));
        }
        let Some(file) = state else { return builder.start().await };
        require_checkpoints(config)?;
        if let Some(state) = file.read()? {
            builder = builder.resume(state);
        }
        builder.start().await.map_err(|error| file.named(error))
    }

    /// Takes mini-batches until the stream ends or the user ends it, one training step after each.
    async fn consume(
        &self,
        stream: &mut MiniBatchStream,
        config: &PipelineConfig,
        files: &mut Files,
    ) -> Result<Streamed> {
        let label = config.report.label.as_deref();
        let mut observer = Observer::new(stream.samples(), &config.walk, config.seed, label);
        let mut progress = MiniBatchProgress::new(stream.size_hint().1.map(|total| total as u64), self.quiet);
        let mut first = None;
        let mut waits = Vec::new();
        let mut until_ended = UntilEnded::new();
        let begun = Instant::now();
        loop {
            let asked = Instant::now();
            let Some(mini_batch) = until_ended.next(stream).await? else { break };
            let wait = asked.elapsed();
            waits.push(wait);

            observer.observe(&mini_batch)?;
            files.write(&mini_batch, stream).await?;
            if self.json {
                json::print_mini_batch(&mini_batch, wait)?;
            }
            progress.advance(stream.handle().progress());
            first.get_or_insert(mini_batch);
            if self.step_ms > 0 {
                tokio::time::sleep(self.step()).await;
            }
        }
        progress.finish();
        Ok(Streamed { ending: until_ended.ending, first, waits, elapsed: begun.elapsed(), observer })
    }

    /// The length of a pretended training step.
    fn step(&self) -> Duration {
        Duration::from_millis(self.step_ms)
    }

    /// Prints what the run was like: for programs, for people, or, if it is to be quiet, not at all.
    fn report(
        &self,
        config: &PipelineConfig,
        stream: &MiniBatchStream,
        start: Duration,
        streamed: Streamed,
    ) -> Result<()> {
        let Streamed { ending, first, waits, elapsed, observer } = streamed;
        let pretended = self.step() * u32::try_from(waits.len()).unwrap_or(u32::MAX);
        let timing = Timing { start, waits, streaming: elapsed.saturating_sub(pretended) };
        let summary = || observer.summary(stream.snapshot().as_deref());
        if self.json {
            json::print_summary(ending, stream, &timing, &summary())?;
        }
        if self.quiet {
            return Ok(());
        }
        let Some(first) = &first else {
            let done = thousands(stream.delivered());
            let whole = if ending == Ending::Done { ", the whole run" } else { "" };
            note!("no mini-batch in this run; {done} before it{whole}");
            return Ok(());
        };
        if self.json {
            return Ok(());
        }
        let finished = Finished { config, stream, ending, timing, first, summary: summary() };
        if self.output.as_deref().is_some_and(is_stdout) {
            note!("{finished}");
            return Ok(());
        }
        say!("{finished}")
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
        self.watch.apply(&mut config, self.quiet);
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
        let others: Vec<&Path> = state.iter().map(StateFile::path).chain([run.pipeline.as_path()]).collect();
        let output = run.output.clone().map(|path| Output::open(path, config, &others)).transpose()?;
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

/// What a run has seen of its stream.
struct Streamed {
    ending: Ending,
    first: Option<MiniBatch>,
    /// How long the consumer waited for each mini-batch.
    waits: Vec<Duration>,
    elapsed: Duration,
    observer: Observer,
}

/// Refuses `--state` without checkpoints: a state alone cannot be resumed.
fn require_checkpoints(config: &PipelineConfig) -> Result<()> {
    if config.checkpoint.dir.is_some() {
        return Ok(());
    }
    let message = "is required with --state; name a folder, for example by --set checkpoint.dir=run";
    Err(Error::setting("checkpoint.dir", message))
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler run pipelines/text.toml --set walk.batch_size=64 --output mini-batches.parquet
  prosampler run pipelines/text.toml --state run.json --set checkpoint.dir=checkpoints --json";
