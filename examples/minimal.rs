//! The smallest program: it streams the hard-negative mini-batches of a pipeline file.
//!
//! `cargo run --release --example minimal`

use futures::TryStreamExt;
use prosampler::{Pipeline, PipelineConfig, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let config = PipelineConfig::from_file("pipelines/text.toml")?;
    let mut stream = Pipeline::from_config(config).start().await?;
    while let Some(mini_batch) = stream.try_next().await? {
        // A warm-up may have mini-batches without a graph.
        let (Some(similarity), Some(version)) = (mini_batch.similarity, mini_batch.graph_version) else { continue };
        if mini_batch.step % 100 == 0 {
            let (step, rows) = (mini_batch.step, mini_batch.rows.num_rows());
            println!("step {step}: {rows} rows, mean similarity {similarity:.3}, graph version {version}");
        }
    }
    Ok(())
}
