//! A run that begins with a warm-up: uniform mini-batches, and a first snapshot that is made meanwhile or after it.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};

use futures::TryStreamExt;
use prosampler::arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use prosampler::config::{
    CheckpointConfig, FirstRefresh, GuardsConfig, OnBadSample, RefreshConfig, SamplerKind, StreamConfig, WalkConfig,
    WarmUp,
};
use prosampler::source::MemorySource;
use prosampler::walk::{EpochSampler, Groups, Guards};
use prosampler::{Error, MiniBatch, MiniBatchStream, PipelineBuilder, SampleId, State};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{TestEncoder, pipeline, rows, walk_config};

const SAMPLES: usize = 600;
const BATCH_SIZE: usize = 20;
const PER_EPOCH: u64 = 30;

/// The steps of the warm-up, or its epochs.
const WARM_UPS: [WarmUp; 2] = [WarmUp::Steps(10), WarmUp::Epochs(1)];

fn steps_of(warm_up: WarmUp) -> u64 {
    if warm_up == WarmUp::Steps(10) { 10 } else { PER_EPOCH }
}

fn walk(warm_up: WarmUp) -> WalkConfig {
    WalkConfig { warm_up: Some(warm_up), ..walk_config(BATCH_SIZE) }
}

fn builder(warm_up: WarmUp, first: FirstRefresh) -> PipelineBuilder {
    let refresh = RefreshConfig { first, ..RefreshConfig::default() };
    let stream = StreamConfig { epochs: 3, ..StreamConfig::default() };
    pipeline(SAMPLES, BATCH_SIZE).walk(walk(warm_up)).refresh(refresh).stream(stream)
}

async fn take(stream: &mut MiniBatchStream, n: u64) -> Vec<MiniBatch> {
    let mut all = Vec::new();
    while (all.len() as u64) < n
        && let Some(mini_batch) = stream.try_next().await.unwrap()
    {
        all.push(mini_batch);
    }
    all
}

fn ids(all: &[MiniBatch]) -> Vec<Vec<SampleId>> {
    all.iter().map(|one| one.ids.clone()).collect()
}

/// Whether each sample is there once.
fn is_all(mut ids: Vec<SampleId>) -> bool {
    ids.sort_unstable();
    ids == (0..SAMPLES).map(SampleId::new).collect::<Vec<_>>()
}

/// The first mini-batches of a uniform sampler with the seed of `pipeline`.
fn uniform(n: u64) -> Vec<Vec<SampleId>> {
    let config = WalkConfig { sampler: SamplerKind::Uniform, ..walk_config(BATCH_SIZE) };
    let mut epoch = EpochSampler::new(SAMPLES, &config, 7, 0);
    let guards = Guards::of_groups(&GuardsConfig::default(), Groups::default().into());
    (0..n).map(|_| epoch.next_uniform(&guards).unwrap().ids).collect()
}

/// Holds an encoder back until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn training_begins_before_anything_is_embedded() {
    for warm_up in WARM_UPS {
        let gate = Arc::new(Gate::default());
        let held = gate.clone();
        let encoder = TestEncoder::new(SAMPLES).before_each_call(move |_| held.pass());
        let mut stream = builder(warm_up, FirstRefresh::Start).encoder(encoder).start().await.unwrap();
        assert_eq!((stream.samples(), stream.mini_batches_per_epoch()), (SAMPLES, PER_EPOCH));
        let warm = take(&mut stream, steps_of(warm_up)).await;
        assert!(ids(&warm) == uniform(steps_of(warm_up)));
        for one in &warm {
            assert!(one.is_warm_up);
            assert_eq!((one.model_version, one.graph_version, one.staleness, one.similarity), (None, None, None, None));
            let batch = one.to_record_batch().unwrap();
            for column in ["model_version", "graph_version", "staleness", "similarity"] {
                assert_eq!(batch[column].null_count(), BATCH_SIZE, "{column}");
            }
        }
        assert!(stream.snapshot().is_none());

        // The walk begins at exactly this step, and waits for the graph.
        let next = tokio::time::timeout(std::time::Duration::from_millis(50), stream.try_next()).await;
        assert!(next.is_err(), "a mini-batch without a graph");
        gate.open();
        let walked = take(&mut stream, u64::MAX).await;
        assert_eq!(walked[0].step, steps_of(warm_up));
        assert!(walked.iter().all(|one| !one.is_warm_up && one.graph_version.is_some() && one.similarity.is_some()));
        assert_eq!(stream.counts().warm_up, steps_of(warm_up));
        let snapshot = stream.snapshot().unwrap();
        let mean = |all: &[MiniBatch]| {
            let sum: f32 = all.iter().map(|one| snapshot.embeddings.mean_similarity(&one.ids)).sum();
            sum / all.len() as f32
        };
        assert!(mean(&walked) > mean(&warm) + 0.1, "{} and {}", mean(&walked), mean(&warm));
        // Every epoch has every sample once.
        let all = ids(&[warm, walked].concat());
        for epoch in all.chunks(PER_EPOCH as usize) {
            assert!(is_all(epoch.concat()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_embeddings_come_from_the_warmed_up_model() {
    for warm_up in WARM_UPS {
        let encoder = TestEncoder::new(SAMPLES);
        let mut stream = builder(warm_up, FirstRefresh::AfterWarmUp).encoder(encoder.clone()).start().await.unwrap();
        take(&mut stream, steps_of(warm_up) - 1).await;
        encoder.train();
        assert_eq!(encoder.calls.load(Relaxed), 0);
        assert_eq!(take(&mut stream, 1).await[0].similarity, None);
        let pushed: Vec<f32> = (0..8).map(|i| i as f32 + 1.0).collect();
        stream.handle().push_embeddings(&[SampleId(5)], &pushed).unwrap();

        let first = take(&mut stream, 1).await.remove(0);
        assert_eq!((encoder.calls.load(Relaxed), encoder.openings.load(Relaxed)), (1, 1));
        assert_eq!(first.staleness, Some(0));
        let snapshot = stream.snapshot().unwrap();
        let norm = pushed.iter().map(|x| x * x).sum::<f32>().sqrt();
        let expected: Vec<f32> = pushed.iter().map(|x| x / norm).collect();
        let mut found = [0.0; 8];
        snapshot.embeddings.read(SampleId(5), &mut found);
        assert_eq!(found[..], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_the_warm_up_makes_the_first_snapshot() {
    let mut stream = builder(WarmUp::Steps(10), FirstRefresh::AfterWarmUp).start().await.unwrap();
    take(&mut stream, 4).await;
    let refreshed = stream.handle().refresh_now().await.unwrap();
    assert_eq!((refreshed.graph_version.0, refreshed.skipped), (1, false));
    let warm = take(&mut stream, 6).await;
    assert!(warm.iter().all(|one| one.graph_version.is_none()));
    assert_eq!(take(&mut stream, 1).await[0].staleness, Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_uniformly_if_it_is_told_to() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let encoder = TestEncoder::new(SAMPLES).before_each_call(move |_| held.pass());
    let refresh = RefreshConfig { first: FirstRefresh::AfterWarmUp, wait_for_first: false, ..RefreshConfig::default() };
    let builder = builder(WarmUp::Steps(10), FirstRefresh::AfterWarmUp).encoder(encoder).refresh(refresh);
    let mut stream =
        builder.stream(StreamConfig { epochs: 1_000_000, ..StreamConfig::default() }).start().await.unwrap();
    let all = take(&mut stream, 25).await;
    assert!(ids(&all) == uniform(25));
    assert_eq!(all.iter().map(|one| one.is_warm_up).collect::<Vec<_>>(), (0..25).map(|i| i < 10).collect::<Vec<_>>());
    gate.open();
    while take(&mut stream, 1).await[0].graph_version.is_none() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_that_turn_out_bad_change_no_announced_length() {
    for warm_up in WARM_UPS {
        let encoder = TestEncoder::new(SAMPLES).skipping(|n| n % 10 == 0);
        let encode = prosampler::config::EncodeConfig { on_bad_sample: OnBadSample::Skip, ..Default::default() };
        let mut stream =
            builder(warm_up, FirstRefresh::AfterWarmUp).encoder(encoder).encode(encode).start().await.unwrap();
        let all = take(&mut stream, u64::MAX).await;
        let of_epoch = |epoch| all.iter().filter(move |one| one.epoch == epoch);
        // The epoch in which they are found has all samples.
        assert!(is_all(of_epoch(0).flat_map(|one| one.ids.clone()).collect()), "{warm_up:?}");
        assert_eq!(of_epoch(0).count() as u64, PER_EPOCH);
        for epoch in [1, 2] {
            let bad = of_epoch(epoch).flat_map(|one| &one.ids).filter(|id| id.0 % 10 == 0).count();
            assert_eq!((bad, of_epoch(epoch).map(|one| one.ids.len()).sum::<usize>()), (0, SAMPLES - 60));
        }
        assert_eq!(stream.skipped(), 60);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_snapshot_that_cannot_be_made_ends_the_run() {
    let encoder = TestEncoder::new(SAMPLES).altered(|_, n, vector| vector[0] = if n == 77 { f32::NAN } else { 1.0 });
    let mut stream = builder(WarmUp::Steps(10), FirstRefresh::AfterWarmUp).encoder(encoder).start().await.unwrap();
    take(&mut stream, 10).await;
    let error = stream.try_next().await.unwrap_err().to_string();
    assert!(error.contains("sample 77"), "{error}");
    assert!(stream.try_next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_that_need_no_embeddings_hold_in_the_warm_up() {
    let guards = GuardsConfig { distinct: vec!["group".into()], max_similarity: Some(0.9), ..GuardsConfig::default() };
    let rows = rows(SAMPLES);
    let group: ArrayRef = Arc::new(UInt32Array::from_iter_values((0..SAMPLES as u32).map(|n| n % 40)));
    let columns = [("n", rows["n"].clone()), ("text", rows["text"].clone()), ("group", group)];
    let source = MemorySource::new(vec![RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    let mut stream =
        builder(WarmUp::Steps(10), FirstRefresh::Start).source(source).guards(guards).start().await.unwrap();
    for one in take(&mut stream, u64::MAX).await {
        let mut groups: Vec<_> = one.ids.iter().map(|id| id.0 % 40).collect();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), one.ids.len(), "step {}", one.step);
    }
}

/// What must be the same in a resumed run.
type Seen = (u64, Option<u64>, Option<u64>, Option<f32>, Vec<SampleId>);

fn seen(all: &[MiniBatch]) -> Vec<Seen> {
    let version = |one: &MiniBatch| one.graph_version.map(|version| version.0);
    all.iter().map(|one| (one.step, version(one), one.staleness, one.similarity, one.ids.clone())).collect()
}

fn resumable(warm_up: WarmUp, first: FirstRefresh, dir: &Path) -> PipelineBuilder {
    let refresh = RefreshConfig { first, every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
    let checkpoint = CheckpointConfig { dir: Some(dir.into()), ..CheckpointConfig::default() };
    builder(warm_up, first).refresh(refresh).checkpoint(checkpoint)
}

/// Takes mini-batches, and pushes vectors that depend on the step alone after each.
async fn train(stream: &mut MiniBatchStream, n: u64) -> Vec<MiniBatch> {
    let mut all = Vec::new();
    while (all.len() as u64) < n {
        let Some(one) = take(stream, 1).await.pop() else { break };
        let step = stream.state().step;
        let mut generator = ChaCha8Rng::seed_from_u64(step);
        let ids: Vec<_> = (step as u32 % 5..SAMPLES as u32).step_by(5).map(SampleId).collect();
        let vectors: Vec<f32> = (0..ids.len() * 8).map(|_| generator.random_range(-1.0..1.0)).collect();
        stream.handle().push_embeddings(&ids, &vectors).unwrap();
        all.push(one);
    }
    // A refresh that fails leaves the old graph in use, and other mini-batches.
    assert_eq!(stream.handle().counts().failed, 0);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_resumed_exactly_at_every_step_of_its_warm_up_and_after_it() {
    for warm_up in WARM_UPS {
        for first in [FirstRefresh::Start, FirstRefresh::AfterWarmUp] {
            let dir = TempDir::new().unwrap();
            let start = resumable(warm_up, first, &dir.path().join("whole")).start();
            let whole = seen(&train(&mut start.await.unwrap(), u64::MAX).await);
            assert_eq!(whole.len() as u64, 3 * PER_EPOCH);
            assert!(whole.iter().any(|one| one.1 > Some(2)));

            // One run is interrupted after every mini-batch, and another after every third.
            for every in [1, 3] {
                let dir = dir.path().join(every.to_string());
                let (mut all, mut state): (Vec<Seen>, Option<State>) = (Vec::new(), None);
                while all.len() < whole.len() {
                    let builder = resumable(warm_up, first, &dir);
                    let builder = if let Some(state) = state { builder.resume(state) } else { builder };
                    let mut stream = builder.start().await.unwrap();
                    all.extend(seen(&train(&mut stream, every).await));
                    let now = stream.state();
                    assert_eq!(now.graph_version == 0, all.len() as u64 <= steps_of(warm_up));
                    stream.handle().keep(&now).await.unwrap();
                    state = Some(now);
                }
                let first_that_differs = all.iter().zip(&whole).find(|(resumed, whole)| resumed != whole);
                assert_eq!(first_that_differs, None, "{warm_up:?}, {first:?}, every {every}");
                assert_eq!(all.len(), whole.len());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_embeddings_vectors_are_checked_all_the_same() {
    let stream = builder(WarmUp::Steps(10), FirstRefresh::AfterWarmUp).start().await.unwrap();
    let handle = stream.handle();
    let refused = |ids: &[SampleId], vectors: &[f32]| handle.push_embeddings(ids, vectors).unwrap_err().kind();
    assert_eq!(refused(&[SampleId(600)], &[1.0; 8]), prosampler::ErrorKind::Argument);
    assert_eq!(refused(&[SampleId(5)], &[1.0; 7]), prosampler::ErrorKind::Argument);
    assert_eq!(refused(&[SampleId(5)], &[f32::NAN; 8]), prosampler::ErrorKind::Encode);
    assert!(matches!(handle.refresh_now().await, Ok(_) | Err(Error::Cancelled)));
}
