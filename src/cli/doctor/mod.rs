//! `prosampler doctor`: says what the machine has, what works on it, and whether a pipeline file can be run.

mod machine;
mod pipeline;
mod runtime;

use std::path::PathBuf;

use clap::Args;

use super::ending::{Ending, status};
use crate::config::{EncodeConfig, FeatureKind, PipelineConfig};
use crate::{Error, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    /// A pipeline file to check: its settings, its source and columns, its model and tokenizer, its cache folder, and
    /// the memory it takes.
    pipeline: Option<PathBuf>,

    /// Another setting than the file's, for example encode.storage=f16. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "pipeline")]
    set: Vec<String>,

    /// ONNX Runtime's library, instead of the one that is found.
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,

    /// The number of a GPU to try.
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: u32,
}

impl Doctor {
    /// Goes on after whatever is amiss. The last line is `ready`, or what to do.
    pub async fn run(self) -> Result<Ending> {
        let mut findings = Findings::default();
        say!("prosampler {}", env!("CARGO_PKG_VERSION"))?;
        machine::print()?;

        let config = self.pipeline.as_ref().map(|file| (file, self.config(file)));
        let settings = config.as_ref().and_then(|(_, config)| config.as_ref().ok());
        let runtime = self.runtime.clone().or(settings.and_then(|config| config.encode.runtime.clone()));
        let is_needed = settings.is_none_or(|config| runs_models(&config.encode));
        runtime::check(runtime.as_deref(), self.device, is_needed, &mut findings)?;

        if let Some((file, config)) = config {
            say!("\npipeline {}", file.display())?;
            match config {
                Ok(config) => pipeline::check(config, &mut findings).await?,
                Err(error) => {
                    let remedy = match &error {
                        Error::Config(_) => format!("correct the faults of {}", file.display()),
                        _ => "name a pipeline file that can be read".to_owned(),
                    };
                    findings.failed("settings", &error, &remedy)?;
                }
            }
        }
        say!("\n{}", findings.last_line())?;
        Ok(findings.ending())
    }

    fn config(&self, file: &PathBuf) -> Result<PipelineConfig> {
        let mut config = PipelineConfig::from_file_with(file, &self.set)?;
        if self.runtime.is_some() {
            config.encode.runtime.clone_from(&self.runtime);
        }
        Ok(config)
    }
}

/// Whether these settings need ONNX Runtime: not if all vectors are in the data.
fn runs_models(encode: &EncodeConfig) -> bool {
    if encode.views.is_empty() {
        return encode.kind() != FeatureKind::Vector;
    }
    encode.views.iter().any(|view| view.over(encode).kind() != FeatureKind::Vector)
}

/// What stands in the way of a run.
#[derive(Default)]
struct Findings {
    remedies: Vec<String>,
    /// The exit status of the first one.
    status: Option<u8>,
}

impl Findings {
    /// Prints an error in the line of what failed, and keeps what to do about it.
    fn failed(&mut self, name: &str, error: &Error, remedy: &str) -> Result<()> {
        self.add(status(error), remedy);
        item(name, &error.to_string())
    }

    fn add(&mut self, status: u8, remedy: &str) {
        self.status.get_or_insert(status);
        if !self.remedies.iter().any(|other| other == remedy) {
            self.remedies.push(remedy.to_owned());
        }
    }

    fn last_line(&self) -> String {
        if self.remedies.is_empty() { "ready".to_owned() } else { format!("to do: {}", self.remedies.join("; ")) }
    }

    fn ending(&self) -> Ending {
        self.status.map_or(Ending::Done, Ending::Failed)
    }
}

/// Prints what is known about one thing; further lines are below the first.
fn item(name: &str, text: &str) -> Result<()> {
    let mut lines = text.lines();
    say!("  {name:<12}{}", lines.next().unwrap_or_default())?;
    lines.try_for_each(|line| say!("  {:<12}{line}", ""))
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler doctor
  prosampler doctor pipelines/text.toml";
