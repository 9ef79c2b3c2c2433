//! The paper's graph on the device, against the kernels for the neighbors, and by the clock.

use std::collections::HashSet;
use std::time::Instant;

use prosampler::config::{CudaConfig, EncodeConfig, GraphBuilder, GraphConfig, Precision, Provider, Similarity};
use prosampler::device::OnnxDevice;
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{build, build_on};
use prosampler::{ComputePool, GraphVersion, ModelVersion, Result, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Check, Outcome};

pub fn run(check: &Check) -> Outcome<Value> {
    let pool = ComputePool::new(0)?;
    let device = OnnxDevice::new(check.provider, &EncodeConfig::default());
    device.probe()?;
    let (samples, candidates, neighbors) = if check.small { (4_000, 200, 20) } else { (1_000_000, 1000, 100) };
    let dimensions: &[usize] = if check.small { &[64] } else { &[384, 768] };
    let mut found = serde_json::Map::new();
    found.insert("samples".into(), json!(samples));
    found.insert("candidates".into(), json!(candidates));
    found.insert("neighbors".into(), json!(neighbors));
    let formats = [
        ("f32", Precision::F32, Similarity::Cosine),
        ("f16", Precision::Bf16, Similarity::Cosine),
        ("bf16", Precision::Bf16, Similarity::Dot),
    ];
    for (name, precision, similarity) in formats {
        // ONNX Runtime has no product of such numbers on the processor.
        if name == "bf16" && check.provider == Provider::Cpu {
            continue;
        }
        let config = GraphConfig {
            candidates: candidates.into(),
            neighbors: Some(neighbors),
            precision,
            ..GraphConfig::default()
        };
        let value = pool.install(|| agreement(&device, &table(4_000, 64, similarity)?, &config))?;
        found.insert(format!("agreement-{name}"), value);
    }
    // Half of the limit is for vectors, so these come in parts. All pairs are the same however they come.
    let (some, d, limit) = if check.small { (4_000, 64, 1 << 20) } else { (100_000, 256, 96 << 20) };
    let cuda = CudaConfig { memory_limit: Some(limit), ..CudaConfig::default() };
    let limited = OnnxDevice::new(check.provider, &EncodeConfig { cuda: Some(cuda), ..EncodeConfig::default() });
    let (builder, precision) = (GraphBuilder::Exact, Precision::F32);
    let config = GraphConfig { builder, neighbors: Some(neighbors), precision, ..GraphConfig::default() };
    let value = pool.install(|| agreement(&limited, &table(some, d, Similarity::Cosine)?, &config))?;
    found.insert("agreement-all-pairs-in-parts".into(), value);
    for &d in dimensions {
        let table = pool.install(|| table(samples, d, Similarity::Cosine))?;
        for precision in [Precision::F32, Precision::Bf16] {
            let config = GraphConfig {
                candidates: candidates.into(),
                neighbors: Some(neighbors),
                precision,
                ..GraphConfig::default()
            };
            let mut seconds = Vec::new();
            for seed in 0..3 {
                let begun = Instant::now();
                pool.install(|| build_on(&device, &table, &config, seed, GraphVersion(1)))?;
                seconds.push(begun.elapsed().as_secs_f64());
            }
            let name = if precision == Precision::F32 { "f32" } else { "f16" };
            let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
            found.insert(format!("d{d}-{name}"), json!({ "seconds": best, "all": seconds }));
        }
        let config =
            GraphConfig { candidates: candidates.into(), neighbors: Some(neighbors), ..GraphConfig::default() };
        let begun = Instant::now();
        pool.install(|| build(&table, &config, 0, GraphVersion(1)))?;
        found.insert(format!("d{d}-processor"), json!({ "seconds": begun.elapsed().as_secs_f64() }));
    }
    Ok(found.into())
}

/// The share of neighbors that are not those of the kernels in f32, and the largest difference of a similarity.
fn agreement(device: &OnnxDevice, table: &EmbeddingTable, config: &GraphConfig) -> Result<Value> {
    let kernels = build(table, &GraphConfig { precision: Precision::F32, ..config.clone() }, 1, GraphVersion(1))?;
    let graph = build_on(device, table, config, 1, GraphVersion(1))?;
    let (mut others, mut furthest) = (0u32, 0f32);
    let compared = (0..table.len()).step_by(table.len() / 4_000).map(SampleId::new);
    let looked_at = (compared.len() * graph.degree()) as f64;
    for id in compared {
        let expected: HashSet<_> = kernels.neighbors(id).iter().collect();
        others += graph.neighbors(id).iter().filter(|id| !expected.contains(id)).count() as u32;
        for (a, b) in graph.similarities(id).iter().zip(kernels.similarities(id)) {
            furthest = furthest.max((a - b).abs());
        }
    }
    let others = f64::from(others) / looked_at;
    let as_wanted = others < 1e-3 && furthest < 1e-2;
    Ok(json!({ "other_neighbors": others, "largest_difference": furthest, "as_wanted": as_wanted }))
}

/// Vectors around a thousand centers.
fn table(samples: usize, d: usize, similarity: Similarity) -> Result<EmbeddingTable> {
    let noise = |stream: u64, scale: f32| {
        let mut generator = ChaCha8Rng::seed_from_u64(stream);
        (0..d).map(move |_| scale * generator.random_range(-1f32..1.0))
    };
    let mut vectors = vec![0f32; samples * d];
    vectors.par_chunks_exact_mut(d).enumerate().for_each(|(i, vector)| {
        let (center, own) = (noise((i % 1000) as u64, 1.0), noise(1000 + i as u64, 0.8));
        vector.iter_mut().zip(center.zip(own)).for_each(|(x, (center, own))| *x = center + own);
    });
    EmbeddingTable::new(vectors, d, similarity, ModelVersion(1))
}
