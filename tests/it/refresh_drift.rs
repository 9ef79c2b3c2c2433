//! A newer model embeds all samples anew, and its drift is measured: too little of it leaves the old embeddings in use.

use std::sync::atomic::Ordering::Relaxed;

use prosampler::config::RefreshConfig;
use prosampler::{GraphVersion, ModelVersion, SampleId, graph};

use crate::support::graph_config;
use crate::support::refresh::{SAMPLES, builder, embeddings_of, in_training, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_model_embeds_all_samples_anew() {
    let encoder = in_training();
    let stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    // Without a newer model the graph draws other candidates, as the paper does, and the embeddings stay.
    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.graph_version, refreshed.model_version), (GraphVersion(2), ModelVersion(1)));

    encoder.train();
    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.graph_version, refreshed.model_version), (GraphVersion(3), ModelVersion(2)));
    let expected = embeddings_of(1, SAMPLES);
    let snapshot = stream.snapshot().unwrap();
    assert_eq!(*snapshot.embeddings, expected);
    assert_eq!(snapshot.graph, graph::build(&expected, &graph_config(40, 10), 7, GraphVersion(3)).unwrap());
}

/// The drift of a probe as large as the data set is the mean cosine shift of all samples.
#[tokio::test(flavor = "multi_thread")]
async fn drift_is_the_mean_cosine_shift_of_the_probe() {
    let encoder = in_training();
    let stream = start(&encoder, RefreshConfig { probe: 2 * SAMPLES, ..RefreshConfig::default() }).await;
    encoder.train();
    let drift = stream.handle().refresh_now().await.unwrap().drift.unwrap();
    let before = embeddings_of(0, SAMPLES);
    let after = embeddings_of(1, SAMPLES);
    let shifts = (0..SAMPLES).map(|i| {
        let (a, b) = (before.get(SampleId::new(i)), after.get(SampleId::new(i)));
        1.0 - a.iter().zip(b.iter()).map(|(a, b)| f64::from(a * b)).sum::<f64>()
    });
    let shift = shifts.sum::<f64>() / SAMPLES as f64;
    assert!((drift.cosine_shift - shift).abs() < 1e-5, "{drift:?} {shift}");
    assert!(drift.overlap > 0.3 && drift.overlap < 1.0, "{drift:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_drift_is_skipped_and_counted() {
    let encoder = in_training();
    let stream = start(&encoder, RefreshConfig { min_drift: 0.03, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    encoder.train();
    let refreshed = handle.refresh_now().await.unwrap();
    // The graph draws other candidates, but by the old embeddings.
    assert!(refreshed.drift.unwrap().cosine_shift < 0.03);
    assert_eq!((refreshed.model_version, encoder.calls.load(Relaxed)), (ModelVersion(1), 2));
    // Drift is measured against the model in use, so small steps add up.
    for _ in 0..9 {
        encoder.train();
    }
    assert_eq!(handle.refresh_now().await.unwrap().model_version, ModelVersion(2));

    // If all samples are candidates, the graph would be the same again, and the refresh is skipped.
    let builder = builder(&in_training(), RefreshConfig::default()).graph(graph_config(SAMPLES, 10));
    let stream = builder.start().await.unwrap();
    assert!(stream.handle().refresh_now().await.unwrap().skipped);
    assert_eq!(stream.handle().counts().skipped, 1);
    assert_eq!(stream.snapshot().unwrap().graph_version(), GraphVersion(1));
}
