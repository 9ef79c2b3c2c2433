//! Rows with several positives: one is drawn an epoch, all count as positives, and their vectors are averaged.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, ListArray, RecordBatch, StringArray, UInt32Array};
use prosampler::arrow::array::{ListBuilder, StringBuilder};
use prosampler::arrow::datatypes::{DataType, UInt32Type};
use prosampler::config::{
    CheckpointConfig, EncodeConfig, GraphOver, OnBadSample, PairsConfig, PipelineConfig, RefreshConfig, Several,
    StreamConfig, WalkConfig,
};
use prosampler::source::MemorySource;
use prosampler::{MiniBatch, Pipeline, PipelineBuilder, SampleId, encode};
use tempfile::TempDir;

use crate::support::{assert_says, graph_config, path, walk_config};

const ROWS: usize = 150;
/// A row without positives.
const EMPTY: usize = 33;

fn positives(row: usize) -> Vec<Option<String>> {
    match row {
        EMPTY => Vec::new(),
        // Some positives are those of other rows, too.
        _ => (0..1 + row % 4)
            .map(|n| (n != 2).then(|| format!("the answer {} number {n}", if n == 1 { row / 7 * 7 } else { row })))
            .collect(),
    }
}

fn texts(row: usize) -> HashSet<String> {
    positives(row).into_iter().flatten().collect()
}

fn anchor(row: usize) -> String {
    format!("question {row}")
}

fn rows() -> RecordBatch {
    let anchors = StringArray::from_iter_values((0..ROWS).map(anchor));
    let mut lists = ListBuilder::new(StringBuilder::new());
    (0..ROWS).for_each(|row| lists.append_value(positives(row)));
    let lists: ListArray = lists.finish();
    let numbers = UInt32Array::from_iter_values(0..ROWS as u32);
    RecordBatch::try_from_iter([
        ("question", Arc::new(anchors) as ArrayRef),
        ("answers", Arc::new(lists) as ArrayRef),
        ("n", Arc::new(numbers) as ArrayRef),
    ])
    .unwrap()
}

fn encode_config(column: Option<&str>) -> EncodeConfig {
    EncodeConfig {
        model: Some(path("data/models/verse-encoder/model.onnx")),
        tokenizer: Some(path("data/models/verse-encoder/tokenizer.json")),
        column: column.map(str::to_owned),
        on_bad_sample: OnBadSample::Skip,
        ..EncodeConfig::default()
    }
}

fn builder(several: Several, dir: Option<&Path>) -> PipelineBuilder {
    let pairs = PairsConfig {
        anchor: Some("question".into()),
        positive: Some("answers".into()),
        several,
        graph_over: GraphOver::Positives,
        ..PairsConfig::default()
    };
    let config = PipelineConfig { encode: encode_config(None), pairs, seed: 3, ..PipelineConfig::default() };
    let refresh = RefreshConfig { every_steps: Some(5), swap_after_steps: Some(1), ..RefreshConfig::default() };
    Pipeline::from_config(config)
        .source(MemorySource::new(vec![rows()]).unwrap())
        .graph(graph_config(60, 8))
        .walk(WalkConfig { negatives: 1, ..walk_config(16) })
        .refresh(refresh)
        .stream(StreamConfig { epochs: 4, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: dir.map(Into::into), ..CheckpointConfig::default() })
}

/// The rows of a mini-batch, each with the text that it carries, and that of its negative.
fn carried(mini_batch: &MiniBatch) -> Vec<(usize, String, Option<String>)> {
    let texts = |name: &str| mini_batch.rows[name].as_string::<i32>().iter().map(|text| text.map(str::to_owned));
    let numbers = mini_batch.rows["n"].as_primitive::<UInt32Type>().values().iter();
    let all = numbers.zip(texts("answers")).zip(texts("negative_1"));
    all.map(|((&row, text), negative)| (row as usize, text.expect("a positive"), negative)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_drawn_an_epoch_and_siblings_are_no_negatives() {
    let dir = TempDir::new().unwrap();
    let whole: Vec<_> =
        builder(Several::One, Some(&dir.path().join("whole"))).start().await.unwrap().try_collect().await.unwrap();
    let mut seen: HashMap<usize, Vec<String>> = HashMap::new();
    for mini_batch in &whole {
        assert_eq!(mini_batch.rows.schema().field_with_name("answers").unwrap().data_type(), &DataType::Utf8);
        let carried = carried(mini_batch);
        for (row, text, negative) in &carried {
            assert!(texts(*row).contains(text), "{text} is of {row}");
            seen.entry(*row).or_default().push(text.clone());
            for (other, _, _) in carried.iter().filter(|(other, _, _)| other != row) {
                assert!(texts(*row).is_disjoint(&texts(*other)), "{row} and {other} share a positive");
            }
            if let Some(negative) = negative {
                assert!(carried.iter().all(|(row, _, _)| !texts(*row).contains(negative)), "{negative}");
            }
        }
    }
    // Every row but the empty one, once an epoch as far as rows that share a positive let it; drawn ones differ.
    assert!(!seen.contains_key(&EMPTY));
    assert_eq!(seen.len(), ROWS - 1);
    let both = seen.iter().filter(|(row, _)| texts(**row).len() > 1);
    let changed = both.clone().filter(|(_, drawn)| drawn.iter().any(|text| *text != drawn[0])).count();
    assert!(2 * changed > both.count(), "{changed} rows came with other positives");

    for step in (0..whole.len()).step_by(7) {
        let dir = dir.path().join(step.to_string());
        let mut stream = builder(Several::One, Some(&dir)).start().await.unwrap();
        for _ in 0..step {
            stream.try_next().await.unwrap();
        }
        let state = stream.state();
        drop(stream);
        let resumed = builder(Several::One, Some(&dir)).resume(state).start().await.unwrap();
        let rest: Vec<_> = resumed.try_collect().await.unwrap();
        let rows = |all: &[MiniBatch]| all.iter().map(|m| (m.ids.clone(), m.rows.clone())).collect::<Vec<_>>();
        assert!(rows(&rest) == rows(&whole[step..]), "from step {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_are_a_list() {
    let mut stream = builder(Several::All, None).walk(walk_config(16)).start().await.unwrap();
    let mini_batch = stream.try_next().await.unwrap().unwrap();
    let lists = mini_batch.rows["answers"].as_list::<i32>();
    for (row, &number) in mini_batch.rows["n"].as_primitive::<UInt32Type>().values().iter().enumerate() {
        let found = lists.value(row);
        let found: Vec<_> = found.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        assert_eq!(found, positives(number as usize));
    }
}

/// The vector of a row is the mean of its positives' unit vectors, each embedded alone.
#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_means() {
    let stream = builder(Several::One, None).start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let items: Vec<(usize, String)> =
        (0..ROWS).flat_map(|row| positives(row).into_iter().flatten().map(move |text| (row, text))).collect();
    let column = StringArray::from_iter_values(items.iter().map(|(_, text)| text));
    let batch = RecordBatch::try_from_iter([("text", Arc::new(column) as ArrayRef)]).unwrap();
    let encoder = encode::open(&encode_config(Some("text")), &batch.schema()).unwrap();
    let d = encoder.dimension();
    let mut made = vec![0f32; items.len() * d];
    encoder.encode(&batch, &mut made).unwrap();
    let mut sums = vec![vec![0f64; d]; ROWS];
    for ((row, _), vector) in items.iter().zip(made.chunks_exact(d)) {
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        sums[*row].iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x) / length);
    }
    for (row, sum) in sums.iter().enumerate().filter(|(row, _)| *row != EMPTY) {
        let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        let found = snapshot.embeddings.get(SampleId::new(row));
        let off = found.iter().zip(sum).map(|(x, sum)| (f64::from(*x) - sum / length).abs()).fold(0.0, f64::max);
        assert!(off < 1e-3, "row {row}: {off}");
    }
    assert!(snapshot.embeddings.is_skipped(SampleId::new(EMPTY)));
}

#[tokio::test]
async fn all_of_one_is_refused() {
    let pairs = PairsConfig {
        anchor: Some("question".into()),
        positive: Some("question2".into()),
        several: Several::All,
        ..PairsConfig::default()
    };
    let question: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(anchor)));
    let rows = RecordBatch::try_from_iter([("question", question.clone()), ("question2", question)]).unwrap();
    let config = PipelineConfig { encode: encode_config(None), pairs, ..PipelineConfig::default() };
    let started = Pipeline::from_config(config)
        .source(MemorySource::new(vec![rows]).unwrap())
        .walk(walk_config(16))
        .start()
        .await;
    assert_says(&started.unwrap_err().to_string(), &["pairs.several", "has one positive in each row"]);
}
