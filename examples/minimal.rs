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
        if mini_batch.step % 100 == 0 {
            println!(
                "step {}: {} rows, mean similarity {:.3}, graph version {}",
                mini_batch.step,
                mini_batch.rows.num_rows(),
                mini_batch.similarity,
                mini_batch.graph_version,
            );
        }
    }
    Ok(())
}
