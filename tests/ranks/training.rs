//! What ranks of a training do at each step, in processes and in the test itself.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::RecordBatch;
use prosampler::config::{CheckpointConfig, EncodeConfig, RefreshConfig, StreamConfig};
use prosampler::encode::{Encoded, Encoder};
use prosampler::{MiniBatchStream, PipelineBuilder, Result, SampleId};
use serde::{Deserialize, Serialize};

use crate::support::{DIMENSION, TestEncoder, pipeline, trained_vectors};

pub const SAMPLES: usize = 700;
pub const BATCH_SIZE: usize = 24;
const TRAINED_AT: u64 = 31;

/// A test encoder whose embeddings are kept.
struct Kept {
    encoder: Arc<dyn Encoder>,
    version: u64,
}

impl Encoder for Kept {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn columns(&self) -> &[String] {
        self.encoder.columns()
    }

    fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    fn identity(&self) -> Option<String> {
        Some(format!("version {}", self.version))
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let newer = |encoder| Arc::new(Self { encoder, version: self.version + 1 }) as Arc<dyn Encoder>;
        Ok(self.encoder.newer()?.map(newer))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.encoder.encode(rows, vectors)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        self.encoder.encode_readable(rows, vectors)
    }
}

/// The encoder of a run that begins, or goes on, at `step`.
pub fn kept_at(step: u64, encoder: &TestEncoder) -> Arc<dyn Encoder> {
    let first = Kept { encoder: Arc::new(encoder.clone()), version: 0 };
    if step <= TRAINED_AT {
        return Arc::new(first);
    }
    encoder.train();
    first.newer().unwrap().unwrap()
}

pub fn builder(dir: &Path, encoder: Arc<dyn Encoder>, rank: usize, world_size: usize) -> PipelineBuilder {
    let refresh = RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
    pipeline(SAMPLES, BATCH_SIZE)
        .encoder(encoder)
        .encode(EncodeConfig { cache_dir: Some(dir.join("cache")), ..EncodeConfig::default() })
        .refresh(refresh)
        .stream(StreamConfig { epochs: 3, rank, world_size, prefetch: 1 })
        .checkpoint(CheckpointConfig { dir: Some(dir.join("checkpoints")), ..CheckpointConfig::default() })
}

/// What a rank sees of a step.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub struct Seen {
    pub step: u64,
    pub ids: Vec<u32>,
    pub digest: u64,
    pub graph_version: u64,
    pub similarity: f32,
}

/// Takes a mini-batch. All ranks push the same vectors; after step 31, which uses the graph of the refresh at step 28,
/// there is a newer model.
pub async fn step(stream: &mut MiniBatchStream, encoder: &TestEncoder) -> Result<Seen> {
    let m = stream.try_next().await?.unwrap();
    let pushed: Vec<_> = (0..20).map(|i| SampleId(((m.step * 37 + i * 11) % SAMPLES as u64) as u32)).collect();
    let trained = trained_vectors(m.step, SAMPLES);
    let vectors: Vec<f32> =
        pushed.iter().flat_map(|id| trained[id.index() * DIMENSION..][..DIMENSION].to_vec()).collect();
    stream.handle().push_embeddings(&pushed, &vectors)?;
    if m.step == TRAINED_AT {
        encoder.train();
    }
    Ok(Seen {
        step: m.step,
        ids: m.ids.iter().map(|id| id.0).collect(),
        digest: m.digest,
        graph_version: m.graph_version.unwrap().0,
        similarity: m.similarity.unwrap(),
    })
}
