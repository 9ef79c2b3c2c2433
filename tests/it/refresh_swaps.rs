//! A new graph is swapped in whole between two mini-batches, at a fixed step if the settings ask for it.

use std::collections::HashSet;
use std::time::Duration;

use futures::TryStreamExt;
use prosampler::config::RefreshConfig;

use crate::support::refresh::{SAMPLES, builder, embeddings_of, in_training, start};

/// Every mini-batch comes from a single snapshot, whenever the swaps happen.
#[tokio::test(flavor = "multi_thread")]
async fn swaps_are_atomic() {
    let encoder = in_training();
    let mut stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    let refresher = tokio::spawn({
        let encoder = encoder.clone();
        async move {
            for _ in 0..12 {
                encoder.train();
                handle.refresh_now().await.unwrap();
            }
        }
    });
    let tables: Vec<_> = (0..13).map(|version| embeddings_of(version, SAMPLES)).collect();
    let mut versions = HashSet::new();
    while !refresher.is_finished() {
        let mini_batch = stream.try_next().await.unwrap().unwrap();
        let model_version = mini_batch.model_version.unwrap().0;
        assert_eq!(mini_batch.graph_version.unwrap().0, model_version);
        let table = &tables[model_version as usize - 1];
        assert_eq!(mini_batch.similarity.unwrap(), table.mean_similarity(&mini_batch.ids));
        versions.insert(mini_batch.graph_version);
    }
    refresher.await.unwrap();
    assert!(versions.len() > 3, "{versions:?}");
}

/// With `swap_after_steps` a run gives the same mini-batches however fast the trainer and the refreshes are.
#[tokio::test(flavor = "multi_thread")]
async fn swaps_at_steps_make_runs_reproducible() {
    let run = async |swap_after_steps: u64, pause: fn(u64) -> u64, slow: u64| {
        let encoder = in_training().pausing(Duration::from_millis(slow));
        let config = RefreshConfig {
            every_steps: Some(10),
            swap_after_steps: Some(swap_after_steps),
            ..RefreshConfig::default()
        };
        let mut stream = builder(&encoder, config).start().await.unwrap();
        let mut all = Vec::new();
        while let Some(mini_batch) = stream.try_next().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(pause(mini_batch.step))).await;
            all.push((mini_batch.ids, mini_batch.graph_version.unwrap().0));
        }
        all
    };
    for lag in [0, 3, 7, 25] {
        let quick = run(lag, |_| 0, 0).await;
        let versions: Vec<_> = quick.iter().map(|(_, version)| *version).collect();
        let expected: Vec<_> = (0..30).map(|step| 1 + (step as u64).saturating_sub(lag) / 10).collect();
        assert_eq!(versions, expected, "lag {lag}");
        assert!(quick == run(lag, |step| step * 7 % 5, 5).await, "lag {lag}");
    }
}
