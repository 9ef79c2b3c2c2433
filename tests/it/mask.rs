//! A mask marks the pairs of a mini-batch that are no negatives, and no others: against a loop over all pairs.

use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::Int32Type;
use prosampler::config::{
    FirstRefresh, GraphOver, GuardsConfig, MaskConfig, PairsConfig, RefreshConfig, StreamConfig, WalkConfig, WarmUp,
};
use prosampler::source::MemorySource;
use prosampler::{MiniBatch, PipelineBuilder, SampleId};

use crate::support::pairs::pipeline_of_pairs;
use crate::support::{Cosines, DIMENSION, vectors, walk_config};

/// One more than ranks can share in the last mini-batch.
const ROWS: usize = 401;
const BATCH: usize = 24;
const NEGATIVES: usize = 2;

/// Every fifteenth row is a copy of another one.
fn question(row: usize) -> usize {
    if row % 30 >= 20 && row % 5 == 4 { row - 10 } else { row }
}

/// Three rows have one answer.
fn answer(row: usize) -> usize {
    ROWS + row / 30 * 10 + row % 10
}

fn label(row: usize) -> Option<i32> {
    (row % 5 != 2).then_some((row * row % 11) as i32)
}

fn tags(row: usize) -> Vec<i32> {
    (0..row % 3).map(|n| ((row * 7 + n * 13) % 40) as i32).collect()
}

fn rows() -> RecordBatch {
    let numbers = |of: fn(usize) -> usize| Arc::new(UInt32Array::from_iter_values((0..ROWS).map(|row| of(row) as u32)));
    let labels: Int32Array = (0..ROWS).map(label).collect();
    let lists = (0..ROWS).map(|row| Some(tags(row).into_iter().map(Some).collect::<Vec<_>>()));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    RecordBatch::try_from_iter([
        ("question", numbers(question) as ArrayRef),
        ("answer", numbers(answer) as ArrayRef),
        ("label", Arc::new(labels) as ArrayRef),
        ("tags", Arc::new(lists) as ArrayRef),
    ])
    .unwrap()
}

fn pipeline(mask: &MaskConfig, rank: usize, world_size: usize) -> PipelineBuilder {
    pipeline_over(GraphOver::Anchors, mask, rank, world_size)
}

fn pipeline_over(over: GraphOver, mask: &MaskConfig, rank: usize, world_size: usize) -> PipelineBuilder {
    pipeline_of_pairs(rows(), over)
        .walk(WalkConfig { negatives: NEGATIVES, ..walk_config(BATCH) })
        .mask(mask.clone())
        .stream(StreamConfig { rank, world_size, ..StreamConfig::default() })
        .seed(5)
}

async fn all(builder: PipelineBuilder) -> Vec<MiniBatch> {
    builder.start().await.unwrap().try_collect().await.unwrap()
}

/// The marks of each sample.
fn marks(mini_batch: &MiniBatch) -> Vec<Vec<bool>> {
    let lists = mini_batch.mask().expect("a mask");
    assert_eq!(mini_batch.rows["mask"].as_list::<i32>(), lists);
    (0..lists.len()).map(|row| lists.value(row).as_boolean().values().iter().collect()).collect()
}

/// Whether two rows are no negatives of each other; `None` where rounding decides.
fn expected(over: GraphOver, mask: &MaskConfig, cosines: &Cosines, a: usize, b: usize) -> Option<bool> {
    let has = |column: &str| mask.same.iter().any(|same| same == column);
    let shares_label = has("label") && label(a).is_some() && label(a) == label(b);
    let shares_tag = has("tags") && tags(a).iter().any(|tag| tags(b).contains(tag));
    let (same_question, same_answer) = (question(a) == question(b), answer(a) == answer(b));
    let is_copy = mask.duplicates && same_question && same_answer;
    let is_positive = mask.positives && (same_question || same_answer);
    if shares_label || shares_tag || is_copy || is_positive {
        return Some(true);
    }
    let similarity = match over {
        GraphOver::Cross => (cosines.get(question(a), answer(b)) + cosines.get(question(b), answer(a))) / 2.0,
        _ => cosines.get(question(a), question(b)),
    };
    let pair = |row| cosines.get(question(row), answer(row));
    let relative = [pair(a), pair(b)].into_iter().filter(|&pair| pair > 0.0);
    let relative = relative.filter_map(|pair| mask.max_relative_to_positive.map(|share| share * pair));
    let bounds: Vec<f64> = relative.chain(mask.max_similarity).collect();
    if bounds.iter().any(|bound| (similarity - bound).abs() < 1e-5) {
        return None;
    }
    Some(bounds.iter().any(|&bound| similarity > bound))
}

fn masks() -> Vec<MaskConfig> {
    let off = MaskConfig::default();
    let same = |columns: &[&str]| columns.iter().map(|&column| column.to_owned()).collect();
    vec![
        MaskConfig { same: same(&["label"]), ..off.clone() },
        MaskConfig { same: same(&["tags"]), ..off.clone() },
        MaskConfig { positives: true, ..off.clone() },
        MaskConfig { positives: true, duplicates: true, ..off.clone() },
        MaskConfig { max_similarity: Some(0.8), ..off.clone() },
        MaskConfig { max_relative_to_positive: Some(0.9), ..off.clone() },
        MaskConfig { same: same(&["label", "tags"]), positives: true, max_similarity: Some(0.9), ..off },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_those_of_a_loop_over_all_pairs() {
    let cosines = Cosines::of(&vectors(2 * ROWS, DIMENSION, 10, 3), DIMENSION);
    for mask in masks() {
        for (over, world_size) in [(GraphOver::Anchors, 1), (GraphOver::Anchors, 2), (GraphOver::Cross, 1)] {
            let mut ranks = Vec::new();
            for rank in 0..world_size {
                ranks.push(all(pipeline_over(over, &mask, rank, world_size)).await);
            }
            let (mut marked, mut known) = (0, 0);
            for step in 0..ranks[0].len() {
                let shares: Vec<_> = ranks.iter().map(|rank| &rank[step]).collect();
                let ids: Vec<SampleId> = shares.iter().flat_map(|share| share.ids.clone()).collect();
                let negatives: Vec<_> = shares.iter().flat_map(|share| share.negatives.clone()).collect();
                let mut columns: Vec<Option<SampleId>> = ids.iter().copied().map(Some).collect();
                for n in 0..NEGATIVES {
                    columns.extend((0..ids.len()).map(|i| negatives[i * NEGATIVES + n]));
                }
                let found: Vec<_> = shares.iter().flat_map(|share| marks(share)).collect();
                assert_eq!(found.len(), ids.len());
                for (row, (found, id)) in found.iter().zip(&ids).enumerate() {
                    assert_eq!(found.len(), columns.len());
                    for (column, (&found, other)) in found.iter().zip(&columns).enumerate() {
                        let expected = match other {
                            None => Some(true),
                            Some(_) if column == row => Some(false),
                            Some(other) => expected(over, &mask, &cosines, id.index(), other.index()),
                        };
                        let of = format!("{over:?}, {mask:?}, step {step}: {id:?} and {other:?}");
                        assert!(expected.is_none_or(|expected| expected == found), "{of}: {found}");
                        known += usize::from(expected.is_some());
                        marked += usize::from(found);
                    }
                }
            }
            assert!(marked > 0 && marked < known, "{over:?}, {mask:?} marks {marked} of {known}");
        }
    }
}

/// What is marked comes together; what guards keep apart does not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_mask_marks_guards_let_in() {
    let together = |mini_batches: &[MiniBatch], same: fn(usize, usize) -> bool| {
        let pairs_of = |mini_batch: &MiniBatch| {
            let rows: Vec<usize> = mini_batch.ids.iter().map(|id| id.index()).collect();
            (0..rows.len()).flat_map(|a| (0..a).map(|b| (rows[a], rows[b])).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        mini_batches.iter().flat_map(pairs_of).filter(|&(a, b)| same(a, b)).count()
    };
    let same_answer = |a, b| answer(a) == answer(b) && question(a) != question(b);
    let is_copy = |a, b| answer(a) == answer(b) && question(a) == question(b);
    let of =
        |positives, duplicates| MaskConfig { positives, duplicates, same: vec!["label".into()], ..Default::default() };
    for (mask, answers, copies) in
        [(of(false, false), false, false), (of(true, false), true, false), (of(true, true), true, true)]
    {
        let mini_batches = all(pipeline(&mask, 0, 1)).await;
        assert_eq!(mini_batches.iter().map(|mini_batch| mini_batch.ids.len()).sum::<usize>(), ROWS);
        assert_eq!(together(&mini_batches, same_answer) > 0, answers, "{mask:?}");
        assert_eq!(together(&mini_batches, is_copy) > 0, copies, "{mask:?}");
    }
}

/// Groups are known before embeddings are; bounds are not.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_warm_up_without_embeddings_values_are_marked() {
    let mask = MaskConfig { same: vec!["label".into()], max_similarity: Some(-1.0), ..MaskConfig::default() };
    let walk = WalkConfig { warm_up: Some(WarmUp::Steps(2)), negatives: 0, ..walk_config(BATCH) };
    let refresh = RefreshConfig { first: FirstRefresh::AfterWarmUp, ..RefreshConfig::default() };
    let mini_batches = all(pipeline(&mask, 0, 1).walk(walk).refresh(refresh)).await;
    assert!(mini_batches[0].graph_version.is_none());
    for mini_batch in &mini_batches {
        for (row, (marks, id)) in marks(mini_batch).iter().zip(&mini_batch.ids).enumerate() {
            for (column, (&mark, other)) in marks.iter().zip(&mini_batch.ids).enumerate() {
                let (a, b) = (label(id.index()), label(other.index()));
                let is_bounded = mini_batch.graph_version.is_some();
                assert_eq!(mark, row != column && (is_bounded || (a.is_some() && a == b)));
            }
        }
    }
}

#[tokio::test]
async fn contradictions_are_refused() {
    let refused = async |mask: MaskConfig, change: fn(PipelineBuilder) -> PipelineBuilder| {
        change(pipeline(&mask, 0, 1)).start().await.unwrap_err().to_string()
    };
    let off = MaskConfig::default();
    let label = MaskConfig { same: vec!["label".into()], ..off.clone() };
    let message = refused(label.clone(), |p| {
        p.guards(GuardsConfig { distinct: vec!["label".into()], ..GuardsConfig::default() })
    });
    let message = message.await;
    assert!(message.contains("mask.same: names `label`, which guards.distinct keeps apart"), "{message}");
    let copies = MaskConfig { duplicates: true, ..off.clone() };
    let message =
        refused(copies, |p| p.guards(GuardsConfig { duplicate_similarity: Some(0.95), ..GuardsConfig::default() }));
    let message = message.await;
    assert!(message.contains("mask.duplicates: marks nothing"), "{message}");
    let above = MaskConfig { max_similarity: Some(0.9), ..off.clone() };
    let message =
        refused(above, |p| p.guards(GuardsConfig { max_similarity: Some(0.8), ..GuardsConfig::default() })).await;
    assert!(message.contains("mask.max_similarity: marks nothing"), "{message}");
    let positives = MaskConfig { positives: true, ..off.clone() };
    let message = refused(positives, |p| p.pairs(PairsConfig::default())).await;
    assert!(message.contains("mask.positives: needs pairs"), "{message}");
    let message = refused(MaskConfig { same: vec!["labels".into()], ..off.clone() }, |p| p).await;
    assert!(message.contains("`labels` not found") && message.contains("`label`"), "{message}");
    let message = refused(MaskConfig { max_relative_to_positive: Some(0.0), ..off.clone() }, |p| p).await;
    assert!(message.contains("mask.max_relative_to_positive: must be"), "{message}");
    let message = refused(label, |p| {
        let renamed = rows().columns().to_vec();
        let names = ["question", "answer", "label", "mask"];
        let rows = RecordBatch::try_from_iter(names.into_iter().zip(renamed)).unwrap();
        p.source(MemorySource::new(vec![rows]).unwrap())
    });
    let message = message.await;
    assert!(message.contains("adds a column `mask`") && message.contains("source.columns"), "{message}");
}

/// A column of that name is the trainer's own.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_mask_there_is_none() {
    let names = ["question", "answer", "label", "mask"];
    let rows = RecordBatch::try_from_iter(names.into_iter().zip(rows().columns().to_vec())).unwrap();
    let walk = WalkConfig { negatives: 0, ..walk_config(BATCH) };
    let pipeline = pipeline(&MaskConfig::default(), 0, 1).source(MemorySource::new(vec![rows]).unwrap()).walk(walk);
    assert!(all(pipeline).await.iter().all(|mini_batch| mini_batch.mask().is_none()));
}
