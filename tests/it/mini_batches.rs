//! A mini-batch carries rows, versions, staleness and similarity, and is harder than chance.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use prosampler::MiniBatch;
use prosampler::arrow::array::AsArray;
use prosampler::arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use prosampler::config::{RefreshConfig, SamplerKind, StreamConfig, WalkConfig};
use prosampler::report::Observer;

use crate::support::{pipeline, walk_config};

const SAMPLES: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn a_mini_batch_carries_rows_versions_staleness_and_similarity() {
    let mut stream = pipeline(SAMPLES, 64)
        .stream(StreamConfig { epochs: 2, prefetch: 2, ..StreamConfig::default() })
        .start()
        .await
        .unwrap();
    let snapshot = stream.snapshot().unwrap();
    let mut step = 0;
    while let Some(mini_batch) = stream.next().await {
        let mini_batch = mini_batch.unwrap();
        let numbers = mini_batch.rows["n"].as_primitive::<UInt32Type>().values().to_vec();
        assert_eq!(numbers, mini_batch.ids.iter().map(|id| id.0).collect::<Vec<_>>());
        assert_eq!((mini_batch.step, mini_batch.epoch, mini_batch.staleness), (step, step / 32, Some(step)));
        assert_eq!((mini_batch.model_version.unwrap().0, mini_batch.graph_version.unwrap().0), (1, 1));
        assert_eq!(mini_batch.similarity.unwrap(), snapshot.embeddings.mean_similarity(&mini_batch.ids));
        step += 1;
    }
    assert_eq!(step, 64);
}

#[tokio::test]
async fn as_a_record_batch_it_is_complete() {
    let mut stream = pipeline(SAMPLES, 64).columns(["text"]).start().await.unwrap();
    stream.next().await.unwrap().unwrap();
    let mini_batch = stream.next().await.unwrap().unwrap();
    let batch = mini_batch.to_record_batch().unwrap();
    assert_eq!(*batch.schema(), MiniBatch::schema(&stream.schema()));
    let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    let own = ["sample_id", "epoch", "step", "model_version", "graph_version", "staleness", "similarity"];
    assert_eq!(names, own.into_iter().chain(["text"]).collect::<Vec<_>>());
    for (row, id) in mini_batch.ids.iter().enumerate() {
        assert_eq!(batch["sample_id"].as_primitive::<UInt32Type>().value(row), id.0);
        assert_eq!(batch["text"].as_string::<i32>().value(row), format!("text {}", id.0));
        assert_eq!(batch["step"].as_primitive::<UInt64Type>().value(row), 1);
        assert_eq!(batch["similarity"].as_primitive::<Float32Type>().value(row), mini_batch.similarity.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_published_between_mini_batches_and_loses_nothing() {
    let config = RefreshConfig { every_steps: Some(4), ..RefreshConfig::default() };
    let mut stream = pipeline(SAMPLES, 20).refresh(config).start().await.unwrap();
    let mut versions = Vec::new();
    let mut seen = HashSet::new();
    while let Some(mini_batch) = stream.next().await {
        let mini_batch = mini_batch.unwrap();
        versions.push(mini_batch.graph_version.unwrap().0);
        mini_batch.ids.iter().for_each(|id| assert!(seen.insert(*id)));
        // The trainer takes a while, so that the refresh is done long before the epoch is.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    assert_eq!(seen.len(), SAMPLES);
    assert!(versions.is_sorted() && versions[..4].iter().all(|&v| v == 1), "{versions:?}");
    assert!(*versions.last().unwrap() >= 2, "{versions:?}");
    assert_eq!(stream.snapshot().unwrap().model_version().0, 1);
}

#[tokio::test]
async fn walks_are_harder_than_chance_and_the_summary_says_so() {
    let walk = WalkConfig { restart_probability: Some(0.5.into()), ..walk_config(50) };
    let mut stream = pipeline(SAMPLES, 50).walk(walk.clone()).start().await.unwrap();
    let mut observer = Observer::new(SAMPLES, &walk, 7, Some("n"));
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        observer.observe(&mini_batch).unwrap();
    }
    let summary = observer.summary(stream.snapshot().as_deref());
    assert_eq!((summary.samples, summary.walked.similarity.len(), summary.uniform.similarity.len()), (SAMPLES, 40, 40));
    assert!(summary.walked.mean_similarity() > 2.0 * summary.uniform.mean_similarity(), "{summary}");
    // No two rows have the same number.
    assert_eq!((summary.walked.mean_shared(), summary.uniform.mean_shared()), (0.0, 0.0));
    let text = summary.to_string();
    for part in ["mean in-batch similarity", "pairs that share `n`", "version 1 for 40 mini-batches"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn the_uniform_sampler_is_no_harder_than_chance() {
    let walk = WalkConfig { sampler: SamplerKind::Uniform, ..walk_config(50) };
    let mut stream = pipeline(SAMPLES, 50).walk(walk.clone()).start().await.unwrap();
    let mut observer = Observer::new(SAMPLES, &walk, 1, None);
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        observer.observe(&mini_batch).unwrap();
    }
    let summary = observer.summary(stream.snapshot().as_deref());
    assert!((summary.walked.mean_similarity() - summary.uniform.mean_similarity()).abs() < 0.02, "{summary}");
}
