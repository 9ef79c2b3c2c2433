//! `prosampler tune`: tries settings of how hard mini-batches are, and writes down the one it recommends.

mod file;
mod frontier;

use std::path::{Path, PathBuf};

use clap::Args;

use self::file::rewritten;
use super::ending::Ending;
use super::page;
use super::progress::{StageBars, thousands};
use crate::config::PipelineConfig;
use crate::tune::{Tried, TuneOptions, Tuning, tune};
use crate::{Error, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tune {
    /// The pipeline file.
    pipeline: PathBuf,

    /// Where to write the pipeline file with the recommended settings; it must not be there. Default: the file's name
    /// with `.tuned` before its ending.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The page to write, with the settings as a picture; it is replaced if it is there. Default: the file's name with
    /// `.tuned.html` in place of its ending; none with --json.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,

    /// The most samples that are embedded.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = samples)]
    samples: usize,

    /// The largest share of pairs that may likely be false negatives.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    max_false: f64,

    /// A better ONNX model of the same data, which judges which pairs are likely false negatives.
    #[arg(long, value_name = "MODEL")]
    guide: Option<PathBuf>,

    /// Prints what was found as JSON, and writes no file unless --out names one.
    #[arg(long)]
    json: bool,

    /// Another setting than the file's, for example walk.batch_size=64. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn samples(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().map_err(|_| "write a whole number, at least 2")?;
    if number < 2 { Err("at least 2 samples make a pair".into()) } else { Ok(number) }
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "write a number from 0 to 1, such as 0.05")?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share lies between 0 and 1".into()) }
}

impl Tune {
    pub async fn run(self) -> Result<Ending> {
        let config = PipelineConfig::from_file_with(&self.pipeline, &self.set)?;
        let out = self.out.clone().or_else(|| (!self.json).then(|| tuned(&self.pipeline)));
        if let Some(out) = out.as_ref().filter(|out| out.exists()) {
            let cause = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there; name another by --out");
            return Err(Error::Io { action: "create", path: out.clone(), cause });
        }
        let options = TuneOptions {
            samples: self.samples,
            max_false: self.max_false,
            guide: self.guide.clone(),
            ..TuneOptions::default()
        };
        let bars = std::sync::Arc::new(std::sync::Mutex::new(StageBars::new()));
        let show = move |progress| bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner).show(progress);
        let tuning = tune(&config, &options, show).await?;
        if self.json {
            let json = serde_json::to_string_pretty(&tuning);
            say!("{}", json.map_err(|e| Error::System { action: "write JSON", cause: Box::new(e) })?)?;
        } else {
            self.print(&tuning)?;
        }
        let page = self.page.clone().or_else(|| (!self.json).then(|| self.pipeline.with_extension("tuned.html")));
        if let Some(path) = page {
            page::write(&path, &frontier::page(&self.pipeline, &tuning, self.max_false))?;
            note!("{} shows the settings that were tried", path.display());
        }
        match (tuning.recommended, out) {
            (Some(0) | None, _) | (_, None) => {}
            (Some(index), Some(out)) => {
                let text = rewritten(&self.pipeline, &tuning, &tuning.tried[index])?;
                std::fs::write(&out, text).map_err(|cause| Error::Io { action: "write", path: out.clone(), cause })?;
                note!("{} has the recommended settings", out.display());
                if out.parent() != self.pipeline.parent() {
                    note!("its paths are relative to its own folder now: change those that were relative");
                }
            }
        }
        Ok(Ending::Done)
    }

    fn print(&self, tuning: &Tuning) -> Result<()> {
        let Tuning { samples, total, estimate, tried, uniform, recommended, rank_correlation, .. } = tuning;
        say!(
            "{} of {} samples; M keeps its share of them, so that mini-batches of all of them are harder\n",
            thousands(*samples as u64),
            thousands(*total as u64)
        )?;
        let label = if uniform.same_label.is_some() { format!("{:>12}", "same label") } else { String::new() };
        say!("{:<48}{:>12}{:>14}{label}", "settings", "similarity", "likely false")?;
        let line = |name: &str, of: &crate::report::Hardness, mark: &str| {
            let label = of.same_label.map(|same| format!("{:>10.1} %", 100.0 * same)).unwrap_or_default();
            let likely = 100.0 * of.likely_false;
            say!("{name:<48}{:>12.3}{likely:>12.2} %{label}{mark}", of.mean_similarity)
        };
        line("a plain shuffle", uniform, "")?;
        let mut by_hardness: Vec<usize> = (0..tried.len()).collect();
        by_hardness.sort_by(|&a, &b| tried[a].hardness.mean_similarity.total_cmp(&tried[b].hardness.mean_similarity));
        for index in by_hardness {
            let of = &tried[index].hardness;
            let mark = verdict(tuning, index, self.max_false);
            let mark = if mark.is_empty() { String::new() } else { format!("  {mark}") };
            line(&describe(&tried[index]), of, &mark)?;
        }
        say!("\na pair is likely false if it is more similar than {estimate}: an estimate, since only labels know")?;
        if let Some(correlation) = rank_correlation {
            say!("over these settings its rank correlation with the pairs of the same label is {correlation:.2}")?;
        }
        let bound = 100.0 * self.max_false;
        let labels = if uniform.same_label.is_some() { ", and not many pairs of one label" } else { "" };
        match recommended {
            Some(0) => {
                say!("\nthe present settings are the hardest with at most {bound} % likely false{labels}: keep them")
            }
            Some(index) => {
                let [new, present] = [*index, 0].map(|index| tried[index].hardness.mean_similarity);
                say!(
                    "\nrecommended: {}\n  the hardest with at most {bound} % likely false{labels}; in-batch similarity {new:.3} \
                     instead of {present:.3}",
                    describe(&tried[*index])
                )
            }
            None => say!(
                "\nnone has at most {bound} % likely false{labels}: train on uniform mini-batches (walk.sampler = \"uniform\"), \
                 keep copies apart ([guards]), or allow more by --max-false"
            ),
        }
    }
}

/// What to think of a setting; nothing of one that is neither recommended nor refused.
fn verdict(tuning: &Tuning, index: usize, max_false: f64) -> &'static str {
    let tried = &tuning.tried[index];
    if tuning.recommended == Some(index) {
        "<- recommended"
    } else if tried.is_eligible {
        ""
    } else if tried.hardness.likely_false > max_false {
        "too many false"
    } else {
        "too many of a label"
    }
}

/// What a setting changes, in a line, with the paper's symbols.
fn describe(tried: &Tried) -> String {
    if tried.changes.is_empty() {
        return "the present settings".to_owned();
    }
    let symbol = |key: &'static str| match key {
        "graph.candidates" => "M",
        "graph.neighbors" => "K",
        "walk.restart_probability" => "α",
        _ => key.rsplit('.').next().unwrap_or(key),
    };
    let short = |(key, value): &(&'static str, String)| format!("{} {}", symbol(key), value.trim_matches('"'));
    tried.changes.iter().map(short).collect::<Vec<_>>().join(", ")
}

/// `pipelines/text.toml` as `pipelines/text.tuned.toml`, beside it since its paths are relative to it.
fn tuned(pipeline: &Path) -> PathBuf {
    let extension = pipeline.extension().map(|extension| extension.to_string_lossy().into_owned());
    pipeline.with_extension(extension.map_or_else(|| "tuned".to_owned(), |extension| format!("tuned.{extension}")))
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler tune pipelines/text.toml --samples 10000
  prosampler tune pipelines/precomputed.toml --max-false 0.01 --json";
