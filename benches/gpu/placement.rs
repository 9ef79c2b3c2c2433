//! Which provider each node ran on, by ONNX Runtime's own profile.

use std::collections::BTreeMap;

use ort::ep;
use ort::session::Session;
use ort::value::Tensor;
use prosampler::config::Provider;
use prosampler::encode::runtime::Runtime;
use serde_json::{Value, json};

use super::{Check, Outcome};

/// Microseconds of each operator by provider, for each shape in f16; and whether all heavy ones were where they belong.
pub fn run(check: &Check) -> Outcome<Value> {
    let mut found = serde_json::Map::new();
    for shape in check.shapes() {
        found.insert((*shape).into(), profile(check, shape)?);
    }
    Ok(found.into())
}

fn profile(check: &Check, shape: &str) -> Outcome<Value> {
    let runtime = Runtime::load(None)?;
    let provider = match check.provider {
        Provider::Cpu => Vec::new(),
        _ => vec![ep::CUDA::default().build().error_on_failure()],
    };
    let mut session = Session::builder(runtime.environment())?
        .with_execution_providers(provider)
        .map_err(|e| e.message().to_owned())?
        .with_profiling(check.out.join("profile"))
        .map_err(|e| e.message().to_owned())?
        .commit_from_file(check.models.join(format!("{shape}-f16.onnx")))?;
    for _ in 0..3 {
        let numbers = |value: i64| Tensor::from_array(([8usize, 32], vec![value; 256]));
        session.run(vec![("input_ids", numbers(7)?), ("attention_mask", numbers(1)?)])?;
    }
    let path = session.end_profiling()?;
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(&path)?)?;
    std::fs::remove_file(path)?;
    let mut microseconds: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["cat"] == "Node") {
        let arguments = &event["args"];
        let (Some(operator), Some(provider)) = (arguments["op_name"].as_str(), arguments["provider"].as_str()) else {
            continue;
        };
        let of_provider = microseconds.entry(provider.into()).or_default();
        *of_provider.entry(operator.into()).or_default() += event["dur"].as_u64().unwrap_or(0);
    }
    let wanted = if check.provider == Provider::Cpu { "CPUExecutionProvider" } else { "CUDAExecutionProvider" };
    let strays: Vec<_> = microseconds
        .iter()
        .filter(|(provider, _)| *provider != wanted)
        .flat_map(|(_, operators)| operators.keys())
        .filter(|operator| HEAVY.iter().any(|heavy| operator.contains(heavy)))
        .collect();
    let has_heavy = microseconds.get(wanted).is_some_and(|operators| operators.keys().any(|o| o.contains("MatMul")));
    Ok(json!({ "as_wanted": strays.is_empty() && has_heavy, "strays": strays, "microseconds": microseconds }))
}

/// Parts of the names of operators that take the time.
const HEAVY: [&str; 6] = ["MatMul", "Gemm", "Attention", "Softmax", "LayerNorm", "Gelu"];
