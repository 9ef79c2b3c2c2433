//! Embedding as a refresh does it, over and over, for someone else to be disturbed by.

use std::io::Write;
use std::time::{Duration, Instant};

use prosampler::ComputePool;
use prosampler::encode::Encoder;

use super::encode::{open, rows};
use super::{Check, Outcome};

/// Says `ready` when the model is open, and at the end how many samples a second it embedded.
pub fn run(check: &Check) -> Outcome {
    let (shape, samples) = if check.small { ("small", 512) } else { ("minilm", 8192) };
    let precision = if check.provider == prosampler::config::Provider::Cpu { "f32" } else { "f16" };
    let encoder = open(check, shape, precision, check.provider)?;
    let rows = rows(samples);
    let pool = ComputePool::in_background(0, check.share)?;
    let mut vectors = vec![0f32; samples * encoder.dimension()];
    pool.install(|| encoder.encode(&rows, &mut vectors))?;
    println!("ready");
    std::io::stdout().flush()?;
    let (begun, mut done) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs_f64(check.seconds) {
        pool.install(|| encoder.encode(&rows, &mut vectors))?;
        done += samples;
    }
    println!("{:.0}", done as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}
