//! Which values count as the same when guards keep samples apart: never nulls, however Arrow stores them; the bytes of
//! a file without its path; and the texts of both sides of a pair.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use half::f16;
use proptest::prelude::*;
use prosampler::arrow::array::*;
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::*;
use prosampler::config::{GuardsConfig, PairsConfig, StoreConfig, WalkConfig};
use prosampler::encode::Encoder;
use prosampler::error::ColumnError;
use prosampler::source::MemorySource;
use prosampler::store::{ColumnPath, Key, Store};
use prosampler::walk::Groups;
use prosampler::{Error, Pipeline, PipelineBuilder, Result, SampleId};

use crate::support::{assert_says, graph_config, vectors, walk_config};

/// The store's rows of some columns.
fn store(columns: Vec<(&str, ArrayRef)>) -> Store {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    let source = MemorySource::new(vec![batch]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Store::build(&source, &names, &StoreConfig::default(), &mut |_| {})).unwrap()
}

/// The members of each group, and the most samples that can be together.
fn groups(store: &Store, key: Key) -> (Vec<Vec<usize>>, usize) {
    let groups = Groups::of(store, &[Key::Content(Vec::new()), key]).unwrap();
    let members = |group| groups.members(group).iter().map(|id| id.index()).collect();
    (groups.of_key(1).map(members).collect(), groups.most_together(1))
}

fn distinct(values: ArrayRef) -> (Vec<Vec<usize>>, usize) {
    groups(&store(vec![("c", values)]), Key::Value("c".into()))
}

#[test]
fn nulls_never_share_a_value() {
    let expected = (vec![vec![0, 1], vec![4, 5]], 4);
    let plain = StringArray::from(vec![Some("a"), Some("a"), None, None, Some("b"), Some("b")]);
    assert_eq!(distinct(Arc::new(plain)), expected);
    let runs = RunArray::<Int32Type>::try_new(
        &Int32Array::from(vec![2, 4, 6]),
        &StringArray::from(vec![Some("a"), None, Some("b")]),
    );
    assert_eq!(distinct(Arc::new(runs.unwrap())), expected);
    let values = StringArray::from(vec![None, Some("a"), Some("b")]);
    let keys = Int8Array::from(vec![Some(1), Some(1), Some(0), None, Some(2), Some(2)]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
    assert_eq!(distinct(dictionary.clone()), expected);
    // A dictionary whose values are items of lists, and a dictionary of a dictionary.
    let nested = DictionaryArray::new(Int32Array::from_iter_values(0..6), dictionary.clone());
    assert_eq!(distinct(Arc::new(nested)), expected);
    let item = Arc::new(Field::new_list_field(dictionary.data_type().clone(), true));
    let lists = FixedSizeListArray::new(item, 1, dictionary, None);
    assert_eq!(distinct(Arc::new(lists)).0, expected.0);
    assert_eq!(distinct(Arc::new(NullArray::new(6))), (vec![], 6));
}

/// Values are compared as filters compare them.
#[test]
fn minus_zero_equals_zero_and_nan_equals_nothing() {
    let values = [0.0, -0.0, f64::NAN, f64::NAN, -f64::NAN, 1.0];
    for to in [DataType::Float16, DataType::Float32, DataType::Float64] {
        let floats = cast(&Float64Array::from(values.to_vec()), &to).unwrap();
        assert_eq!(distinct(floats.clone()), (vec![vec![0, 1]], 5), "{to}");
        let item = Arc::new(Field::new_list_field(to.clone(), true));
        assert_eq!(distinct(Arc::new(FixedSizeListArray::new(item, 1, floats, None))).0, [[0, 1]], "{to}");
    }
    assert!(f16::NEG_ZERO == f16::ZERO);
}

fn images(bytes: &[Option<&[u8]>], whole: &[bool]) -> ArrayRef {
    let paths = StringArray::from_iter_values((0..bytes.len()).map(|i| format!("{i}.png")));
    let fields = [("bytes", DataType::Binary), ("path", DataType::Utf8)];
    let fields: Fields = fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(BinaryArray::from_iter(bytes.iter().copied())), Arc::new(paths)];
    Arc::new(StructArray::new(fields, columns, Some(whole.to_vec().into())))
}

#[test]
fn a_field_of_a_struct_is_compared_without_the_others() {
    let image =
        images(&[Some(b"x"), Some(b"y"), Some(b"x"), None, None, Some(b"x")], &[true, true, true, true, true, false]);
    let store = store(vec![("image", image)]);
    let bytes = ColumnPath { column: "image".into(), field: Some("bytes".into()) };
    assert_eq!(groups(&store, Key::Content(vec![bytes.clone()])).0, [[0, 2]]);
    assert_eq!(groups(&store, Key::Content(vec!["image".into()])).0, [[0; 0]; 0]);
    let missing = ColumnPath { field: Some("pixels".into()), ..bytes };
    assert!(matches!(Groups::of(&store, &[Key::Content(vec![missing])]), Err(Error::Column(ColumnError::Type { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The result is that of a comparison of all pairs, whatever layout each column has.
    #[test]
    fn either_side_of_a_pair_is_compared_with_both(
        pairs in proptest::collection::vec((proptest::option::of(0u8..30), proptest::option::of(0u8..30)), 1..60),
        (one, other) in (0usize..6, 0usize..6),
    ) {
        let types = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, DataType::Binary, DataType::LargeBinary,
            DataType::BinaryView];
        let (anchors, positives): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let column = |values: &[Option<u8>], to: usize| {
            let texts: StringArray = values.iter().map(|v| v.map(|v| format!("a text of some length, {v}"))).collect();
            cast(&texts, &types[to]).unwrap()
        };
        prop_assert!(Key::are_alike(&types[one], &types[other]));
        let store = store(vec![("anchor", column(&anchors, one)), ("positive", column(&positives, other))]);
        let (groups, most) = groups(&store, Key::Either(vec!["anchor".into(), "positive".into()]));
        let of = |pair: (Option<u8>, Option<u8>)| pair.0.into_iter().chain(pair.1).collect::<HashSet<_>>();
        for i in 0..pairs.len() {
            for j in 0..i {
                let shared = !of(pairs[i]).is_disjoint(&of(pairs[j]));
                let together = groups.iter().any(|members| members.contains(&i) && members.contains(&j));
                prop_assert_eq!(together, shared, "{:?} and {:?}", pairs[i], pairs[j]);
            }
        }
        let count = |values: &[Option<u8>]| {
            values.iter().flatten().collect::<HashSet<_>>().len() + values.iter().filter(|v| v.is_none()).count()
        };
        prop_assert_eq!(most, count(&anchors).min(count(&positives)));
        // Groups are numbered by their first sample, not by the hash of their values.
        prop_assert!(groups.is_sorted());
    }
}

/// Vectors by row, for columns of any type.
struct ByRow(Vec<String>, Option<&'static str>);

impl Encoder for ByRow {
    fn name(&self) -> &str {
        "by row"
    }

    fn columns(&self) -> &[String] {
        &self.0
    }

    fn field(&self, _: &str) -> Option<&str> {
        self.1
    }

    fn dimension(&self) -> usize {
        8
    }

    fn encode(&self, rows: &RecordBatch, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&vectors(rows.num_rows(), 8, 10, 3));
        Ok(())
    }
}

const ROWS: usize = 600;

fn pairs(anchors: ArrayRef, positives: ArrayRef) -> PipelineBuilder {
    let batch = RecordBatch::try_from_iter([("question", anchors), ("answer", positives)]).unwrap();
    Pipeline::builder()
        .source(MemorySource::new(vec![batch]).unwrap())
        .encoder(ByRow(vec!["question".into(), "answer".into()], None))
        .pairs(PairsConfig { anchor: Some("question".into()), positive: Some("answer".into()), ..Default::default() })
        .graph(graph_config(60, 12))
        .seed(3)
}

/// Each question has three rows, each answer two, and every fifth question is an answer elsewhere. All samples are
/// drawn, and none comes with a sample, or an explicit negative, that is not a true negative of it.
#[tokio::test(flavor = "multi_thread")]
async fn questions_and_answers_of_a_mini_batch_are_all_different() {
    let question = |row: usize| match row / 3 {
        n if n % 5 == 0 => format!("answer {}", n * 7 % 300),
        n => format!("question {n}"),
    };
    let answer = |row: usize| format!("answer {}", row % 300);
    let anchors: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(question)));
    let positives: ArrayRef = Arc::new(LargeStringArray::from_iter_values((0..ROWS).map(answer)));
    let builder = pairs(anchors, positives).walk(WalkConfig { negatives: 2, ..walk_config(20) });
    let mut stream = builder.start().await.unwrap();
    let (mut seen, mut refused) = (HashSet::new(), 0);
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        let texts = |id: &SampleId| HashSet::from([question(id.index()), answer(id.index())]);
        for (at, id) in mini_batch.ids.iter().enumerate() {
            let others = mini_batch.ids[..at].iter().chain(mini_batch.negatives.iter().flatten());
            for other in others {
                assert!(texts(id).is_disjoint(&texts(other)), "{:?} and {:?}", texts(id), texts(other));
            }
        }
        seen.extend(mini_batch.ids.iter().copied());
        refused += mini_batch.counts.refused_distinct;
    }
    assert_eq!((seen.len(), stream.counts().unplaced), (ROWS, 0));
    assert!(refused > 0);
}

/// If the two sides have different types, each side is compared by itself.
#[tokio::test(flavor = "multi_thread")]
async fn sides_of_different_types_are_compared_separately() {
    let anchors: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("{}", row / 2))));
    let positives: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|row| row % 200)));
    let mini_batches: Vec<_> =
        pairs(anchors, positives).walk(walk_config(20)).start().await.unwrap().try_collect().await.unwrap();
    let mut seen = 0;
    for mini_batch in &mini_batches {
        let of = |side: &dyn Fn(usize) -> usize| {
            mini_batch.ids.iter().map(|id| side(id.index())).collect::<HashSet<_>>().len()
        };
        assert_eq!((of(&|row| row / 2), of(&|row| row % 200)), (mini_batch.ids.len(), mini_batch.ids.len()));
        seen += mini_batch.ids.len();
    }
    assert_eq!(seen, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_too_few_anchors_are_refused() {
    let anchors: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("class {}", row % 7))));
    let positives: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("text {row}"))));
    let error = pairs(anchors, positives).walk(walk_config(20)).start().await.unwrap_err();
    assert_says(&error.to_string(), &["pairs.anchor", "`question` has 7 values", "lower walk.batch_size to 7"]);
}

/// An image with another path and the same bytes is a copy.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copies_if_all_that_the_encoder_reads_is_equal() {
    let bytes: Vec<Vec<u8>> = (0..ROWS).map(|row| vec![(row % 200) as u8; 9]).collect();
    let bytes: Vec<_> = bytes.iter().map(|bytes| Some(&bytes[..])).collect();
    let column = images(&bytes, &[true; ROWS]);
    let refused = async |field| {
        let batch = RecordBatch::try_from_iter([("image", column.clone())]).unwrap();
        let builder = Pipeline::builder()
            .source(MemorySource::new(vec![batch]).unwrap())
            .encoder(ByRow(vec!["image".into()], field))
            .guards(GuardsConfig::default())
            .graph(graph_config(60, 12))
            .walk(walk_config(20));
        let mini_batches: Vec<_> = builder.start().await.unwrap().try_collect().await.unwrap();
        let pictures = |ids: &[SampleId]| ids.iter().map(|id| id.index() % 200).collect::<HashSet<_>>().len();
        let copies: usize = mini_batches.iter().map(|m| m.ids.len() - pictures(&m.ids)).sum();
        (copies, mini_batches.iter().map(|m| m.counts.refused_duplicates).sum::<u64>())
    };
    let (copies, duplicates) = refused(Some("bytes")).await;
    assert!(copies == 0 && duplicates > 0, "{copies} copies, {duplicates} refused");
    let (copies, duplicates) = refused(None).await;
    assert!(copies > 0 && duplicates == 0, "{copies} copies, {duplicates} refused");
}
