//! Opens a model's sessions on the first execution provider that works.

use std::path::Path;

use ort::ep::cuda::AttentionBackend;
use ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use rayon::prelude::*;

use super::cuda;
use super::runtime::Runtime;
use crate::config::{Arena, Convolutions, CudaConfig, EncodeConfig, Provider};
use crate::error::{Cause, Error, ModelError, Result};
use crate::telemetry;

/// Opens the sessions of a model, each with the number of its GPU, and returns the provider that they run on.
///
/// # Errors
/// [`ModelError::NoProvider`] with a reason for each provider; [`ModelError::Unusable`] if the model cannot be opened
/// on the CPU.
pub(super) fn open_sessions(path: &Path, config: &EncodeConfig) -> Result<(Vec<(Session, u32)>, Provider)> {
    let runtime = Runtime::load(config.runtime.as_deref())?;
    let cuda = config.cuda.clone().unwrap_or_default();
    let mut failures: Vec<(Provider, String)> = Vec::new();
    for &provider in &config.providers {
        if let Some((failed, reason)) = failures.last() {
            telemetry::provider_failed(failed.name(), reason, provider.name());
        }
        match open_all(&runtime, path, provider, &cuda, config.sessions) {
            Ok(sessions) => return Ok((sessions, provider)),
            // The fault is the model's, and no other provider would help.
            Err(error) if provider == Provider::Cpu => return Err(error),
            Err(error) => {
                let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                failures.push((provider, cuda::in_plain_words(&reason, &runtime)));
            }
        }
    }
    let failures = failures.into_iter().map(|(provider, reason)| format!("{}: {reason}", provider.name())).collect();
    Err(ModelError::NoProvider { path: path.to_owned(), failures }.into())
}

/// Opens a tiny model with the first of `config.providers` that works, and runs it.
///
/// # Errors
/// [`ModelError::NoProvider`] with the reasons; the errors of loading ONNX Runtime.
pub fn probe_provider(config: &EncodeConfig) -> Result<()> {
    let failed = |cause: std::io::Error| Error::Io { action: "write a model in", path: std::env::temp_dir(), cause };
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    std::io::Write::write_all(&mut file, include_bytes!("probe.onnx")).map_err(failed)?;
    let (mut sessions, provider) = open_sessions(file.path(), config)?;
    let mut run = || {
        let x = ort::value::Tensor::from_array(([1usize, 4], vec![1f32, 2.0, 3.0, 4.0]))?;
        let outputs = sessions[0].0.run(vec![("x", x)])?;
        Ok(outputs["y"].try_extract_tensor::<f32>()?.1 == [80.0, 90.0, 100.0, 110.0])
    };
    let reason = match run() {
        Ok(true) => return Ok(()),
        Ok(false) => "it gives wrong results".to_owned(),
        Err(e) => ort::Error::message(&e).to_owned(),
    };
    Err(ModelError::NoProvider {
        path: file.path().to_owned(),
        failures: vec![format!("{}: {reason}", provider.name())],
    }
    .into())
}

/// Opens the sessions of a model on one provider.
fn open_all(
    runtime: &Runtime,
    path: &Path,
    provider: Provider,
    cuda: &CudaConfig,
    sessions: usize,
) -> Result<Vec<(Session, u32)>> {
    // Two sessions keep a GPU busy: one runs while the other gets its next batch. A memory limit is that of one
    // session. On the CPU each thread needs a session of its own.
    let (devices, each) = match provider {
        Provider::Cpu => (vec![0], rayon::current_num_threads()),
        Provider::Cuda | Provider::Tensorrt => {
            cuda::preload(runtime);
            (cuda.devices.clone(), if cuda.memory_limit.is_some() { 1 } else { 2 })
        }
    };
    let each = if sessions == 0 { each } else { sessions };
    let open = |n: usize| {
        let device = devices[n % devices.len()];
        Ok((open(runtime, path, provider, cuda, device)?, device))
    };
    // The first one is opened alone, to find out whether any can be opened.
    let first = open(0)?;
    let count = each * devices.len();
    let more = |range: std::ops::Range<usize>| range.into_par_iter().map(open).collect::<Result<Vec<_>>>();
    let mut opened = vec![first];
    opened.extend(more(1..devices.len())?);
    match more(devices.len()..count) {
        Ok(others) => opened.extend(others),
        // The settings do not ask for the others.
        Err(error) if sessions == 0 && is_out_of_memory(&error.to_string()) => telemetry::one_session(provider.name()),
        Err(error) => return Err(error),
    }
    Ok(opened)
}

/// Opens one session of a model.
fn open(runtime: &Runtime, path: &Path, provider: Provider, cuda: &CudaConfig, device: u32) -> Result<Session> {
    let open = || session_builder(runtime, provider, cuda, device)?.commit_from_file(path);
    open().map_err(|e: ort::Error| {
        let reason = "cannot be opened as an ONNX model; export it again, and see whether its opset is one that this \
                      ONNX Runtime knows";
        let cause: Cause = e.message().to_owned().into();
        ModelError::Unusable { path: path.to_owned(), reason: reason.into(), cause: Some(cause) }.into()
    })
}

/// Makes the options of a session that runs on one thread, or on one GPU.
pub(crate) fn session_builder(
    runtime: &Runtime,
    provider: Provider,
    cuda: &CudaConfig,
    device: u32,
) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(runtime.environment())?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        // Every batch has another shape, so remembered layouts would only accumulate.
        .with_memory_pattern(false)?
        // It also prints its errors, such as out-of-memory for each batch that is then halved.
        .with_log_level(LogLevel::Fatal)?
        .with_execution_providers(dispatches(provider, cuda, device))?;
    if provider == Provider::Cpu {
        // This optimization crashes on some models in 16 bits (seen with version 1.32).
        builder = builder.with_config_entry(
            "optimization.disable_specified_optimizers",
            "FuseFp16InitializerToFp32NodeTransformer",
        )?;
    }
    Ok(builder)
}

/// Returns all backends except cuDNN's, which plans anew, and slowly, for each shape; batches differ in shape.
fn attention_backends() -> AttentionBackend {
    AttentionBackend::FLASH_ATTENTION
        | AttentionBackend::EFFICIENT_ATTENTION
        | AttentionBackend::TRT_FUSED_ATTENTION
        | AttentionBackend::TRT_FLASH_ATTENTION
        | AttentionBackend::TRT_CROSS_ATTENTION
        | AttentionBackend::TRT_CAUSAL_ATTENTION
        | AttentionBackend::MATH
}

/// Whether a message of ONNX Runtime's arena or of CUDA is about memory; there is no error code for it.
pub(crate) fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    ["failed to allocate memory", "out of memory", "available memory of", "cudaerrormemoryallocation"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// Returns the execution providers of a session.
///
/// Each is set to fail if it is not available: the session would otherwise run on the CPU without a word.
fn dispatches(provider: Provider, config: &CudaConfig, device: u32) -> Vec<ExecutionProviderDispatch> {
    let device = i32::try_from(device).unwrap_or(i32::MAX);
    let cuda = || {
        let arena = match config.arena {
            Arena::SameAsRequested => ArenaExtendStrategy::SameAsRequested,
            Arena::NextPowerOfTwo => ArenaExtendStrategy::NextPowerOfTwo,
        };
        let search = match config.convolutions {
            Convolutions::Heuristic => ep::cuda::ConvAlgorithmSearch::Heuristic,
            Convolutions::Exhaustive => ep::cuda::ConvAlgorithmSearch::Exhaustive,
            Convolutions::Default => ep::cuda::ConvAlgorithmSearch::Default,
        };
        let cuda = ep::CUDA::default()
            .with_device_id(device)
            .with_arena_extend_strategy(arena)
            .with_conv_algorithm_search(search)
            .with_attention_backend(attention_backends())
            .with_tf32(config.tf32);
        match config.memory_limit {
            Some(limit) => cuda.with_memory_limit(limit),
            None => cuda,
        }
        .build()
        .error_on_failure()
    };
    match provider {
        Provider::Cpu => Vec::new(),
        Provider::Cuda => vec![cuda()],
        Provider::Tensorrt => {
            let tensorrt = ep::TensorRT::default().with_device_id(device).with_fp16(config.tensorrt_f16);
            let tensorrt = match &config.tensorrt_cache {
                Some(dir) => tensorrt.with_engine_cache(true).with_engine_cache_path(dir.display()),
                None => tensorrt,
            };
            vec![tensorrt.build().error_on_failure(), cuda()]
        }
    }
}
