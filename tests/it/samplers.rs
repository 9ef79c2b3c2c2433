//! The samplers of other methods, as part of a pipeline.

use std::path::Path;

use futures::TryStreamExt;
use prosampler::config::{CheckpointConfig, GuardsConfig, RefreshConfig, SamplerKind, StreamConfig, WalkConfig};
use prosampler::report::Observer;
use prosampler::{MiniBatch, MiniBatchStream, PipelineBuilder};
use tempfile::TempDir;

use crate::support::{pipeline, walk_config};

const SAMPLES: usize = 110;
const BATCH_SIZE: usize = 16;

/// Two epochs, with a refresh of the graph in each.
fn builder(sampler: SamplerKind, dir: &Path) -> PipelineBuilder {
    let refresh = RefreshConfig { every_steps: Some(4), swap_after_steps: Some(1), ..RefreshConfig::default() };
    let walk = WalkConfig { sampler, starts: 2.0.into(), random_share: 0.2.into(), ..walk_config(BATCH_SIZE) };
    pipeline(SAMPLES, BATCH_SIZE)
        .refresh(refresh)
        .walk(walk)
        .guards(GuardsConfig { skip_nearest: 1, ..GuardsConfig::default() })
        .stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: Some(dir.into()), ..CheckpointConfig::default() })
}

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<(u64, Vec<u32>)> {
    let seen = |m: MiniBatch| (m.graph_version.unwrap().0, m.ids.iter().map(|id| id.0).collect());
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_resumed_at_every_step() {
    for sampler in [SamplerKind::Communities, SamplerKind::Clusters] {
        let dir = TempDir::new().unwrap();
        let whole = take(&mut builder(sampler, &dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
        assert!(whole.len() > 10 && whole.last().unwrap().0 > 2);
        for step in 0..whole.len() {
            let dir = dir.path().join(step.to_string());
            let mut stream = builder(sampler, &dir).start().await.unwrap();
            let mut seen = take(&mut stream, step).await;
            let state = stream.state();
            drop(stream);
            let mut resumed = builder(sampler, &dir).resume(state).start().await.unwrap();
            seen.extend(take(&mut resumed, usize::MAX).await);
            assert!(seen == whole, "{sampler:?} after {step} steps");
        }
    }
}

/// The summary names them, and their mini-batches are harder than uniform ones.
#[tokio::test]
async fn a_summary_names_the_sampler() {
    for (sampler, name) in [(SamplerKind::Communities, "communities"), (SamplerKind::Clusters, "clusters")] {
        let walk = WalkConfig { sampler, ..walk_config(BATCH_SIZE) };
        let mut stream = pipeline(600, BATCH_SIZE).walk(walk.clone()).start().await.unwrap();
        let mut observer = Observer::new(stream.samples(), &walk, 7, None);
        while let Some(mini_batch) = stream.try_next().await.unwrap() {
            observer.observe(&mini_batch).unwrap();
        }
        let summary = observer.summary(stream.snapshot().as_deref());
        assert!(summary.to_string().contains(name), "{summary}");
        assert!(summary.walked.mean_similarity() > summary.uniform.mean_similarity(), "{summary}");
    }
}
