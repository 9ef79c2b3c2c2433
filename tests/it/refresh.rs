//! Refreshes: what starts them, what they do, and what becomes of those that fail.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{GraphConfig, OnNewerModel, OnRefreshError, RefreshConfig, Similarity, StreamConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::Encoder;
use prosampler::refresh::RefreshCounts;
use prosampler::source::FileSource;
use prosampler::{
    Error, GraphVersion, MiniBatchStream, ModelVersion, Pipeline, PipelineBuilder, Result, SampleId, graph,
};
use tempfile::TempDir;

use crate::support::{graph_config, pipeline, rows, source, vectors, walk_config, write_parquet};

const SAMPLES: usize = 600;
const DIMENSION: usize = 8;

/// A model in training: its vectors depend on how often it was `train`ed.
#[derive(Clone)]
struct Trained {
    columns: Vec<String>,
    file: Option<PathBuf>,
    /// Of this encoder, and of the newest model.
    version: u64,
    newest: Arc<AtomicU64>,
    fault: Arc<AtomicU64>,
    pause: Duration,
    calls: Arc<AtomicUsize>,
    openings: Arc<AtomicUsize>,
}

/// What is wrong with the newest model.
const UNREADABLE: u64 = 1;
const OTHER_DIMENSION: u64 = 2;
const NOT_FINITE: u64 = 3;

impl Trained {
    fn new() -> Self {
        Self {
            columns: vec!["n".into()],
            file: None,
            version: 0,
            newest: Arc::default(),
            fault: Arc::default(),
            pause: Duration::ZERO,
            calls: Arc::default(),
            openings: Arc::default(),
        }
    }

    fn train(&self) {
        self.newest.fetch_add(1, Relaxed);
    }

    /// All vectors of a version, a mix of two models: versions drift.
    fn vectors(version: u64, len: usize) -> Vec<f32> {
        let (first, last) = (vectors(len, DIMENSION, 10, 3), vectors(len, DIMENSION, 10, 4));
        first.iter().zip(last).map(|(a, b)| a + 0.1 * version as f32 * b).collect()
    }
}

impl Encoder for Trained {
    fn name(&self) -> &str {
        "trained"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        if self.version > 0 && self.fault.load(Relaxed) == OTHER_DIMENSION { DIMENSION + 1 } else { DIMENSION }
    }

    fn model_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let version = self.newest.load(Relaxed);
        if version == self.version {
            return Ok(None);
        }
        self.openings.fetch_add(1, Relaxed);
        if self.fault.load(Relaxed) == UNREADABLE {
            let cause = "it is cut short".into();
            return Err(Error::Encode { encoder: "trained".into(), cause });
        }
        Ok(Some(Arc::new(Self { version, ..self.clone() })))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.calls.fetch_add(1, Relaxed);
        std::thread::sleep(self.pause);
        let all = Self::vectors(self.version, 2 * SAMPLES);
        let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
        for (&n, vector) in numbers.iter().zip(vectors.chunks_exact_mut(DIMENSION)) {
            vector.copy_from_slice(&all[n as usize * DIMENSION..][..DIMENSION]);
            if self.version > 0 && self.fault.load(Relaxed) == NOT_FINITE && n == 77 {
                vector[3] = f32::NAN;
            }
        }
        Ok(())
    }
}

fn builder(encoder: &Trained, refresh: RefreshConfig) -> PipelineBuilder {
    pipeline(SAMPLES, 20).encoder(encoder.clone()).refresh(refresh)
}

async fn start(encoder: &Trained, refresh: RefreshConfig) -> MiniBatchStream {
    builder(encoder, refresh).stream(StreamConfig { epochs: 1000, ..StreamConfig::default() }).start().await.unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// As `until`, where the clock is paused: the compute pool knows nothing of it.
async fn until_paused(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

/// A paused clock moves by itself where the runtime has nothing to do; it has, until this is dropped.
fn busy() -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_model_embeds_all_samples_anew() {
    let encoder = Trained::new();
    let stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    // Nothing is newer: the paper's graph draws other candidates, embeddings stay.
    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.graph_version, refreshed.model_version), (GraphVersion(2), ModelVersion(1)));

    encoder.train();
    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.graph_version, refreshed.model_version), (GraphVersion(3), ModelVersion(2)));
    let all = Trained::vectors(1, 2 * SAMPLES);
    let table = |vectors: &[f32]| {
        EmbeddingTable::new(vectors.to_vec(), DIMENSION, Similarity::Cosine, ModelVersion(2)).unwrap()
    };
    let expected = table(&all[..SAMPLES * DIMENSION]);
    let snapshot = stream.snapshot();
    assert_eq!(*snapshot.embeddings, expected);
    assert_eq!(snapshot.graph, graph::build(&expected, &graph_config(40, 10), 7, GraphVersion(3)).unwrap());

    // The probe is the whole data set where that is small enough.
    let encoder = Trained::new();
    let config = RefreshConfig { probe: 2 * SAMPLES, ..RefreshConfig::default() };
    let stream = start(&encoder, config).await;
    encoder.train();
    let drift = stream.handle().refresh_now().await.unwrap().drift.unwrap();
    let before = table(&Trained::vectors(0, 2 * SAMPLES)[..SAMPLES * DIMENSION]);
    let shifts = (0..SAMPLES).map(|i| {
        let (a, b) = (before.get(SampleId::new(i)), expected.get(SampleId::new(i)));
        1.0 - a.iter().zip(b.iter()).map(|(a, b)| f64::from(a * b)).sum::<f64>()
    });
    let shift = shifts.sum::<f64>() / SAMPLES as f64;
    assert!((drift.cosine_shift - shift).abs() < 1e-5, "{drift:?} {shift}");
    assert!(drift.overlap > 0.3 && drift.overlap < 1.0, "{drift:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_drift_is_skipped_and_counted() {
    let encoder = Trained::new();
    let stream = start(&encoder, RefreshConfig { min_drift: 0.03, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    encoder.train();
    let refreshed = handle.refresh_now().await.unwrap();
    // The graph is drawn anew, as the paper does, but by the old embeddings.
    assert!(refreshed.drift.unwrap().cosine_shift < 0.03);
    assert_eq!((refreshed.model_version, encoder.calls.load(Relaxed)), (ModelVersion(1), 2));
    // Drift adds up: it is measured against the model in use.
    for _ in 0..9 {
        encoder.train();
    }
    assert_eq!(handle.refresh_now().await.unwrap().model_version, ModelVersion(2));

    // A graph of all nearest neighbors would be the same again.
    let builder = builder(&Trained::new(), RefreshConfig::default()).graph(graph_config(SAMPLES, 10));
    let stream = builder.start().await.unwrap();
    assert!(stream.handle().refresh_now().await.unwrap().skipped);
    assert_eq!(stream.handle().counts().skipped, 1);
    assert_eq!(stream.snapshot().graph_version(), GraphVersion(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_refresh_leaves_the_old_snapshot() {
    let encoder = Trained::new();
    let mut stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    let before = stream.snapshot();
    encoder.train();
    for (number, fault, expected) in [
        (1, UNREADABLE, "encoder `trained` failed: it is cut short"),
        (2, OTHER_DIMENSION, "encoder `trained` gives vectors of 9 numbers where the run has 8"),
        (3, NOT_FINITE, "sample 77 cannot be encoded: column `n` gives a vector whose component 3 is NaN"),
    ] {
        encoder.fault.store(fault, Relaxed);
        let error = handle.refresh_now().await.unwrap_err().to_string();
        let failed = format!("the refresh at step {} failed ({number} in a row): ", number - 1);
        assert!(error.contains(expected) && error.starts_with(&failed), "{error}");
        assert!(Arc::ptr_eq(&before, &stream.snapshot()));
        assert_eq!(stream.next().await.unwrap().unwrap().model_version, ModelVersion(1));
    }
    assert_eq!((handle.counts().failed, handle.counts().published), (3, 0));
    encoder.fault.store(0, Relaxed);
    assert_eq!(handle.refresh_now().await.unwrap().model_version, ModelVersion(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_fails_after_so_many_failures_in_a_row_if_asked_to() {
    let encoder = Trained::new();
    let on_error = OnRefreshError::Fail;
    let stream = start(&encoder, RefreshConfig { on_error, max_failures: 3, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    for round in 0..2 {
        encoder.train();
        encoder.fault.store(UNREADABLE, Relaxed);
        for _ in 0..2 + round {
            handle.refresh_now().await.unwrap_err();
        }
        encoder.fault.store(0, Relaxed);
        if round == 0 {
            handle.refresh_now().await.unwrap();
        }
    }
    let items: Vec<_> = stream.collect().await;
    let error = items.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(error.contains("failed (3 in a row): encoder `trained` failed"), "{error}");
    assert!(matches!(handle.refresh_now().await.unwrap_err(), Error::Cancelled));
}

/// On one thread whose clock stands still but for idle moments: nothing but the trigger moves.
#[tokio::test(start_paused = true)]
async fn delivered_mini_batches_start_a_refresh() {
    let config = RefreshConfig { every_steps: Some(9), ..RefreshConfig::default() };
    let mut stream = start(&Trained::new(), config).await;
    let handle = stream.handle();
    for round in 0..3 {
        for _ in 0..8 {
            stream.next().await.unwrap().unwrap();
        }
        // However long the trainer takes, and however much is made ahead of it.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(handle.counts().published, round);
        stream.next().await.unwrap().unwrap();
        until_paused("a refresh", || handle.counts().published == round + 1).await;
        assert_eq!(stream.snapshot().graph_version().0, round + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_starts_a_refresh() {
    let stream = start(&Trained::new(), RefreshConfig::default()).await;
    let handle = stream.handle();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((handle.counts().published, handle.progress()), (0, None));
    let (one, other) = tokio::join!(handle.refresh_now(), handle.refresh_now());
    let versions = (one.unwrap().graph_version, other.unwrap().graph_version);
    assert_eq!((versions, handle.counts().published), ((GraphVersion(2), GraphVersion(3)), 2));
}

#[tokio::test(start_paused = true)]
async fn a_model_file_starts_a_refresh() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.onnx");
    std::fs::write(&file, "model 0").unwrap();
    let encoder = Trained { file: Some(file.clone()), ..Trained::new() };
    let stream = start(&encoder, RefreshConfig { watch_model: true, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(handle.counts(), RefreshCounts::default());
    encoder.train();
    std::fs::write(dir.path().join("model.tmp"), "model 1").unwrap();
    std::fs::rename(dir.path().join("model.tmp"), &file).unwrap();
    while handle.counts().published == 0 {
        // The watcher's thread knows no paused clock.
        std::thread::sleep(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(stream.snapshot().model_version(), ModelVersion(2));
}

/// Each trigger works beside the others.
#[tokio::test(start_paused = true)]
async fn triggers_combine() {
    let config = RefreshConfig { every_steps: Some(5), every_seconds: Some(60.0), ..RefreshConfig::default() };
    let _busy = busy();
    let mut stream = start(&Trained::new(), config).await;
    let handle = stream.handle();
    handle.refresh_now().await.unwrap();
    for _ in 0..5 {
        stream.next().await.unwrap().unwrap();
    }
    until_paused("a refresh by steps", || handle.counts().published == 2).await;
    // A minute after the last refresh began, whatever started it.
    tokio::time::advance(Duration::from_secs(59)).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.counts().published, 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    until_paused("a refresh by time", || handle.counts().published == 3).await;
}

/// A refresh tells how far it is, and how long each of its stages took.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_shows_its_progress() {
    let mut encoder = Trained::new();
    encoder.pause = Duration::from_millis(300);
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
    // One call for the probe, one for all samples.
    assert!(seconds.model >= 0.3 && seconds.encode >= 0.3, "{seconds:?}");
    assert!(seconds.total() >= 0.6 && seconds.checkpoint < 0.1, "{seconds:?}");
    assert_eq!(handle.progress(), None);
}

#[tokio::test(start_paused = true)]
async fn time_starts_a_refresh() {
    let _busy = busy();
    let stream = start(&Trained::new(), RefreshConfig { every_seconds: Some(10.0), ..RefreshConfig::default() }).await;
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

/// Written in pieces or renamed to its place: one refresh, once it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_model_file_starts_a_refresh_once_it_is_whole() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.onnx");
    std::fs::write(&file, "model 0").unwrap();
    let encoder = Trained { file: Some(file.clone()), ..Trained::new() };
    let stream = start(&encoder, RefreshConfig { watch_model: true, ..RefreshConfig::default() }).await;
    let handle = stream.handle();
    std::fs::write(dir.path().join("other.onnx"), "another").unwrap();

    encoder.train();
    for piece in 0..8 {
        std::fs::write(&file, "model 1"[..piece.min(7)].repeat(3)).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(encoder.openings.load(Relaxed), 0, "it was opened while it was written");
    }
    until("a refresh", || handle.counts().published == 1).await;
    assert_eq!(stream.snapshot().model_version(), ModelVersion(2));

    encoder.train();
    std::fs::write(dir.path().join("model.tmp"), "model 2").unwrap();
    std::fs::rename(dir.path().join("model.tmp"), &file).unwrap();
    until("a refresh", || handle.counts().published == 2).await;
    assert_eq!(stream.snapshot().model_version(), ModelVersion(3));
    assert_eq!(encoder.openings.load(Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_refresh_is_cancelled_if_asked_to() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("model.onnx");
    std::fs::write(&file, "model 0").unwrap();
    let mut encoder = Trained { file: Some(file.clone()), ..Trained::new() };
    encoder.pause = Duration::from_millis(1500);
    let config = RefreshConfig { watch_model: true, on_newer_model: OnNewerModel::Restart, ..RefreshConfig::default() };
    let stream = start(&encoder, config).await;
    let handle = stream.handle();
    let pushed = vec![1.0; DIMENSION];
    encoder.train();
    let (first, second) = tokio::join!(handle.refresh_now(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        encoder.train();
        std::fs::write(&file, "model 2").unwrap();
        handle.push_embeddings(&[SampleId(3)], &pushed)
    });
    assert!(matches!(first.unwrap_err(), Error::Cancelled));
    second.unwrap();
    until("the restarted refresh", || handle.counts().published == 1).await;
    assert_eq!((handle.counts().cancelled, handle.counts().failed), (1, 0));
    let all = Trained::vectors(2, 2 * SAMPLES);
    let newest = EmbeddingTable::new(all, DIMENSION, Similarity::Cosine, ModelVersion(2)).unwrap();
    assert_eq!(stream.snapshot().embeddings.get(SampleId(9)), newest.get(SampleId(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_vectors_take_the_place_of_embeddings() {
    let encoder = Trained::new();
    let mut stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    let passes = encoder.calls.load(Relaxed);
    let take = async |stream: &mut MiniBatchStream, n| stream.take(n).try_collect::<Vec<_>>().await.unwrap();
    take(&mut stream, 10).await;
    let new = vectors(SAMPLES, DIMENSION, 5, 9);
    let ids: Vec<_> = (100..500).map(SampleId).collect();
    handle.push_embeddings(&ids, &new[100 * DIMENSION..500 * DIMENSION]).unwrap();
    take(&mut stream, 20).await;
    // The later of two pushes for a sample counts.
    handle
        .push_embeddings(
            &[SampleId(499), SampleId(0)],
            &[new[499 * DIMENSION..500 * DIMENSION].to_vec(), new[..DIMENSION].to_vec()].concat(),
        )
        .unwrap();

    for (ids, vectors, expected) in [
        (vec![SampleId(0)], vec![1.0; DIMENSION + 1], "9 numbers do not make whole rows of 8"),
        (vec![SampleId(SAMPLES as u32)], vec![1.0; DIMENSION], "sample 600 does not exist"),
        (vec![SampleId(5)], vec![f32::NAN; DIMENSION], "the embedding of sample 5 is not finite"),
        (vec![SampleId(6)], vec![0.0; DIMENSION], "the embedding of sample 6 has length 0"),
    ] {
        let error = handle.push_embeddings(&ids, &vectors).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.pushed, refreshed.model_version), (401, ModelVersion(2)));
    assert_eq!(encoder.calls.load(Relaxed), passes, "no inference");
    let mut expected = Trained::vectors(0, 2 * SAMPLES)[..SAMPLES * DIMENSION].to_vec();
    for i in (100..500).chain([0]) {
        expected[i * DIMENSION..(i + 1) * DIMENSION].copy_from_slice(&new[i * DIMENSION..(i + 1) * DIMENSION]);
    }
    let expected = EmbeddingTable::new(expected, DIMENSION, Similarity::Cosine, ModelVersion(2)).unwrap();
    let snapshot = stream.snapshot();
    assert_eq!(*snapshot.embeddings, expected);
    // At step 50: 199 made at the start, 399 pushed at step 10, two at step 30.
    let age = snapshot.age(50);
    assert!((age.mean - (199.0 * 50.0 + 399.0 * 40.0 + 2.0 * 20.0) / 600.0).abs() < 1e-9, "{age:?}");
    assert_eq!((age.p95, age.never_pushed), (50, 199));
    // Mini-batches tell their own samples' age, once those that were ready are gone.
    let later = take(&mut stream, 20).await.pop().unwrap();
    let made = |id: &SampleId| match id.0 {
        0 | 499 => 30,
        100..499 => 10,
        _ => 0,
    };
    let ages: u64 = later.ids.iter().map(|id| later.step - made(id)).sum();
    assert_eq!(later.staleness, ages / later.ids.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_join_at_a_refresh_and_the_next_epoch() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("b.parquet"), &rows(SAMPLES), 100);
    let builder = Pipeline::builder()
        .source(FileSource::open(dir.path().display().to_string()).await.unwrap())
        .encoder(Trained::new())
        .graph(graph_config(40, 10))
        .walk(walk_config(20))
        .stream(StreamConfig { epochs: 2, ..StreamConfig::default() });
    let mut stream = builder.start().await.unwrap();
    stream.next().await.unwrap().unwrap();
    write_parquet(&dir.path().join("a.parquet"), &rows(SAMPLES + 250).slice(SAMPLES, 250), 100);
    let refreshed = stream.handle().refresh_now().await.unwrap();
    assert_eq!((refreshed.added, stream.samples(), refreshed.model_version), (250, 850, ModelVersion(1)));
    let all = Trained::vectors(0, 2 * SAMPLES);
    let expected = EmbeddingTable::new(all, DIMENSION, Similarity::Cosine, ModelVersion(1)).unwrap();
    assert_eq!(stream.snapshot().embeddings.get(SampleId(849)), expected.get(SampleId(849)));

    let mut epochs = [HashSet::new(), HashSet::new()];
    let (mut drawn, mut versions) = ([20, 0], HashSet::new());
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        let epoch = mini_batch.epoch as usize;
        let numbers = mini_batch.rows["n"].as_primitive::<UInt32Type>().values();
        assert!(mini_batch.ids.iter().zip(numbers).all(|(id, n)| id.0 == *n));
        drawn[epoch] += mini_batch.ids.len();
        epochs[epoch].extend(mini_batch.ids);
        versions.insert(mini_batch.graph_version);
    }
    assert_eq!((drawn, epochs[1].len(), versions.len()), ([SAMPLES, 850], 850, 2));
    assert_eq!(stream.delivered(), 30 + 43);

    std::fs::remove_file(dir.path().join("b.parquet")).unwrap();
}

/// Every mini-batch comes from one snapshot whole, whenever the swaps happen.
#[tokio::test(flavor = "multi_thread")]
async fn swaps_are_atomic() {
    let encoder = Trained::new();
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
    let tables: Vec<_> = (0..13)
        .map(|version| {
            let all = Trained::vectors(version, 2 * SAMPLES)[..SAMPLES * DIMENSION].to_vec();
            EmbeddingTable::new(all, DIMENSION, Similarity::Cosine, ModelVersion(version + 1)).unwrap()
        })
        .collect();
    let mut versions = HashSet::new();
    while !refresher.is_finished() {
        let mini_batch = stream.try_next().await.unwrap().unwrap();
        assert_eq!(mini_batch.graph_version.0, mini_batch.model_version.0);
        let table = &tables[mini_batch.model_version.0 as usize - 1];
        assert_eq!(mini_batch.similarity, table.mean_similarity(&mini_batch.ids));
        versions.insert(mini_batch.graph_version);
    }
    refresher.await.unwrap();
    assert!(versions.len() > 3, "{versions:?}");
}

/// With `swap_after_steps` a run is the same whatever the pace of trainer and refreshes.
#[tokio::test(flavor = "multi_thread")]
async fn swaps_at_steps_make_runs_reproducible() {
    let run = async |swap_after_steps: u64, pause: fn(u64) -> u64, slow: u64| {
        let mut encoder = Trained::new();
        encoder.pause = Duration::from_millis(slow);
        let config = RefreshConfig {
            every_steps: Some(10),
            swap_after_steps: Some(swap_after_steps),
            ..RefreshConfig::default()
        };
        let mut stream = builder(&encoder, config).start().await.unwrap();
        let mut all = Vec::new();
        while let Some(mini_batch) = stream.try_next().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(pause(mini_batch.step))).await;
            all.push((mini_batch.ids, mini_batch.graph_version.0));
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

/// A stream that is dropped while a refresh runs leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_ends_its_refresh() {
    let mut encoder = Trained::new();
    encoder.pause = Duration::from_millis(40);
    let big = 30 * 8192;
    // Each call is a record batch of 8,192 rows: thirty to a pass.
    struct Repeated(Trained);
    impl Encoder for Repeated {
        fn name(&self) -> &str {
            "repeated"
        }
        fn columns(&self) -> &[String] {
            &self.0.columns
        }
        fn dimension(&self) -> usize {
            2
        }
        fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
            Ok(Some(Arc::new(Self(self.0.clone()))))
        }
        fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
            self.0.calls.fetch_add(1, Relaxed);
            if self.0.calls.load(Relaxed) > 30 {
                std::thread::sleep(self.0.pause);
            }
            let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
            numbers.iter().zip(vectors.chunks_exact_mut(2)).for_each(|(&n, v)| v.copy_from_slice(&[1.0, n as f32]));
            Ok(())
        }
    }
    let repeated = Arc::new(Repeated(encoder.clone()));
    let alive = Arc::downgrade(&repeated);
    let builder = Pipeline::builder().source(source(big)).encoder(repeated).walk(walk_config(64));
    let stream =
        builder.graph(GraphConfig { candidates: 8, neighbors: 2, ..GraphConfig::default() }).start().await.unwrap();
    let handle = stream.handle();
    let call = tokio::spawn(async move { handle.refresh_now().await });
    until("the refresh", || encoder.calls.load(Relaxed) > 35).await;
    drop(stream);
    assert!(matches!(call.await.unwrap().unwrap_err(), Error::Cancelled));
    until("the end of the work", || alive.strong_count() == 0).await;
    assert!(encoder.calls.load(Relaxed) < 55, "it went on to the end");
}
