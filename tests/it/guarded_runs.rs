//! A run under guards goes on where it was, is refused if no mini-batch of it can be full, and says which stay short.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use prosampler::config::{CheckpointConfig, GuardsConfig, RefreshConfig, StreamConfig, WalkConfig};
use prosampler::error::ColumnError;
use prosampler::source::MemorySource;
use prosampler::walk::WalkCounts;
use prosampler::{Error, Pipeline, PipelineBuilder, PipelineConfig};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{TestEncoder, graph_config, path, rows, walk_config, write_parquet};

const SAMPLES: usize = 700;

/// Rows of which each three share a group, embedded and guarded, with refreshes at known steps and negatives.
fn guarded(dir: Option<&std::path::Path>) -> PipelineBuilder {
    let batch = rows(SAMPLES);
    let thirds: ArrayRef = Arc::new(Int32Array::from_iter_values((0..SAMPLES as i32).map(|i| i / 3)));
    let columns = [("n", batch["n"].clone()), ("text", batch["text"].clone()), ("third", thirds)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    Pipeline::builder()
        .source(MemorySource::new(vec![batch]).unwrap())
        .encoder(TestEncoder::new(SAMPLES))
        .graph(graph_config(40, 10))
        .walk(WalkConfig { negatives: 2, ..walk_config(24) })
        .guards(GuardsConfig {
            distinct: vec!["third".into()],
            max_similarity: Some(0.97),
            skip_nearest: 1,
            ..GuardsConfig::default()
        })
        .refresh(RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() })
        .stream(StreamConfig { epochs: 2, prefetch: 3, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: dir.map(Into::into), ..CheckpointConfig::default() })
        .seed(7)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_run_is_resumed_bit_for_bit() {
    let whole: Vec<_> = guarded(None).start().await.unwrap().try_collect().await.unwrap();
    assert!(whole.len() >= 58, "{}", whole.len());
    for mini_batch in &whole {
        let thirds: HashSet<_> = mini_batch.ids.iter().map(|id| id.index() / 3).collect();
        assert_eq!(thirds.len(), mini_batch.ids.len());
        assert!(mini_batch.negatives.iter().flatten().all(|id| !thirds.contains(&(id.index() / 3))));
    }
    let mut generator = ChaCha8Rng::seed_from_u64(2);
    let dir = TempDir::new().unwrap();
    let (mut all, mut state) = (Vec::new(), None);
    loop {
        let builder = guarded(Some(dir.path()));
        let mut stream = match state.take() {
            Some(state) => builder.resume(state),
            None => builder,
        }
        .start()
        .await
        .unwrap();
        let before = all.len();
        for _ in 0..generator.random_range(1..15) {
            all.extend(stream.try_next().await.unwrap());
        }
        state = Some(stream.state());
        if all.len() == before {
            break;
        }
    }
    let ids =
        |all: &[prosampler::MiniBatch]| all.iter().map(|m| (m.ids.clone(), m.negatives.clone())).collect::<Vec<_>>();
    assert!(ids(&all) == ids(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_values_are_refused_and_too_few_places_are_counted() {
    let labelled = |values: i32, batch_size: usize| {
        let batch = rows(SAMPLES);
        let labels: ArrayRef = Arc::new(Int32Array::from_iter_values((0..SAMPLES as i32).map(|i| i % values)));
        let batch = RecordBatch::try_from_iter([("n", batch["n"].clone()), ("label", labels)]).unwrap();
        Pipeline::builder()
            .source(MemorySource::new(vec![batch]).unwrap())
            .encoder(TestEncoder::new(SAMPLES))
            .graph(graph_config(40, 10))
            .walk(walk_config(batch_size))
            .guards(GuardsConfig { distinct: vec!["label".into()], ..GuardsConfig::default() })
    };
    match labelled(5, 24).start().await {
        Err(error @ Error::Config(_)) => {
            let message = error.to_string();
            assert!(message.contains("`label` has 5 values") && message.contains("walk.batch_size to 5"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let missing = labelled(5, 4).guards(GuardsConfig { distinct: vec!["labels".into()], ..GuardsConfig::default() });
    assert!(matches!(missing.start().await, Err(Error::Column(ColumnError::Missing { .. }))));
    // With 5 labels of 140 samples each and 175 mini-batches of 4, all samples are drawn.
    let mut stream = labelled(5, 4).start().await.unwrap();
    let mut samples = 0;
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        samples += mini_batch.ids.len();
    }
    assert_eq!((samples, stream.delivered(), stream.counts().unplaced), (SAMPLES, 175, 0));
    // If a label has half of the samples, and mini-batches are of 4, half of these have no place.
    let batch = rows(SAMPLES);
    let labels: ArrayRef =
        Arc::new(Int32Array::from_iter_values((0..SAMPLES as i32).map(|i| if i % 2 == 0 { -1 } else { i })));
    let batch = RecordBatch::try_from_iter([("n", batch["n"].clone()), ("label", labels)]).unwrap();
    let source = MemorySource::new(vec![batch]).unwrap();
    let mut stream = labelled(5, 4).source(source).start().await.unwrap();
    let mut samples = 0;
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        samples += mini_batch.ids.len();
    }
    assert_eq!(stream.counts().unplaced, (SAMPLES - samples) as u64);
    // One is in every mini-batch until the 350 others are used up, three at a time.
    assert_eq!((samples, stream.delivered()), (350 + 117, 117));
}

/// If one label has half of the rows, mini-batches stay short. A warning says so once, and the empty places are counted
/// in each mini-batch and in total.
#[tokio::test(flavor = "multi_thread")]
async fn short_mini_batches_are_warned_of_and_counted() {
    let dir = TempDir::new().unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..120).map(|i| format!("a text about number {i}"))));
    let labels: ArrayRef = Arc::new(Int32Array::from_iter_values((0..120).map(|i| if i < 60 { -1 } else { i })));
    let batch = RecordBatch::try_from_iter([("text", texts), ("label", labels)]).unwrap();
    write_parquet(&dir.path().join("rows.parquet"), &batch, 120);
    let text = format!(
        "source.uri = 'rows.parquet'\nencode = {{ model = '{}', column = 'text' }}\n\
         graph = {{ candidates = 60, neighbors = 8 }}\nguards.distinct = ['label']\n\
         walk = {{ batch_size = 8, restart_probability = 0.99 }}\nstream.epochs = 3\n",
        path("data/models/gloss-encoder/model.onnx").display()
    );
    let file = dir.path().join("p.toml");
    std::fs::write(&file, text).unwrap();

    let mut stream = Pipeline::from_config(PipelineConfig::from_file(&file).unwrap()).start().await.unwrap();
    let (mut counts, mut short) = (WalkCounts::default(), 0);
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        assert_eq!(mini_batch.counts.short as usize, 8 - mini_batch.ids.len());
        assert!(mini_batch.counts.refused_distinct > 0 || mini_batch.ids.len() == 8, "{:?}", mini_batch.counts);
        short += u64::from(mini_batch.counts.short > 0);
        counts += mini_batch.counts;
    }
    assert_eq!(stream.counts().walks, counts);
    assert!(short > 1 && counts.refused() == counts.refused_distinct + counts.refused_duplicates, "{counts:?}");

    let command = std::process::Command::new(env!("CARGO_BIN_EXE_prosampler")).arg("run").arg(&file).output().unwrap();
    let [said, warned] = [command.stdout, command.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(warned.matches("guards left a mini-batch short").count(), 1, "{warned}");
    let empty = format!(
        "{} with the same value, 0 nearest, 0 similar, 0 relative to pairs; {} places left empty",
        counts.refused_distinct, counts.short
    );
    assert!(said.contains(&empty), "{empty} is missing in {said}");
}
