//! ONNX Runtime, and what models can run on.

use std::path::Path;

use super::{Findings, item};
use crate::config::{CudaConfig, EncodeConfig, Provider};
use crate::encode::{cuda, probe_provider, runtime};
use crate::error::ModelError;
use crate::{Error, Result};

/// Says which library is found and which providers work with it.
///
/// All libraries are listed before any is loaded, so that one that kills the process has been named before.
pub(super) fn check(explicit: Option<&Path>, device: u32, is_needed: bool, findings: &mut Findings) -> Result<()> {
    say!("\nONNX Runtime{}", if is_needed { "" } else { " (this pipeline needs none)" })?;
    let (path, found_by) = match runtime::find(explicit) {
        Ok(found) => found,
        Err(error) if is_needed => return findings.failed("library", &error, INSTALL),
        Err(_) => return item("library", "not found"),
    };
    item("library", &path.display().to_string())?;
    item("found by", found_by)?;
    let files = cuda::provider_files(&path);
    if files.is_empty() {
        item("build", "for the processor alone")?;
    } else {
        item("build", "with CUDA")?;
        say!("\nCUDA")?;
        for file in files {
            say!("  {:<38}{}", "the provider's", file.display())?;
        }
        for needed in cuda::libraries(&path) {
            let place = needed.path.map_or_else(|| "left to the system".into(), |p| p.display().to_string());
            say!("  {:<38}{place}", needed.name)?;
        }
    }

    say!("\nproviders")?;
    let mut works = false;
    let mut first = None;
    for provider in [Provider::Cpu, Provider::Cuda, Provider::Tensorrt] {
        match probe(explicit, device, provider) {
            Ok(()) => {
                works = true;
                item(provider.name(), "works")?;
            }
            Err(error) => {
                item(provider.name(), &format!("no: {}", reason(&error)))?;
                first.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first
        && is_needed
        && !works
    {
        findings.add(super::status(&error), INSTALL);
    }
    Ok(())
}

fn probe(explicit: Option<&Path>, device: u32, provider: Provider) -> Result<()> {
    probe_provider(&EncodeConfig {
        runtime: explicit.map(Path::to_owned),
        providers: vec![provider],
        sessions: 1,
        cuda: Some(CudaConfig { devices: vec![device], ..CudaConfig::default() }),
        ..EncodeConfig::default()
    })
}

/// Why a provider does not work, without its name.
fn reason(error: &Error) -> String {
    match error {
        Error::Model(ModelError::NoProvider { failures, .. }) => {
            let reason = failures.join("; ");
            reason.split_once(": ").map_or(reason.clone(), |(_, reason)| reason.to_owned())
        }
        error => error.to_string(),
    }
}

/// What to do without a library that works.
const INSTALL: &str = "install ONNX Runtime 1.24 or later, for example by: pip install onnxruntime";
