//! Unusual files, and files that are not tables, give the right values or an error with the remedy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::TryStreamExt;
use parquet::arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions, encode_arrow_schema};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use prosampler::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use prosampler::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use prosampler::config::{EncodeConfig, OnBadSample, OnCorrupt, SourceConfig, StoreConfig};
use prosampler::encode::OnnxEncoder;
use prosampler::source::{FileSource, MemorySource, Source};
use prosampler::store::Store;
use prosampler::{Error, Pipeline, Result, SampleId};
use tempfile::TempDir;

use crate::support::{assert_says, graph_config, path, rows, walk_config, write_parquet};

async fn open(path: impl AsRef<Path>) -> Result<FileSource> {
    FileSource::open(path.as_ref().display().to_string()).await
}

fn odd(name: &str) -> std::path::PathBuf {
    path("tests/data/odd").join(name)
}

fn names(source: &dyn Source) -> Vec<String> {
    source.schema().fields().iter().map(|f| f.name().clone()).collect()
}

async fn read(source: &dyn Source) -> Vec<RecordBatch> {
    source.read(&names(source)).unwrap().try_collect().await.unwrap()
}

/// pyarrow wrote years 1 to 9999; nanoseconds reach from 1677 to 2262.
#[tokio::test]
async fn int96_does_not_wrap() {
    let expected =
        [Some(-62_135_596_800_000_000), Some(-1), Some(1_709_208_000_123_456), None, Some(253_402_300_799_999_999)];
    for name in ["int96.parquet", "int96_hinted.parquet"] {
        let source = open(odd(name)).await.unwrap();
        assert_eq!(*source.schema().field(0).data_type(), DataType::Timestamp(TimeUnit::Microsecond, None), "{name}");
        let batches = read(&source).await;
        let times = |array: &dyn Array| array.as_primitive::<TimestampMicrosecondType>().iter().collect::<Vec<_>>();
        assert_eq!(times(&batches[0]["time"]), expected, "{name}");
        assert_eq!(times(batches[0]["times"].as_list::<i32>().values()), expected, "{name}");
    }
}

#[tokio::test]
async fn big_endian_numbers_are_refused_and_not_swapped() {
    for name in ["big_endian.arrows", "big_endian.arrow"] {
        let error = open(odd(name)).await.unwrap_err();
        assert!(matches!(error, Error::UnsupportedSource { .. }));
        assert_says(&error.to_string(), &[name, "big-endian", "write it again"]);
    }
}

/// Two of 200 texts are Latin-1. All rows arrive in their order, as texts if all texts of their record batch are valid.
#[tokio::test]
async fn a_text_that_is_no_utf8_is_the_fault_of_its_row() {
    for (name, bad) in [
        ("latin.parquet", vec![117, 160]),
        ("latin_plain.parquet", vec![117, 160]),
        ("latin_hinted.parquet", vec![117, 160]),
        ("latin.arrow", vec![117, 160]),
        ("latin.arrows", vec![117, 160]),
        ("latin_lists.parquet", vec![58, 80]),
    ] {
        let source = open(odd(name)).await.unwrap();
        let store = Store::build(&source, &names(&source), &StoreConfig::default(), &mut |_| {}).await.unwrap();
        let rows: Vec<_> = store.record_batches().map(|item| item.unwrap().1.clone()).collect();
        assert_eq!(rows.len(), 1);
        let numbers = rows[0]["n"].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(numbers, (0..numbers.len() as i64).collect::<Vec<_>>(), "{name}");
        assert_eq!(rows[0].schema().field(1).data_type(), source.schema().field(1).data_type());
        let nulls: Vec<_> = (0..numbers.len()).filter(|&row| rows[0].column(1).is_null(row)).collect();
        assert_eq!(nulls, bad, "{name}");
        let texts = match rows[0].column(1).as_list_opt::<i32>() {
            Some(lists) => lists.value(57).as_string::<i32>().value(0).to_owned(),
            None => rows[0].column(1).as_string::<i32>().value(114).to_owned(),
        };
        assert_eq!(texts, "café 114", "{name}");
    }
}

/// A text that is not UTF-8 is an error that names its sample, whether the encoder reads it or the trainer gets it, or
/// is skipped if the settings say so.
#[tokio::test]
async fn a_text_that_is_no_utf8_is_a_bad_sample() {
    let dir = TempDir::new().unwrap();
    let start = |column: &str, on_bad_sample, name: &str| {
        let encode = EncodeConfig {
            model: Some(path("tests/data/states.onnx")),
            tokenizer: Some(path("data/models/gloss-encoder/tokenizer.json")),
            column: Some(column.into()),
            on_bad_sample,
            ..EncodeConfig::default()
        };
        let store = StoreConfig { cache_dir: Some(dir.path().into()), ..StoreConfig::default() };
        let file = odd(name);
        async move {
            let builder = Pipeline::builder().source(open(file).await?).store(store).encode(encode.clone());
            let builder = builder.encoder(OnnxEncoder::open(&encode)?).graph(graph_config(20, 5)).walk(walk_config(10));
            builder.start().await
        }
    };
    for again in 0..2 {
        for name in ["latin.parquet", "latin.arrows"] {
            let error = start("text", OnBadSample::Fail, name).await.unwrap_err().to_string();
            let expected = ["sample 117 cannot be encoded: column `text` is no UTF-8 (2 such values)", "on_bad_sample"];
            assert_says(&error, &expected);
            let mut stream = start("text", OnBadSample::Skip, name).await.unwrap();
            assert_eq!(stream.handle().source_counts().bad_texts, 2, "{again}");
            let mut ids = Vec::new();
            while let Some(mini_batch) = stream.try_next().await.unwrap() {
                ids.extend(mini_batch.ids.iter().map(|id| id.0));
            }
            ids.sort_unstable();
            ids.dedup();
            assert!(ids.len() >= 190 && !ids.contains(&117) && !ids.contains(&160));
        }
    }
}

fn inspect(file: &Path) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_prosampler")).arg("inspect").arg(file).output().unwrap();
    let [said, error] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.success(), said, error)
}

#[test]
fn inspecting_tells_texts_that_are_no_utf8() {
    let (good, said, error) = inspect(&odd("latin.parquet"));
    assert!(!good);
    assert_says(&said, &["text  Utf8, no nulls, 2 texts that are no UTF-8", "what cannot be read", "sample 117"]);
    assert_says(&error, &["error: sample 117 cannot be encoded: column `text` is no UTF-8"]);
}

/// `inspect` shows the sound files, reports the damage of each other one, and fails.
#[test]
fn inspecting_tells_the_damage_of_every_file() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str| dir.path().join(name);
    for name in ["a.parquet", "b.parquet", "c.parquet"] {
        write_parquet(&file(name), &rows(400), 100);
    }
    fs::write(file("d.parquet"), "no table").unwrap();
    for (name, row_group) in [("a.parquet", 3), ("c.parquet", 0)] {
        let mut bytes = fs::read(file(name)).unwrap();
        let metadata = parquet::file::metadata::ParquetMetaDataReader::new();
        let metadata = metadata.parse_and_finish(&bytes::Bytes::from(bytes.clone())).unwrap();
        let (start, length) = metadata.row_group(row_group).column(1).byte_range();
        bytes[start as usize..(start + length) as usize].fill(0xee);
        fs::write(file(name), bytes).unwrap();
    }
    let (good, said, error) = inspect(dir.path());
    assert!(!good);
    assert_says(
        &said,
        &[
            "first 1,000 rows that can be read",
            "d.parquet`: it is a text",
            "a.parquet`, row group 3, column `text`",
            "c.parquet`, row group 0, column `text`",
        ],
    );
    assert_says(&error, &["error: cannot read `"]);
}

/// A writer left the Arrow schema of other columns in the metadata.
#[tokio::test]
async fn a_stale_arrow_schema_is_ignored() {
    let dir = TempDir::new().unwrap();
    let all = rows(30);
    let with = |fields: Vec<Field>| encode_arrow_schema(&Schema::new(fields));
    let (n, text) = (Field::new("n", DataType::UInt32, false), Field::new("text", DataType::Utf8, false));
    for (name, schema) in [
        ("a column more", with(vec![n.clone(), text.clone(), Field::new("gone", DataType::Int64, true)])),
        ("a column less", with(vec![n.clone()])),
        ("another name", with(vec![n.clone(), text.clone().with_name("old")])),
        ("another type", with(vec![n.clone(), Field::new("text", DataType::Int64, false)])),
        ("a list", with(vec![n, Field::new_list("text", Field::new_list_field(DataType::Utf8, true), true)])),
        ("no schema", "no base64".to_owned()),
    ] {
        let file = dir.path().join("a.parquet");
        let stale = KeyValue::new("ARROW:schema".to_owned(), schema);
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![stale])).build();
        let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true).with_properties(properties);
        let sink = fs::File::create(&file).unwrap();
        let mut writer = ArrowWriter::try_new_with_options(sink, all.schema(), options).unwrap();
        writer.write(&all).unwrap();
        writer.close().unwrap();
        let batches = read(&open(&file).await.unwrap()).await;
        assert!(batches[0].columns() == all.columns(), "{name}");
    }
}

#[tokio::test]
async fn files_that_are_not_tables_are_named_with_the_remedy() {
    let dir = TempDir::new().unwrap();
    let parquet = dir.path().join("whole.parquet");
    write_parquet(&parquet, &rows(300), 100);
    let whole = fs::read(parquet).unwrap();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n".to_vec();
    for (bytes, expected) in [
        (lfs, "git lfs pull"),
        (b"n,text\n1,a\n2,b\n".to_vec(), "CSV"),
        (b"{\"n\": 1}\n{\"n\": 2}\n".to_vec(), "JSON"),
        (b"<!DOCTYPE html>\n<html><title>404</title></html>".to_vec(), "HTML"),
        ([b"\x1f\x8b\x08\0", &whole[..]].concat(), "gunzip"),
        ([b"\x28\xb5\x2f\xfd", &whole[..]].concat(), "unzstd"),
        (vec![0; 5000], "never written"),
        (whole[..whole.len() / 2].to_vec(), "cut short"),
        (fs::read(odd("encrypted.parquet")).unwrap(), "encrypted"),
        (fs::read(odd("encrypted_column.parquet")).unwrap(), "encrypted"),
    ] {
        let file = dir.path().join("a.parquet");
        fs::write(&file, bytes).unwrap();
        let error = match open(&file).await {
            Ok(source) => source.read(&names(&source)).unwrap().try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        assert_says(&error.to_string(), &["a.parquet`", expected]);
    }
}

/// If a dictionary page makes the decoder panic, its row group is an error, or is skipped and counted, and the panic is
/// not printed.
#[tokio::test]
async fn a_decoder_that_panics_is_an_error() {
    let file = odd("panic.parquet");
    let source = open(&file).await.unwrap();
    let error = source.read(&names(&source)).unwrap().try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }));
    assert_says(&error.to_string(), &["panic.parquet`, row group 1, column `text`", "parquet-"]);
    let uri = vec![file.display().to_string()];
    let config = SourceConfig { uri, on_corrupt: OnCorrupt::Skip, ..SourceConfig::default() };
    let source = FileSource::open_all(&config).await.unwrap();
    let left: usize = read(&source).await.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((left + source.counts().skipped_rows, source.rows()), (600, Some(600)));
    let (good, said, error) = inspect(&file);
    assert!(!good && !error.contains("panicked"), "{error}");
    assert_says(&said, &["what cannot be read", "panic.parquet`, row group 1, column `text`"]);
}

/// A Parquet file that has only a footer, with this many columns in each group.
fn footer_of(columns: &[i32]) -> Vec<u8> {
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    // The footer has version 1, then the schema: a list of structs with a name and a number of columns.
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    footer.extend(varint(columns.len() as u64));
    for columns in columns {
        footer.extend([0x48, 1, b'g', 0x15]);
        footer.extend(varint(u64::from((columns << 1 ^ columns >> 31) as u32)));
        footer.push(0);
    }
    footer.push(0);
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", &footer[..], &length, b"PAR1"].concat()
}

/// The decoder would ask for 16 GiB, or recurse until the stack overflows, and either would end the process.
#[tokio::test]
async fn impossible_columns_of_a_footer_are_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.parquet");
    for (columns, says) in [
        (vec![i32::MAX], "its footer says that a group has 2147483647 columns, of 1 in all"),
        (vec![1, -1], "its footer says that a group has -1 columns, of 2 in all"),
        (vec![1; 100_000], "its footer lists more than 64 groups within groups"),
    ] {
        fs::write(&file, footer_of(&columns)).unwrap();
        let error = open(&file).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }));
        assert_says(&error.to_string(), &["a.parquet", says, "write it again"]);
    }
}

/// By Arrow's format an empty name means no time zone, and writers leave it out.
#[tokio::test]
async fn an_empty_time_zone_counts_as_no_time_zone() {
    let times = TimestampMicrosecondArray::from(vec![7]).with_timezone("");
    let rows = RecordBatch::try_from_iter([("time", Arc::new(times) as ArrayRef)]).unwrap();
    let store =
        Store::build(&MemorySource::new(vec![rows]).unwrap(), &["time".into()], &StoreConfig::default(), &mut |_| {})
            .await
            .unwrap();
    let found = store.gather(&[SampleId(0)]).unwrap();
    assert_eq!(*found.schema().field(0).data_type(), DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(found["time"].as_primitive::<TimestampMicrosecondType>().values(), &[7]);
}
