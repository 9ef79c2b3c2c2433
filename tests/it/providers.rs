//! A model runs on the first provider that works, and in smaller batches if memory is short.

use std::sync::Arc;

use prosampler::Error;
use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch};
use prosampler::arrow::datatypes::Float32Type;
use prosampler::config::{CudaConfig, EncodeConfig, Provider, TensorConfig};
use prosampler::encode::{Encoder, OnnxEncoder, cuda, probe_provider, runtime};
use prosampler::error::ModelError;

use crate::support::path;

fn out_of_memory(providers: &[Provider]) -> EncodeConfig {
    EncodeConfig {
        model: Some(path("tests/data/out_of_memory.onnx")),
        providers: providers.to_vec(),
        tensor: Some(TensorConfig::default()),
        sessions: 1,
        ..EncodeConfig::default()
    }
}

/// Whether the library has the CUDA provider; these tests are for libraries that do not.
fn cpu_build() -> bool {
    cuda::provider_files(&runtime::find(None).unwrap().0).is_empty()
}

#[test]
fn a_provider_that_cannot_be_had_is_an_error_with_its_remedy() {
    if !cpu_build() {
        return;
    }
    let gpus = [Provider::Tensorrt, Provider::Cuda];
    let error = OnnxEncoder::open(&out_of_memory(&gpus)).unwrap_err();
    let Error::Model(ModelError::NoProvider { failures, .. }) = &error else { panic!("{error}") };
    assert_eq!(failures.len(), 2);
    for (failure, provider) in failures.iter().zip(["tensorrt", "cuda"]) {
        assert!(failure.starts_with(&format!("{provider}: `")), "{failure}");
        assert!(failure.contains("is a build for the processor alone; install onnxruntime-gpu"), "{failure}");
    }
    assert!(error.to_string().contains("out_of_memory.onnx` on any of encode.providers: tensorrt: "), "{error}");

    // If the settings list the CPU too, it is used.
    let encoder = OnnxEncoder::open(&out_of_memory(&[Provider::Cuda, Provider::Cpu])).unwrap();
    assert_eq!(encoder.provider(), Provider::Cpu);
    let config = EncodeConfig { providers: vec![Provider::Cuda], ..EncodeConfig::default() };
    assert!(matches!(probe_provider(&config).unwrap_err(), Error::Model(ModelError::NoProvider { .. })));
    probe_provider(&EncodeConfig::default()).unwrap();
}

/// Batches of 32 and of 16 need more memory than any machine has, and batches of 8 more than most have.
#[test]
fn batches_are_halved_until_they_fit() {
    let encoder = OnnxEncoder::open(&out_of_memory(&[Provider::Cpu])).unwrap();
    let numbers: Vec<_> = (0..100).map(|i| Some([i, i + 1, i + 2].map(|x| Some(x as f32)).to_vec())).collect();
    let column: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(numbers, 3));
    let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let expected: Vec<f32> = (0..100).flat_map(|i| [i, i + 1, i + 2].map(|x| x as f32)).collect();
    for round in 0..2 {
        let before = encoder.halvings();
        let mut vectors = vec![0f32; 300];
        encoder.encode(&rows, &mut vectors).unwrap();
        assert_eq!(vectors, expected);
        // Once a size is known to be too large, none of that size is tried again.
        assert_eq!(round == 0, encoder.halvings() > before, "{} halvings", encoder.halvings());
    }
}

#[test]
fn gpu_settings_are_checked() {
    let config = |text: &str| prosampler::PipelineConfig::from_toml(&format!("source.uri = 'a'\n[encode]\n{text}"));
    let parsed =
        config("providers = ['cuda', 'cpu']\ncuda = { devices = [1, 0], memory_limit = 2_000_000_000 }").unwrap();
    assert_eq!(parsed.encode.providers, [Provider::Cuda, Provider::Cpu]);
    let cuda = CudaConfig { devices: vec![1, 0], memory_limit: Some(2_000_000_000), ..CudaConfig::default() };
    assert_eq!(parsed.encode.cuda, Some(cuda));
    for (text, expected) in [
        ("providers = []", "encode.providers: is empty; list what the model may run on"),
        ("providers = ['gpu']", "unknown variant `gpu`, expected one of `cpu`, `cuda`, `tensorrt`"),
        ("cuda = { devices = [] }", "encode.cuda.devices: is empty"),
        ("cuda = { devices = [0, 0] }", "encode.cuda.devices: names a GPU twice"),
        ("cuda = { memory_limit = 8 }", "encode.cuda.memory_limit: is in bytes"),
        ("cuda = { memory_limt = 8 }", "encode.cuda.memory_limt: unknown key; did you mean `memory_limit`?"),
    ] {
        let error = config(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
