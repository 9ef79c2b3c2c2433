//! `prosampler doctor`: says which ONNX Runtime and execution providers can be used.

use std::path::PathBuf;

use clap::Args;

use super::ending::Ending;
use crate::config::{CudaConfig, EncodeConfig, Provider};
use crate::encode::{cuda, probe_provider, runtime};
use crate::error::ModelError;
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
    /// Lists all libraries before it loads any, so that one that kills the process has been named before.
    pub fn run(self) -> Result<Ending> {
        say!(
            "prosampler {}, {} threads",
            env!("CARGO_PKG_VERSION"),
            std::thread::available_parallelism().map_or(1, usize::from)
        )?;
        let (path, found_by) = runtime::find(self.runtime.as_deref())?;
        say!("\nONNX Runtime\n  {:<12}{}\n  {:<12}{found_by}", "library", path.display(), "found by")?;
        let files = cuda::provider_files(&path);
        match &files[..] {
            [] => say!("  {:<12}for the processor alone", "build")?,
            files => {
                say!("  {:<12}with CUDA", "build")?;
                say!("\nCUDA")?;
                for file in files {
                    say!("  {:<38}{}", "the provider's", file.display())?;
                }
                for needed in cuda::libraries(&path) {
                    let place = needed.path.map_or_else(|| "left to the system".into(), |p| p.display().to_string());
                    say!("  {:<38}{place}", needed.name)?;
                }
            }
        }
        say!("\nproviders")?;
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
                    say!("  {:<12}works", provider.name())?;
                }
                Err(Error::Model(ModelError::NoProvider { failures, .. })) => {
                    let reason = failures.join("; ");
                    say!("  {:<12}no: {}", provider.name(), reason.split_once(": ").map_or(&*reason, |(_, r)| r))?;
                }
                Err(error) => say!("  {:<12}no: {error}", provider.name())?,
            }
        }
        if works {
            Ok(Ending::Done)
        } else {
            Err(ModelError::NoProvider { path, failures: vec!["no provider works".into()] }.into())
        }
    }
}
