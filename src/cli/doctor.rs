use std::path::PathBuf;

use clap::Args;

use crate::config::{CudaConfig, EncodeConfig, Provider};
use crate::encode::{cuda, probe_provider, runtime};
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// ONNX Runtime's library, instead of the one that is found.
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,

    /// The number of a GPU to try.
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: u32,
}

impl Doctor {
    /// Looks at everything before it loads anything: a library that kills the process has then been named.
    pub fn run(self) -> Result<()> {
        println!(
            "prosampler {}, {} threads",
            env!("CARGO_PKG_VERSION"),
            std::thread::available_parallelism().map_or(1, usize::from)
        );
        let (path, found_by) = runtime::find(self.runtime.as_deref())?;
        println!("\nONNX Runtime\n  {:<12}{}\n  {:<12}{found_by}", "library", path.display(), "found by");
        let files = cuda::provider_files(&path);
        match &files[..] {
            [] => println!("  {:<12}for the processor alone", "build"),
            files => {
                println!("  {:<12}with CUDA", "build");
                println!("\nCUDA");
                for file in files {
                    println!("  {:<38}{}", "the provider's", file.display());
                }
                for needed in cuda::libraries(&path) {
                    let place = needed.path.map_or_else(|| "left to the system".into(), |p| p.display().to_string());
                    println!("  {:<38}{place}", needed.name);
                }
            }
        }
        println!("\nproviders");
        let mut works = false;
        for provider in [Provider::Cpu, Provider::Cuda, Provider::Tensorrt] {
            let config = EncodeConfig {
                runtime: self.runtime.clone(),
                providers: vec![provider],
                sessions: 1,
                cuda: Some(CudaConfig { devices: vec![self.device], ..CudaConfig::default() }),
                ..EncodeConfig::default()
            };
            match probe_provider(&config) {
                Ok(()) => {
                    works = true;
                    println!("  {:<12}works", provider.name());
                }
                Err(Error::NoProvider { failures, .. }) => {
                    let reason = failures.join("; ");
                    println!("  {:<12}no: {}", provider.name(), reason.split_once(": ").map_or(&*reason, |(_, r)| r));
                }
                Err(error) => println!("  {:<12}no: {error}", provider.name()),
            }
        }
        if works { Ok(()) } else { Err(Error::NoProvider { path, failures: vec!["no provider works".into()] }) }
    }
}
