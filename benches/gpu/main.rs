//! What runs on a GPU, and how fast: the measured half of `scripts/gpu-check.sh`, which says how to run it.
//!
//! `gpu check`: our figures, as ours.json; `gpu busy`: a refresh that never ends, for a trainer to be slowed down by;
//! `gpu table`: all figures of the folder as a table, and as gpu-check.json. With `--provider cpu --small`, a
//! rehearsal.

mod busy;
mod encode;
mod graph;
mod placement;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use prosampler::config::{EncodeConfig, Provider};
use prosampler::encode::probe_provider;
use prosampler::encode::runtime::Runtime;
use serde_json::{Map, Value, json};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

type Part = fn(&Check) -> Outcome<Value>;

/// What was asked for.
struct Check {
    provider: Provider,
    /// Where `scripts/gpu_models.py` wrote.
    models: PathBuf,
    out: PathBuf,
    /// Sizes to rehearse with.
    small: bool,
    /// With `busy`: `refresh.gpu_share`.
    share: f64,
    /// With `busy`: how long.
    seconds: f64,
}

impl Check {
    fn new(arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut check = Self {
            provider: Provider::Cuda,
            models: "models".into(),
            out: ".".into(),
            small: false,
            share: 1.0,
            seconds: 10.0,
        };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--provider" if value()? == "cpu" => check.provider = Provider::Cpu,
                "--provider" => {}
                "--models" => check.models = value()?.into(),
                "--out" => check.out = value()?.into(),
                "--share" => check.share = value()?.parse()?,
                "--seconds" => check.seconds = value()?.parse()?,
                "--small" => check.small = true,
                // cargo's own.
                "--bench" => {}
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        Ok(check)
    }

    /// The shapes to measure.
    fn shapes(&self) -> &'static [&'static str] {
        if self.small { &["small"] } else { &["minilm", "bert"] }
    }

    fn run(&self) -> Outcome {
        let runtime = Runtime::load(None)?;
        // Loads what the provider needs, which the parts take for granted, and says what is missing.
        if let Err(error) = probe_provider(&EncodeConfig { providers: vec![self.provider], ..EncodeConfig::default() })
        {
            eprintln!("{error}");
        }
        let mut found = Map::new();
        found.insert("provider".into(), json!(self.provider.name()));
        found.insert("small".into(), json!(self.small));
        found.insert("runtime".into(), json!(runtime.path.display().to_string()));
        found.insert("threads".into(), json!(std::thread::available_parallelism()?.get()));
        let parts: [(&str, Part); 4] = [
            ("placement", placement::run),
            ("agreement", encode::agreement),
            ("encode", encode::speed),
            ("graph", graph::run),
        ];
        for (name, part) in parts {
            let begun = Instant::now();
            let value = part(self).unwrap_or_else(|error| json!({ "error": error.to_string() }));
            eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
            found.insert(name.into(), value);
            // After each, so that a run that is cut short leaves what it has.
            std::fs::write(self.out.join("ours.json"), serde_json::to_string_pretty(&found)?)?;
        }
        Ok(())
    }
}

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    match command.as_str() {
        "check" => Check::new(arguments)?.run(),
        "busy" => busy::run(&Check::new(arguments)?),
        "table" => table::run(&Check::new(arguments)?),
        _ => {
            println!("gpu: run it by scripts/gpu-check.sh");
            Ok(())
        }
    }
}
