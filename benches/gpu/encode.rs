//! Embedding: whether vectors are those of the processor, and how many samples a second.

use std::sync::Arc;
use std::time::Instant;

use prosampler::arrow::array::{ArrayRef, Int64Builder, ListBuilder, RecordBatch};
use prosampler::config::{CudaConfig, EncodeConfig, Provider, Similarity, Storage, StoreConfig, TensorConfig};
use prosampler::encode::{Encoder, OnnxEncoder, encode_all};
use prosampler::source::MemorySource;
use prosampler::store::Store;
use prosampler::{ComputePool, ModelVersion};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{Check, Outcome};

/// How far a vector may turn from that of the processor in f32: 1 − cosine.
const FURTHEST: [(&str, f64); 2] = [("f32", 1e-3), ("f16", 1e-2)];
const COMPARED: usize = 256;

/// The largest 1 − cosine to the processor's f32, by shape and precision.
pub fn agreement(check: &Check) -> Outcome<Value> {
    let rows = rows(COMPARED);
    let pool = ComputePool::new(0)?;
    let mut found = serde_json::Map::new();
    for shape in check.shapes() {
        let expected = vectors(&pool, &open(check, shape, "f32", Provider::Cpu)?, &rows)?;
        for (precision, furthest) in FURTHEST {
            let encoder = open(check, shape, precision, check.provider)?;
            let d = encoder.dimension();
            let given = vectors(&pool, &encoder, &rows)?;
            let largest = furthest_turn(&expected, &given, d);
            let value = json!({ "one_minus_cosine": largest, "allowed": furthest, "as_wanted": largest <= furthest });
            found.insert(format!("{shape}-{precision}"), value);
        }
    }
    if check.provider != Provider::Cpu {
        let shape = check.shapes()[check.shapes().len() - 1];
        found.insert(format!("{shape} in little memory"), in_little_memory(check, &pool, shape)?);
    }
    Ok(found.into())
}

/// Whether batches that do not fit are halved until they do, and give the vectors of whole ones.
fn in_little_memory(check: &Check, pool: &ComputePool, shape: &str) -> Outcome<Value> {
    let rows = rows(8192);
    let whole = open(check, shape, "f16", check.provider)?;
    let expected = vectors(pool, &whole, &rows)?;
    let cuda = CudaConfig { memory_limit: Some(1 << 30), ..CudaConfig::default() };
    let limited =
        OnnxEncoder::open(&EncodeConfig { cuda: Some(cuda), ..settings(check, shape, "f16", check.provider) })?;
    let given = vectors(pool, &limited, &rows)?;
    let (largest, halvings) = (furthest_turn(&expected, &given, whole.dimension()), limited.halvings());
    let as_wanted = largest <= FURTHEST[1].1 && halvings > 0;
    Ok(json!({ "one_minus_cosine": largest, "halvings": halvings, "as_wanted": as_wanted }))
}

/// Samples a second through `encode_all`, in f16 (on the processor f32), from rows in the store to the table.
pub fn speed(check: &Check) -> Outcome<Value> {
    let pool = ComputePool::new(0)?;
    let precision = if check.provider == Provider::Cpu { "f32" } else { "f16" };
    let mut found = serde_json::Map::new();
    for shape in check.shapes() {
        let samples = match *shape {
            "small" => 2_000,
            "minilm" => 131_072,
            _ => 32_768,
        };
        let rows = rows(samples);
        let lengths = lengths(samples);
        std::fs::write(check.out.join(format!("lengths-{shape}.json")), serde_json::to_vec(&lengths)?)?;
        let source = MemorySource::new(vec![rows])?;
        let (columns, config) = (["input_ids".to_owned()], StoreConfig::default());
        let store = tokio::runtime::Runtime::new()?.block_on(Store::build(&source, &columns, &config, &mut |_| {}))?;
        let encoder = open(check, shape, precision, check.provider)?;
        let mut seconds = Vec::new();
        // The first run finds algorithms and fills memory pools.
        for _ in 0..3 {
            let begun = Instant::now();
            let similarity = Similarity::Cosine;
            pool.install(|| encode_all(&encoder, &store, Storage::F32, similarity, ModelVersion(1), &mut |_| {}))?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let tokens: usize = lengths.iter().sum();
        let value = json!({
            "precision": precision,
            "samples": samples,
            "tokens": tokens,
            "seconds": seconds,
            "samples_per_second": samples as f64 / best,
            "tera_operations_per_second": 2.0 * multiplications(shape) * tokens as f64 / best / 1e12,
            "halvings": encoder.halvings(),
        });
        found.insert((*shape).into(), value);
    }
    Ok(found.into())
}

/// Multiplications for a token, those of attention left out: few at these lengths.
fn multiplications(shape: &str) -> f64 {
    let (layers, d, inner) = match shape {
        "small" => (2.0, 64.0, 128.0),
        "minilm" => (6.0, 384.0, 1536.0),
        _ => (12.0, 768.0, 3072.0),
    };
    layers * (4.0 * d * d + 2.0 * d * inner)
}

pub fn open(check: &Check, shape: &str, precision: &str, provider: Provider) -> Outcome<OnnxEncoder> {
    Ok(OnnxEncoder::open(&settings(check, shape, precision, provider))?)
}

fn settings(check: &Check, shape: &str, precision: &str, provider: Provider) -> EncodeConfig {
    EncodeConfig {
        model: Some(check.models.join(format!("{shape}-{precision}.onnx"))),
        providers: vec![provider],
        tensor: Some(TensorConfig::default()),
        ..EncodeConfig::default()
    }
}

fn vectors(pool: &ComputePool, encoder: &OnnxEncoder, rows: &RecordBatch) -> Outcome<Vec<f32>> {
    let mut vectors = vec![0f32; rows.num_rows() * encoder.dimension()];
    pool.install(|| encoder.encode(rows, &mut vectors))?;
    Ok(vectors)
}

/// Rows of token numbers.
pub fn rows(samples: usize) -> RecordBatch {
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    let mut lists = ListBuilder::new(Int64Builder::new());
    for length in lengths(samples) {
        for _ in 0..length {
            lists.values().append_value(generator.random_range(0..30_000));
        }
        lists.append(true);
    }
    let column: ArrayRef = Arc::new(lists.finish());
    RecordBatch::try_from_iter([("input_ids", column)]).expect("one column")
}

/// As sentences have them: 4 to 128, 24 on average.
fn lengths(samples: usize) -> Vec<usize> {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let length = |_| (4.0 - 20.0 * (1.0 - generator.random_range(0.0..1.0f64)).ln()) as usize;
    (0..samples).map(length).map(|length| length.min(128)).collect()
}

/// The largest 1 − cosine of vectors of d numbers.
fn furthest_turn(expected: &[f32], given: &[f32], d: usize) -> f64 {
    let turns = expected.chunks_exact(d).zip(given.chunks_exact(d)).map(|(a, b)| 1.0 - cosine(a, b));
    turns.fold(0.0, f64::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
