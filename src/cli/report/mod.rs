//! `prosampler report`: runs a pipeline and draws what its mini-batches are like, as one page.

mod content;
mod page;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use futures::Stream;
use serde::Serialize;

use super::ending::{EXIT_CODES, Ending, UntilEnded};
use super::progress::{MiniBatchProgress, StageBars};
use crate::config::{CheckpointConfig, PipelineConfig};
use crate::report::{Report as Facts, Seen};
use crate::{ComputePool, Error, MiniBatchStream, Pipeline, Progress, Result, Stage};

#[derive(Debug, Args)]
#[command(after_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(super) struct Report {
    /// The pipeline file.
    pipeline: PathBuf,

    /// The page to write; it is replaced if it is there. Default: report.html in the current folder; none with --json.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Prints the numbers of the page as JSON.
    #[arg(long)]
    json: bool,

    /// Looks at so many mini-batches, or at as many as the run has.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    mini_batches: usize,

    /// Another setting than the file's, for example graph.candidates=5000. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The settings of a run, as they are shown.
pub(super) struct Settings {
    /// The pipeline file's name.
    name: String,
    /// Its text.
    file: String,
    /// Those of the command line.
    overrides: Vec<String>,
}

/// How a run went.
#[derive(Debug, Default, Serialize)]
pub(super) struct Course {
    /// The stages of the start.
    stages: Vec<StageTime>,
    /// From the first mini-batch asked for to the last one.
    streaming_seconds: f64,
    samples_per_second: f64,
    wait_ms_median: f64,
    wait_ms_max: f64,
    /// Bytes, where the system tells.
    peak_memory: Option<u64>,
}

#[derive(Debug, Serialize)]
struct StageTime {
    name: &'static str,
    seconds: f64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    facts: &'a Facts,
    course: &'a Course,
}

impl Report {
    pub async fn run(self) -> Result<Ending> {
        let out = self.out.clone().or_else(|| (!self.json).then(|| "report.html".into()));
        let config = self.config()?;
        let settings = self.settings()?;
        let stages = std::sync::Arc::new(std::sync::Mutex::new(StageTimes::default()));
        let (mut bars, times) = (StageBars::new(), stages.clone());
        let builder = Pipeline::from_config(config.clone()).on_progress(move |progress| {
            times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).show(progress);
            bars.show(progress);
        });
        let mut stream = builder.start().await?;
        let (seen, mut course, ending) = self.consume(&mut stream).await?;
        course.stages = std::mem::take(&mut stages.lock().unwrap_or_else(std::sync::PoisonError::into_inner).times);
        drop(stream);

        let pool = ComputePool::new(config.compute.threads)?;
        let for_facts = config.clone();
        let facts = pool.run("report", move || Facts::new(&for_facts, &seen)).await?;
        course.peak_memory = peak_memory();
        if let Some(out) = &out {
            crate::cli::page::write(out, &page::page(&facts, &course, &settings, &config))?;
            note!("{} tells what the mini-batches are like", out.display());
        }
        if self.json {
            let json = serde_json::to_string_pretty(&Json { facts: &facts, course: &course });
            say!("{}", json.map_err(|e| Error::System { action: "write JSON", cause: Box::new(e) })?)?;
        }
        Ok(ending)
    }

    /// The settings of the run: without a warm-up, as one process, and apart from the checkpoints of other runs.
    fn config(&self) -> Result<PipelineConfig> {
        let mut config = PipelineConfig::from_file_with(&self.pipeline, &self.set)?;
        config.walk.warm_up = None;
        config.stream.rank = 0;
        config.stream.world_size = 1;
        config.checkpoint = CheckpointConfig::default();
        Ok(config)
    }

    fn settings(&self) -> Result<Settings> {
        let failed = |cause| Error::Io { action: "read", path: self.pipeline.clone(), cause };
        let name = self.pipeline.file_name().unwrap_or(self.pipeline.as_os_str());
        Ok(Settings {
            name: name.to_string_lossy().into_owned(),
            file: std::fs::read_to_string(&self.pipeline).map_err(failed)?,
            overrides: self.set.clone(),
        })
    }

    /// Takes mini-batches until there are enough, the stream ends, or the user ends it.
    async fn consume(&self, stream: &mut MiniBatchStream) -> Result<(Seen, Course, Ending)> {
        let wanted = stream.size_hint().1.unwrap_or(usize::MAX).min(self.mini_batches);
        let mut progress = MiniBatchProgress::new(Some(wanted as u64), false);
        let mut seen = Seen::default();
        let mut waits: Vec<Duration> = Vec::new();
        let mut samples = 0;
        let mut until_ended = UntilEnded::new();
        let begun = Instant::now();
        while waits.len() < self.mini_batches {
            let asked = Instant::now();
            let Some(mini_batch) = until_ended.next(stream).await? else { break };
            waits.push(asked.elapsed());
            samples += mini_batch.ids.len();
            seen.add(&mini_batch, stream.snapshot());
            progress.advance(stream.handle().progress());
        }
        progress.finish();
        let streaming_seconds = begun.elapsed().as_secs_f64();
        waits.sort_unstable();
        let ms = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
        let course = Course {
            streaming_seconds,
            samples_per_second: samples as f64 / streaming_seconds.max(f64::MIN_POSITIVE),
            wait_ms_median: ms(waits.get(waits.len() / 2)),
            wait_ms_max: ms(waits.last()),
            ..Course::default()
        };
        Ok((seen, course, until_ended.ending))
    }
}

/// How long each stage of the start took.
#[derive(Default)]
struct StageTimes {
    running: Option<(Stage, Instant)>,
    times: Vec<StageTime>,
}

impl StageTimes {
    fn show(&mut self, progress: Progress) {
        let stage = progress.stage;
        let begun = match self.running {
            Some((running, begun)) if running == stage => begun,
            _ => {
                let now = Instant::now();
                self.running = Some((stage, now));
                self.times.push(StageTime { name: stage.name(), seconds: 0.0 });
                now
            }
        };
        if let Some(time) = self.times.last_mut() {
            time.seconds = begun.elapsed().as_secs_f64();
        }
    }
}

/// The most memory that the process has had, in bytes; `None` where the system does not tell.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler report pipelines/molecules.toml --out molecules.html
  prosampler report pipelines/text.toml --mini-batches 200 --json";
