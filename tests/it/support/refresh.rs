//! A run whose encoder is in training, for the tests of refreshes.

use std::time::Duration;

use prosampler::config::{RefreshConfig, Similarity, StreamConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::{MiniBatchStream, ModelVersion, PipelineBuilder};
use tokio::task::JoinSet;

use super::{DIMENSION, TestEncoder, pipeline, trained_vectors};

/// Samples of the run. The encoder has vectors for as many more.
pub const SAMPLES: usize = 600;

/// The encoder of these tests.
pub fn in_training() -> TestEncoder {
    TestEncoder::new(2 * SAMPLES)
}

pub fn builder(encoder: &TestEncoder, refresh: RefreshConfig) -> PipelineBuilder {
    pipeline(SAMPLES, 20).encoder(encoder.clone()).refresh(refresh)
}

/// A stream that does not end before its test, however slow refreshes are on a busy machine.
pub async fn start(encoder: &TestEncoder, refresh: RefreshConfig) -> MiniBatchStream {
    let stream = StreamConfig { epochs: 1_000_000, ..StreamConfig::default() };
    builder(encoder, refresh).stream(stream).start().await.unwrap()
}

/// The embeddings that a version of the model makes of `len` samples; the run's model versions count from 1.
pub fn embeddings_of(version: u64, len: usize) -> EmbeddingTable {
    table_of(trained_vectors(version, len), ModelVersion(version + 1))
}

pub fn table_of(vectors: Vec<f32>, version: ModelVersion) -> EmbeddingTable {
    EmbeddingTable::new(vectors, DIMENSION, Similarity::Cosine, version).unwrap()
}

/// Waits until this holds, for ten seconds at most.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// The same under a paused clock, which does not move while the compute pool works.
pub async fn until_paused(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

/// Keeps the runtime busy until it is dropped: a paused clock moves by itself if the runtime is idle.
pub fn busy() -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    tasks
}
