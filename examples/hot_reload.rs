//! Replaces the model of a running stream: all samples are embedded again in the background, and no step waits.
//!
//! `cargo run --release --example hot_reload`
//!
//! A copy of the model in which an eighth of the bytes are zero plays the trainer's export: it has forgotten a part of
//! its vocabulary. It is written beside the old model and then renamed to its path, as exports should be.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use prosampler::config::StreamConfig;
use prosampler::{Error, ModelVersion, Pipeline, PipelineConfig, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(io)?;
    let file = folder.path().join("model.onnx");
    std::fs::copy("data/models/gloss-encoder/model.onnx", &file).map_err(io)?;

    let mut config = PipelineConfig::from_file("pipelines/text.toml")?;
    config.source.filter = Some("label >= 'verb'".into());
    config.encode.model = Some(file.clone());
    config.graph.candidates = 1000.into();
    config.refresh.every_steps = None;
    config.refresh.watch_model = true;
    config.stream = StreamConfig { epochs: 1000, ..StreamConfig::default() };
    let mut stream = Pipeline::from_config(config).start().await?;
    println!("{} samples", stream.samples());

    println!("step  model  graph  staleness  similarity     wait");
    let (mut longest, mut left) = (Duration::ZERO, 40);
    while left > 0 {
        let asked = Instant::now();
        let Some(mini_batch) = stream.try_next().await? else { break };
        let wait = asked.elapsed();
        let step = mini_batch.step;
        if step > 0 {
            longest = longest.max(wait);
        }
        let snapshot = (mini_batch.model_version, mini_batch.graph_version);
        let age = (mini_batch.staleness, mini_batch.similarity);
        // Only a warm-up has mini-batches without a graph.
        let ((Some(model), Some(graph)), (Some(staleness), Some(similarity))) = (snapshot, age) else { continue };
        let is_newer = model > ModelVersion(1);
        if step % 50 == 0 || left == 40 && is_newer {
            let wait = wait.as_secs_f64() * 1e3;
            println!("{step:>4}  {:>5}  {:>5}  {staleness:>9}  {similarity:>10.3}  {wait:>4.1} ms", model.0, graph.0);
        }
        if step == 40 {
            export(&file)?;
            println!("      a newer model is there");
        }
        // The loop goes on for a few steps after the new model is in use.
        left -= usize::from(is_newer);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("longest wait {:.1} ms", longest.as_secs_f64() * 1e3);
    Ok(())
}

fn export(model: &Path) -> Result<()> {
    let mut bytes = std::fs::read(model).map_err(io)?;
    let eighth = bytes.len() / 8;
    bytes[eighth..2 * eighth].fill(0);
    let unfinished = model.with_extension("tmp");
    std::fs::write(&unfinished, bytes).and_then(|()| std::fs::rename(&unfinished, model)).map_err(io)
}

fn io(cause: std::io::Error) -> Error {
    Error::Io { action: "copy a model in", path: std::env::temp_dir(), cause }
}
