//! Delivered mini-batches, time, a call or a changed model file start a refresh, and one that runs shows how far it is.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use prosampler::config::RefreshConfig;
use prosampler::refresh::RefreshCounts;
use prosampler::{GraphVersion, MiniBatchStream, ModelVersion, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::command::{self, ends_with, prosampler};
use crate::support::refresh::{SAMPLES, busy, in_training, start, until, until_paused};

/// The clock is paused, so that nothing but delivered mini-batches can start a refresh.
#[tokio::test(start_paused = true)]
async fn delivered_mini_batches_start_a_refresh() {
    let config = RefreshConfig { every_steps: Some(9), ..RefreshConfig::default() };
    let mut stream = start(&in_training(), config).await;
    let handle = stream.handle();
    for round in 0..3 {
        for _ in 0..8 {
            stream.next().await.unwrap().unwrap();
        }
        // Neither the trainer's time nor the mini-batches made ahead of it count.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(handle.counts().published, round);
        stream.next().await.unwrap().unwrap();
        until_paused("a refresh", || handle.counts().published == round + 1).await;
        assert_eq!(stream.snapshot().unwrap().graph_version().0, round + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn time_starts_a_refresh() {
    let _busy = busy();
    let stream = start(&in_training(), RefreshConfig { every_seconds: Some(10.0), ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    let settle = async |published: u64| {
        for _ in 0..20_000_000u64 {
            if handle.counts().published > published {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(handle.counts().published, published + 1);
    };
    for round in 0..3 {
        tokio::time::advance(Duration::from_millis(9_900)).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(handle.counts().published, round);
        tokio::time::advance(Duration::from_millis(200)).await;
        settle(round).await;
    }
}

/// The trainer's vectors are those of the graph at first, and then less alike.
#[tokio::test(start_paused = true)]
async fn mini_batches_that_have_become_easier_start_a_refresh() {
    let config = RefreshConfig { when_easier: Some(0.15), ..RefreshConfig::default() };
    let mut stream = start(&in_training(), config).await;
    let handle = stream.handle();
    let table = stream.snapshot().unwrap().embeddings.clone();
    let push = async |stream: &mut MiniBatchStream, learnt: f32| {
        let mini_batch = stream.next().await.unwrap().unwrap();
        // Every sample is turned its own way.
        let turned = |id: &SampleId| {
            let mut generator = ChaCha8Rng::seed_from_u64(u64::from(id.0));
            let vector = table.get(*id).into_owned();
            let scale = learnt / (vector.len() as f32).sqrt();
            vector.into_iter().map(move |x| x + scale * generator.random_range(-1.7..1.7f32)).collect::<Vec<_>>()
        };
        let vectors: Vec<f32> = mini_batch.ids.iter().flat_map(turned).collect();
        handle.push_embeddings(&mini_batch.ids, &vectors).unwrap();
        // The worker hears of it.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    for _ in 0..60 {
        push(&mut stream, 0.0).await;
    }
    assert_eq!(handle.counts().published, 0);
    for _ in 0..16 {
        push(&mut stream, 1.5).await;
    }
    until_paused("a refresh", || handle.counts().published > 0).await;
    assert_eq!(stream.snapshot().unwrap().model_version(), ModelVersion(2), "the pushed vectors are in");
}

/// The command has no trainer.
#[test]
fn a_run_of_the_command_never_becomes_easier() {
    let dir = command::pipeline("");
    let run =
        |value: &str| prosampler(dir.path(), &["run", "p.toml", "--set", &format!("refresh.when_easier={value}")]);
    ends_with(&run("0.15"), 4, &["refresh.when_easier", "`run` has no trainer"]);
    ends_with(&run("1.5"), 4, &["refresh.when_easier", "above 0 and below 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_starts_a_refresh() {
    let stream = start(&in_training(), RefreshConfig::default()).await;
    let handle = stream.handle();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((handle.counts().published, handle.progress()), (0, None));
    let (one, other) = tokio::join!(handle.refresh_now(), handle.refresh_now());
    let versions = (one.unwrap().graph_version, other.unwrap().graph_version);
    assert_eq!((versions, handle.counts().published), ((GraphVersion(2), GraphVersion(3)), 2));
}

#[tokio::test(start_paused = true)]
async fn a_renamed_model_file_starts_a_refresh() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.onnx");
    fs::write(&file, "model 0").unwrap();
    let encoder = in_training().in_file(&file);
    let stream = start(&encoder, RefreshConfig { watch_model: true, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(handle.counts(), RefreshCounts::default());
    encoder.train();
    fs::write(dir.path().join("model.tmp"), "model 1").unwrap();
    fs::rename(dir.path().join("model.tmp"), &file).unwrap();
    while handle.counts().published == 0 {
        // The watcher's thread does not use the paused clock.
        std::thread::sleep(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(stream.snapshot().unwrap().model_version(), ModelVersion(2));
}

/// A file that is written piece by piece starts one refresh when it is complete, and so does one that is renamed into
/// place.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_file_starts_a_refresh_when_it_is_complete() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.onnx");
    fs::write(&file, "model 0").unwrap();
    let encoder = in_training().in_file(&file);
    let stream = start(&encoder, RefreshConfig { watch_model: true, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    fs::write(dir.path().join("other.onnx"), "another").unwrap();

    encoder.train();
    for piece in 0..8 {
        fs::write(&file, "model 1"[..piece.min(7)].repeat(3)).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(encoder.openings.load(Relaxed), 0, "it was opened while it was written");
    }
    until("a refresh", || handle.counts().published == 1).await;
    assert_eq!(stream.snapshot().unwrap().model_version(), ModelVersion(2));

    encoder.train();
    fs::write(dir.path().join("model.tmp"), "model 2").unwrap();
    fs::rename(dir.path().join("model.tmp"), &file).unwrap();
    until("a refresh", || handle.counts().published == 2).await;
    assert_eq!(stream.snapshot().unwrap().model_version(), ModelVersion(3));
    assert_eq!(encoder.openings.load(Relaxed), 2);
}

/// Triggers work side by side.
#[tokio::test(start_paused = true)]
async fn triggers_combine() {
    let config = RefreshConfig { every_steps: Some(5), every_seconds: Some(60.0), ..RefreshConfig::default() };
    let _busy = busy();
    let mut stream = start(&in_training(), config).await;
    let handle = stream.handle();
    handle.refresh_now().await.unwrap();
    for _ in 0..5 {
        stream.next().await.unwrap().unwrap();
    }
    until_paused("a refresh by steps", || handle.counts().published == 2).await;
    // The minute begins with the last refresh, whichever trigger started it.
    tokio::time::advance(Duration::from_secs(59)).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.counts().published, 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    until_paused("a refresh by time", || handle.counts().published == 3).await;
}

/// A refresh reports its progress, and how long each of its stages took.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_shows_its_progress() {
    let encoder = in_training().pausing(Duration::from_millis(300));
    let stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    assert_eq!(handle.progress(), None);
    encoder.train();
    let call = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh_now().await.unwrap() }
    });
    let mut stages = HashSet::new();
    while !call.is_finished() {
        if let Some(progress) = handle.progress() {
            assert_eq!(progress.total, Some(SAMPLES));
            assert!(progress.done <= SAMPLES);
            stages.insert(format!("{:?}", progress.stage));
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    assert!(stages.contains("Store"), "{stages:?}");
    let seconds = call.await.unwrap().seconds;
    // There is one call for the probe and one for all samples.
    assert!(seconds.model >= 0.3 && seconds.encode >= 0.3, "{seconds:?}");
    assert!(seconds.total() >= 0.6 && seconds.checkpoint < 0.1, "{seconds:?}");
    assert_eq!(handle.progress(), None);
}
