//! Epochs of one length on all hosts, whatever guards keep out and whatever cannot be embedded.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{
    CheckpointConfig, EncodeConfig, GuardsConfig, OnBadSample, PipelineConfig, RefreshConfig, ShardConfig, StreamConfig,
};
use prosampler::source::MemorySource;
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineBuilder, SampleId};
use tempfile::TempDir;

use crate::support::{TestEncoder, graph_config, take, walk_config};

const SAMPLES: u32 = 1200;
const BATCH: usize = 16;
const HOSTS: usize = 3;

/// A third of the rows have topic 0, of which a mini-batch may have one; each other row has its own.
fn topic(n: u32) -> u32 {
    if n.is_multiple_of(3) { 0 } else { n }
}

fn host(index: usize, folder: Option<PathBuf>) -> PipelineBuilder {
    run(ShardConfig { by: Some("n".into()), index, count: HOSTS, seed: 0 }, folder)
}

fn run(shard: ShardConfig, folder: Option<PathBuf>) -> PipelineBuilder {
    let column = |of: fn(u32) -> u32| Arc::new(UInt32Array::from_iter_values((0..SAMPLES).map(of))) as ArrayRef;
    let rows = RecordBatch::try_from_iter([("n", column(|n| n)), ("topic", column(topic))]).unwrap();
    Pipeline::from_config(PipelineConfig { shard, seed: 5, ..PipelineConfig::default() })
        .source(MemorySource::new(vec![rows]).unwrap())
        .encoder(TestEncoder::new(SAMPLES as usize))
        .graph(graph_config(60, 12))
        .walk(walk_config(BATCH))
        .refresh(RefreshConfig { every_steps: Some(11), swap_after_steps: Some(3), ..RefreshConfig::default() })
        .stream(StreamConfig { epochs: 3, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: folder, ..CheckpointConfig::default() })
}

fn guarded(host: PipelineBuilder) -> PipelineBuilder {
    host.guards(GuardsConfig { distinct: vec!["topic".into()], ..GuardsConfig::default() })
}

fn numbers(mini_batch: &MiniBatch) -> Vec<u32> {
    mini_batch.rows["n"].as_primitive::<UInt32Type>().values().to_vec()
}

/// The mini-batches of each epoch.
fn by_epoch(mini_batches: &[MiniBatch]) -> Vec<&[MiniBatch]> {
    mini_batches.chunk_by(|a, b| a.epoch == b.epoch).collect()
}

#[tokio::test]
async fn guards_end_no_host_s_epoch_before_the_others() {
    let mut streams = Vec::new();
    for index in 0..HOSTS {
        streams.push(guarded(host(index, None)).start().await.unwrap());
    }
    let epoch_samples = streams.iter().map(MiniBatchStream::samples).min().unwrap();
    for mut stream in streams {
        assert_eq!(stream.mini_batches_per_epoch(), epoch_samples.div_ceil(BATCH) as u64);
        let mut mini_batches = Vec::new();
        while let Some(mini_batch) = stream.try_next().await.unwrap() {
            mini_batches.push(mini_batch);
        }
        let (mut repeated, mut unplaced) = (0, 0);
        for epoch in by_epoch(&mini_batches) {
            assert_eq!(epoch.len(), epoch_samples.div_ceil(BATCH));
            let mut seen = HashSet::new();
            // Until nothing may join any more, samples come once.
            let again = epoch.iter().position(|mini_batch| numbers(mini_batch).into_iter().any(|n| !seen.insert(n)));
            let again = again.expect("a third of the samples cannot come one a mini-batch");
            repeated += epoch.len() - again;
            let once: HashSet<_> = epoch[..again].iter().flat_map(numbers).collect();
            unplaced += epoch_samples - once.len();
            for mini_batch in epoch {
                let topics: HashSet<_> = numbers(mini_batch).into_iter().map(topic).collect();
                assert_eq!(topics.len(), mini_batch.ids.len(), "guards hold in what is repeated, too");
            }
        }
        let counts = stream.counts();
        assert!(repeated >= 3 && unplaced > 100, "{repeated} {unplaced}");
        assert_eq!((counts.repeated, counts.unplaced), (repeated as u64, unplaced as u64));
    }
}

#[tokio::test]
async fn samples_without_an_embedding_end_no_epoch_before_the_others() {
    let mut lengths = HashSet::new();
    for index in 0..HOSTS {
        let skip = EncodeConfig { on_bad_sample: OnBadSample::Skip, ..EncodeConfig::default() };
        let bad = TestEncoder::new(SAMPLES as usize).skipping(|n| n % 5 == 1);
        let stream = host(index, None).encode(skip).encoder(bad).start().await.unwrap();
        let mini_batches: Vec<MiniBatch> = stream.try_collect().await.unwrap();
        assert!(mini_batches.iter().flat_map(numbers).all(|n| n % 5 != 1));
        lengths.extend(by_epoch(&mini_batches).into_iter().map(<[MiniBatch]>::len));
    }
    assert_eq!(lengths.len(), 1, "{lengths:?}");
}

/// Also from mini-batches of samples that the epoch has had, and where another graph comes into use among these.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_resumed_at_every_step() {
    let dir = TempDir::new().unwrap();
    let start = |name: &str| guarded(host(1, Some(dir.path().join(name))));
    let seen = |m: MiniBatch| -> (u64, u64, Vec<SampleId>) { (m.step, m.epoch, m.ids) };
    let mut stream = start("whole").start().await.unwrap();
    let whole: Vec<_> = take(&mut stream, usize::MAX).await.into_iter().map(seen).collect();
    let unplaced = stream.counts().unplaced;
    for step in 0..whole.len() {
        let name = step.to_string();
        let mut stream = start(&name).start().await.unwrap();
        let mut taken = take(&mut stream, step).await;
        let (state, before) = (stream.state(), stream.counts().unplaced);
        drop(stream);
        let mut stream = start(&name).resume(state).start().await.unwrap();
        assert_eq!(stream.mini_batches_per_epoch() as usize * 3, whole.len());
        taken.extend(take(&mut stream, usize::MAX).await);
        let taken: Vec<_> = taken.into_iter().map(seen).collect();
        assert!(taken == whole, "from step {step}");
        assert!(before + stream.counts().unplaced >= unplaced, "from step {step}");
    }
}

/// Without shards, epochs end where nothing may join any more, and have no sample twice.
#[tokio::test]
async fn one_host_s_epochs_have_no_sample_twice() {
    let mut stream = guarded(run(ShardConfig::default(), None)).start().await.unwrap();
    let mut mini_batches = Vec::new();
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        mini_batches.push(mini_batch);
    }
    for epoch in by_epoch(&mini_batches) {
        let mut seen = HashSet::new();
        assert!(epoch.iter().flat_map(numbers).all(|n| seen.insert(n)));
        assert!((epoch.len() as u64) < stream.mini_batches_per_epoch());
    }
    assert_eq!(stream.counts().repeated, 0);
}
