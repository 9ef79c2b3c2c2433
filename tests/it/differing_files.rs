//! If files of a source have different types, they are read as a type that holds the values of all; if there is none,
//! the first difference is named.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array,
    Int64Array, LargeListArray, LargeStringArray, ListArray, ListViewArray, NullArray, RecordBatch, RunArray,
    StringArray, StringViewArray, StructArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt8Array,
    UInt64Array,
};
use prosampler::arrow::buffer::OffsetBuffer;
use prosampler::arrow::compute::concat_batches;
use prosampler::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use prosampler::arrow::util::display::array_value_to_string;
use prosampler::config::StoreConfig;
use prosampler::error::ColumnError;
use prosampler::source::{FileSource, MemorySource, Source};
use prosampler::store::Store;
use prosampler::{Error, Result, SampleId};
use tempfile::TempDir;

use crate::support::{assert_says, write_parquet};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<_> = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())
        .unwrap()
}

/// The column of two files, as files and in memory, as the store has it: its type, and its values as texts.
async fn stored(first: &ArrayRef, second: &ArrayRef) -> Result<(DataType, Vec<String>)> {
    let dir = TempDir::new().unwrap();
    let files = [first, second].map(|column| batch(vec![("c", column.clone())]));
    let memory = MemorySource::new(files.to_vec())?;
    let in_memory = values(&memory).await?;
    // Parquet has neither list views nor run-end encoding.
    let packed = |c: &ArrayRef| matches!(c.data_type(), DataType::ListView(_) | DataType::RunEndEncoded(..));
    if !packed(first) && !packed(second) {
        for (name, source_file) in ["a.parquet", "b.parquet"].iter().zip(&files) {
            write_parquet(&dir.path().join(name), source_file, 100);
        }
        let (data_type, values) = values(&open(dir.path()).await?).await?;
        assert_eq!(values, in_memory.1, "{data_type} and {}", in_memory.0);
    }
    Ok(in_memory)
}

async fn open(path: &Path) -> Result<FileSource> {
    FileSource::open(path.display().to_string()).await
}

async fn values(source: &dyn Source) -> Result<(DataType, Vec<String>)> {
    let store = Store::build(source, &["c".to_owned()], &StoreConfig::default(), &mut |_| {}).await?;
    let ids: Vec<_> = (0..store.len()).map(SampleId::new).collect();
    let rows = store.gather(&ids)?;
    let texts = (0..ids.len()).map(|row| array_value_to_string(&rows["c"], row).unwrap()).collect();
    Ok((rows["c"].data_type().clone(), texts))
}

fn list<O: prosampler::arrow::array::OffsetSizeTrait>(item: &str, values: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new(item, values.data_type().clone(), true));
    let offsets = OffsetBuffer::<O>::from_lengths([values.len() / 2, values.len() - values.len() / 2]);
    Arc::new(prosampler::arrow::array::GenericListArray::new(field, offsets, values, None))
}

#[tokio::test]
async fn shards_whose_types_differ_are_read_as_the_type_that_holds_both() {
    let texts = || Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef;
    let small = || Arc::new(Int32Array::from(vec![1, i32::MIN])) as ArrayRef;
    let item = |name| list::<i32>(name, Arc::new(Int32Array::from(vec![1, 2, 3])));
    let point = |columns: [(&str, ArrayRef); 2]| {
        let fields = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
        Arc::new(StructArray::new(fields, columns.map(|(_, column)| column).to_vec(), None)) as ArrayRef
    };
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), Some(2)]), None], 2);
    let views = ListViewArray::from(list::<i32>("item", small()).as_any().downcast_ref::<ListArray>().unwrap().clone());
    let runs: RunArray<Int32Type> = ["x", "x", "y"].into_iter().collect();
    let words: DictionaryArray<Int32Type> = ["x", "x", "y"].into_iter().collect();
    let cases: Vec<(ArrayRef, ArrayRef, DataType, &str)> = vec![
        (small(), Arc::new(Int64Array::from(vec![i64::MAX])), DataType::Int64, "1 -2147483648 9223372036854775807"),
        (Arc::new(UInt8Array::from(vec![255])), Arc::new(Int32Array::from(vec![-1])), DataType::Int32, "255 -1"),
        (small(), Arc::new(Float64Array::from(vec![0.5])), DataType::Float64, "1.0 -2147483648.0 0.5"),
        (
            Arc::new(Float32Array::from(vec![0.1])),
            Arc::new(Float64Array::from(vec![0.1])),
            DataType::Float64,
            "0.10000000149011612 0.1",
        ),
        (texts(), Arc::new(LargeStringArray::from(vec!["b"])), DataType::LargeUtf8, "a  b"),
        (texts(), Arc::new(StringViewArray::from(vec!["b"])), DataType::Utf8, "a  b"),
        (texts(), Arc::new(words), DataType::Utf8, "a  x x y"),
        (Arc::new(runs), texts(), DataType::Utf8, "x x y a "),
        (Arc::new(NullArray::new(2)), texts(), DataType::Utf8, "  a "),
        (texts(), Arc::new(NullArray::new(1)), DataType::Utf8, "a  "),
        (item("item"), item("element"), item("item").data_type().clone(), "[1] [2, 3] [1] [2, 3]"),
        (
            item("item"),
            list::<i64>("element", Arc::new(Int64Array::from(vec![7, 8]))),
            DataType::LargeList(Arc::new(Field::new("item", DataType::Int64, true))),
            "[1] [2, 3] [7] [8]",
        ),
        (
            Arc::new(views),
            Arc::new(fixed),
            DataType::List(Arc::new(Field::new("item", DataType::Int32, true))),
            "[1] [-2147483648] [1, 2] ",
        ),
        (
            Arc::new(TimestampMillisecondArray::from(vec![1])),
            Arc::new(TimestampNanosecondArray::from(vec![1])),
            TimestampNanosecondArray::from(vec![1]).data_type().clone(),
            "1970-01-01T00:00:00.001 1970-01-01T00:00:00.000000001",
        ),
        (
            point([("x", small()), ("y", texts())]),
            point([("y", texts()), ("x", Arc::new(Int64Array::from(vec![5, 6])))]),
            point([("x", Arc::new(Int64Array::from(vec![5, 6]))), ("y", texts())]).data_type().clone(),
            "{x: 1, y: a} {x: -2147483648, y: } {x: 5, y: a} {x: 6, y: }",
        ),
    ];
    for (first, second, expected, values) in cases {
        let what = format!("{} and {}", first.data_type(), second.data_type());
        let (found, texts) = stored(&first, &second).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((found, texts.join(" ").as_str()), (expected, values), "{what}");
    }
}

#[tokio::test]
async fn columns_without_a_common_type_are_named_with_their_shard() {
    let refused = async |first: ArrayRef, second: ArrayRef| {
        let error = stored(&first, &second).await.unwrap_err();
        assert!(matches!(error, Error::Column(ColumnError::Drift { .. })), "{error}");
        error.to_string()
    };
    let numbers = || Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let texts = || Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let error = refused(numbers(), texts()).await;
    assert_says(
        &error,
        &["column `c` is Utf8 in", "but Int64 in the files before", "leave it out of `source.columns`"],
    );
    refused(texts(), Arc::new(BinaryArray::from(vec![b"x" as &[u8]]))).await;
    refused(numbers(), Arc::new(UInt64Array::from(vec![u64::MAX]))).await;
    // Whole numbers of 64 bits are more exact than any floating-point number.
    refused(numbers(), Arc::new(Float64Array::from(vec![0.5]))).await;
    let error = refused(list::<i32>("item", numbers()), list::<i32>("item", texts())).await;
    assert_says(&error, &["column `c[]` is Utf8"]);
    let outside = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX / 1000]));
    let error = refused(outside, Arc::new(TimestampNanosecondArray::from(vec![1]))).await;
    assert_says(&error, &["column `c` is Timestamp"]);
}

/// Columns that are not used may differ, be missing, and come in another order.
#[tokio::test]
async fn only_columns_in_use_must_agree() {
    let dir = TempDir::new().unwrap();
    let n = |numbers: [i64; 2]| Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef;
    let texts = || Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let first = batch(vec![("n", n([0, 1])), ("t", texts()), ("only here", texts()), ("other", n([5, 6]))]);
    let second = batch(vec![("other", texts()), ("t", texts()), ("n", n([2, 3])), ("only there", texts())]);
    write_parquet(&dir.path().join("a.parquet"), &first, 10);
    write_parquet(&dir.path().join("b.parquet"), &second, 10);
    let files = open(dir.path()).await.unwrap();
    let memory = MemorySource::new(vec![first, second]).unwrap();
    for source in [&files as &dyn Source, &memory] {
        let names: Vec<_> = source.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["n", "t", "only here", "other", "only there"]);
        let columns = ["t", "n"].map(str::to_owned);
        let batches: Vec<_> = source.read(&columns).unwrap().try_collect().await.unwrap();
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(all["n"].to_data(), Int64Array::from(vec![0, 1, 2, 3]).to_data());
        let refused = |column: &str| match source.read(&["n".to_owned(), column.to_owned()]) {
            Ok(_) => panic!("{column} is read"),
            Err(error) => error.to_string(),
        };
        assert_says(&refused("other"), &["column `other` is Utf8 in", "but Int64"]);
        assert_says(&refused("only here"), &["column `only here` is missing in", "but Utf8"]);
        assert_says(&refused("only there"), &["column `only there` is missing in"]);
        assert_says(&refused("none"), &["column `none` not found"]);
    }
}

/// If one of 400 columns differs, the message is a line and not twelve thousand characters.
#[tokio::test]
async fn the_difference_is_named_in_a_line() {
    let wide = |odd: ArrayRef| {
        let column = |i: usize| Arc::new(Int64Array::from(vec![i as i64])) as ArrayRef;
        let names: Vec<_> = (0..400).map(|i| format!("f{i}")).collect();
        batch((0..400).map(|i| (names[i].as_str(), if i == 237 { odd.clone() } else { column(i) })).collect())
    };
    let texts = Arc::new(StringArray::from(vec!["a"]));
    let source = MemorySource::new(vec![wide(Arc::new(Int64Array::from(vec![1]))), wide(texts)]).unwrap();
    let names: Vec<_> = source.schema().fields().iter().map(|f| f.name().clone()).collect();
    let Err(error) = source.read(&names) else { panic!("it is read") };
    let error = error.to_string();
    assert!(error.len() < 300 && error.contains("column `f237` is Utf8"), "{error}");
    let Err(error) = source.read(&["f400".to_owned()]) else { panic!("it is read") };
    assert!(error.to_string().len() < 400, "{error}");
}

/// Lists of every layout and depth are stored and gathered with the values that they hold.
#[tokio::test]
async fn list_views_are_stored_as_lists() {
    let inner = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let inner = prosampler::arrow::array::LargeListViewArray::from(inner);
    let field = Arc::new(Field::new("item", inner.data_type().clone(), true));
    let list = ListArray::new(field, OffsetBuffer::from_lengths([2, 1]), Arc::new(inner), None);
    let views = ListViewArray::from(list);
    let source = MemorySource::new(vec![batch(vec![("c", Arc::new(views))])]).unwrap();
    let (data_type, values) = values(&source).await.unwrap();
    assert_eq!(values, ["[[1, ], ]", "[[]]"]);
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let inner = Arc::new(Field::new("item", DataType::LargeList(item), true));
    assert_eq!(data_type, DataType::List(inner));
}
