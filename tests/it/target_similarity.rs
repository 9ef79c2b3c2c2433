//! Mini-batches whose mean similarity is held at a target.

use prosampler::config::{CheckpointConfig, RefreshConfig, SamplerKind, StreamConfig, WalkConfig, WarmUp};
use prosampler::{MiniBatch, MiniBatchStream, PipelineBuilder};
use tempfile::TempDir;

use crate::support::{pipeline, walk_config};

const SAMPLES: usize = 600;
const BATCH_SIZE: usize = 20;

fn builder(walk: WalkConfig) -> PipelineBuilder {
    let refresh = RefreshConfig { every_steps: Some(17), swap_after_steps: Some(3), ..RefreshConfig::default() };
    let stream = StreamConfig { epochs: 8, ..StreamConfig::default() };
    pipeline(SAMPLES, BATCH_SIZE).walk(walk).refresh(refresh).stream(stream)
}

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<MiniBatch> {
    let seen = |mini_batch: MiniBatch| mini_batch;
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

fn mean(all: &[MiniBatch]) -> f32 {
    all.iter().map(|one| one.similarity.unwrap()).sum::<f32>() / all.len() as f32
}

async fn run(walk: WalkConfig) -> Vec<MiniBatch> {
    take(&mut builder(walk).start().await.unwrap(), usize::MAX).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_held_and_resumed_exactly() {
    let uniform = run(WalkConfig { sampler: SamplerKind::Uniform, ..walk_config(BATCH_SIZE) }).await;
    let walked = run(walk_config(BATCH_SIZE)).await;
    let target = (mean(&uniform) + mean(&walked)) / 2.0;
    assert!(mean(&walked) > mean(&uniform) + 0.1, "{} and {}", mean(&walked), mean(&uniform));

    for warm_up in [None, Some(WarmUp::Steps(9))] {
        let walk = WalkConfig { target_similarity: Some(target.into()), warm_up, ..walk_config(BATCH_SIZE) };
        let whole = run(walk.clone()).await;
        let found = mean(&whole[60..]);
        assert!((found - target).abs() < 0.03, "{found} for {target}");

        let dir = TempDir::new().unwrap();
        let (mut all, mut state) = (Vec::new(), None);
        while all.len() < whole.len() {
            let checkpoint = CheckpointConfig { dir: Some(dir.path().into()), ..CheckpointConfig::default() };
            let builder = builder(walk.clone()).checkpoint(checkpoint);
            let builder = if let Some(state) = state { builder.resume(state) } else { builder };
            let mut stream = builder.start().await.unwrap();
            all.extend(take(&mut stream, 7).await);
            // The trainer may keep the state in any format.
            let json = serde_json::to_string(&stream.state()).unwrap();
            state = Some(serde_json::from_str(&json).unwrap());
        }
        for (one, other) in all.iter().zip(&whole) {
            assert!(one.ids == other.ids && one.similarity == other.similarity, "{warm_up:?}, step {}", one.step);
        }
    }
}
