//! An encoder of one's own, which hashes words into buckets and needs no model.
//!
//! `cargo run --release --example custom_encoder`

use std::hash::{DefaultHasher, Hash, Hasher};

use futures::TryStreamExt;
use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::config::WalkConfig;
use prosampler::report::Observer;
use prosampler::{Encoder, FileSource, Pipeline, Result};

/// Adds ±1 to one of `dimension` buckets for each word of a string column.
#[derive(Debug)]
pub struct WordHashing {
    columns: Vec<String>,
    dimension: usize,
}

impl WordHashing {
    /// Reads `column` and makes vectors of `dimension` numbers.
    #[must_use]
    pub fn new(column: &str, dimension: usize) -> Self {
        Self { columns: vec![column.to_owned()], dimension }
    }
}

impl Encoder for WordHashing {
    fn name(&self) -> &str {
        "word hashing"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let texts = rows.column(0).as_string::<i32>();
        for (text, vector) in texts.iter().zip(vectors.chunks_exact_mut(self.dimension)) {
            // Texts have no nulls here. A text without words still needs a direction.
            vector[0] = 1e-3;
            for word in text.unwrap_or_default().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
                let mut hasher = DefaultHasher::new();
                word.to_lowercase().hash(&mut hasher);
                let hash = hasher.finish();
                let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
                vector[(hash % self.dimension as u64) as usize] += sign;
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let walk = WalkConfig { batch_size: 128, ..WalkConfig::default() };
    let mut stream = Pipeline::builder()
        .source(FileSource::open("data/wordnet/glosses.parquet").await?)
        .columns(["definition", "label"])
        .encoder(WordHashing::new("definition", 64))
        .walk(walk.clone())
        .seed(1)
        .start()
        .await?;
    let mut observer = Observer::new(stream.samples(), &walk, 1, Some("label"));
    while let Some(mini_batch) = stream.try_next().await? {
        observer.observe(&mini_batch)?;
    }
    println!("{}", observer.summary(stream.snapshot().as_deref()));
    Ok(())
}
