//! A refresh that fails or is cancelled leaves the old snapshot in use.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use prosampler::config::{GraphConfig, OnNewerModel, OnRefreshError, RefreshConfig};
use prosampler::{Error, ModelVersion, Pipeline, SampleId};
use tempfile::TempDir;

use crate::support::refresh::{embeddings_of, in_training, start, until};
use crate::support::{DIMENSION, ModelFault, TestEncoder, source, walk_config};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_refresh_leaves_the_old_snapshot() {
    let encoder = in_training();
    let mut stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    let before = stream.snapshot().unwrap();
    encoder.train();
    for (number, fault, expected) in [
        (1, ModelFault::Unreadable, "encoder `test` failed: it is cut short"),
        (2, ModelFault::OtherDimension, "encoder `test` gives vectors of 9 numbers where the run has 8"),
        (3, ModelFault::NotFinite, "sample 77 cannot be encoded: column `n` gives a vector whose component 3 is NaN"),
    ] {
        encoder.set_fault(fault);
        let error = handle.refresh_now().await.unwrap_err().to_string();
        let failed = format!("the refresh at step {} failed ({number} in a row): ", number - 1);
        assert!(error.contains(expected) && error.starts_with(&failed), "{error}");
        assert!(Arc::ptr_eq(&before, &stream.snapshot().unwrap()));
        assert_eq!(stream.next().await.unwrap().unwrap().model_version, Some(ModelVersion(1)));
    }
    assert_eq!((handle.counts().failed, handle.counts().published), (3, 0));
    encoder.set_fault(None);
    assert_eq!(handle.refresh_now().await.unwrap().model_version, ModelVersion(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_after_max_failures_in_a_row_if_asked_to() {
    let encoder = in_training();
    let on_error = OnRefreshError::Fail;
    let stream = start(&encoder, RefreshConfig { on_error, max_failures: 3, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    for round in 0..2 {
        encoder.train();
        encoder.set_fault(ModelFault::Unreadable);
        for _ in 0..2 + round {
            handle.refresh_now().await.unwrap_err();
        }
        encoder.set_fault(None);
        if round == 0 {
            handle.refresh_now().await.unwrap();
        }
    }
    let items: Vec<_> = stream.collect().await;
    let error = items.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(error.contains("failed (3 in a row): encoder `test` failed"), "{error}");
    assert!(matches!(handle.refresh_now().await.unwrap_err(), Error::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_model_cancels_the_running_refresh_if_asked_to() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.onnx");
    fs::write(&file, "model 0").unwrap();
    let encoder = in_training().in_file(&file).pausing(Duration::from_millis(1500));
    let config = RefreshConfig { watch_model: true, on_newer_model: OnNewerModel::Restart, ..RefreshConfig::default() };
    let stream = start(&encoder, config).await;
    let handle = stream.handle();
    let pushed = vec![1.0; DIMENSION];
    encoder.train();
    let (first, second) = tokio::join!(handle.refresh_now(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        encoder.train();
        fs::write(&file, "model 2").unwrap();
        handle.push_embeddings(&[SampleId(3)], &pushed)
    });
    assert!(matches!(first.unwrap_err(), Error::Cancelled));
    second.unwrap();
    until("the restarted refresh", || handle.counts().published == 1).await;
    assert_eq!((handle.counts().cancelled, handle.counts().failed), (1, 0));
    let newest = embeddings_of(2, 10);
    assert_eq!(stream.snapshot().unwrap().embeddings.get(SampleId(9)), newest.get(SampleId(9)));
}

/// If a stream is dropped during a refresh, the refresh stops at the next record batch and frees the encoder.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_ends_its_refresh() {
    /// A pass over the samples is as many calls, of 8,192 rows each.
    const CALLS: usize = 30;
    let encoder = TestEncoder::with_vectors(2, |_, n, vector| vector.copy_from_slice(&[1.0, n as f32]));
    let encoder = Arc::new(encoder.before_each_call(|call| {
        if call > CALLS {
            std::thread::sleep(Duration::from_millis(40));
        }
    }));
    let alive = Arc::downgrade(&encoder);
    let calls = encoder.calls.clone();
    encoder.train();
    let stream = Pipeline::builder()
        .source(source(CALLS * 8192))
        .encoder(encoder)
        .walk(walk_config(64))
        .graph(GraphConfig { candidates: 8.into(), neighbors: Some(2), ..GraphConfig::default() })
        .start()
        .await
        .unwrap();
    let handle = stream.handle();
    let call = tokio::spawn(async move { handle.refresh_now().await });
    until("the refresh", || calls.load(Relaxed) > CALLS + 5).await;
    drop(stream);
    assert!(matches!(call.await.unwrap().unwrap_err(), Error::Cancelled));
    until("the end of the work", || alive.strong_count() == 0).await;
    assert!(calls.load(Relaxed) < 2 * CALLS - 5, "it went on to the end");
}
