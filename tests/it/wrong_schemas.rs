//! Rows that are not what their schema promises are an error that names their file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use prosampler::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use prosampler::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use prosampler::arrow::ipc::reader::read_footer_length;
use prosampler::arrow::ipc::writer::{FileWriter, StreamWriter};
use prosampler::config::StoreConfig;
use prosampler::error::ColumnError;
use prosampler::source::{FileSource, RecordBatches, Source};
use prosampler::store::Store;
use prosampler::{Error, Result};
use tempfile::TempDir;

use crate::support::{assert_says, write_parquet};

const ROWS: i64 = 300;

/// A column that may have nulls by its schema, and has some.
fn with_nulls() -> RecordBatch {
    let numbers: Int64Array = (0..ROWS).map(|i| (i % 100 != 42).then_some(i)).collect();
    RecordBatch::try_new(schema(true), vec![Arc::new(numbers) as ArrayRef]).unwrap()
}

/// A column that has no nulls by its schema.
fn without_nulls() -> RecordBatch {
    let numbers = Int64Array::from_iter_values(0..ROWS);
    RecordBatch::try_new(schema(false), vec![Arc::new(numbers) as ArrayRef]).unwrap()
}

fn schema(nullable: bool) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, nullable)]))
}

fn columns() -> Vec<String> {
    vec!["n".to_owned()]
}

async fn open(path: &Path) -> FileSource {
    FileSource::open(path.display().to_string()).await.unwrap()
}

/// The error of reading a source.
async fn refused(source: &dyn Source) -> Error {
    source.read(&columns()).unwrap().try_collect::<Vec<_>>().await.unwrap_err()
}

fn assert_named(error: &Error, name: &str) {
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert_says(&error.to_string(), &[name, "Column 'n' is declared as non-nullable but contains null values"]);
}

/// An Arrow IPC file's bytes, and where its footer begins.
fn ipc_file(rows: &RecordBatch) -> (Vec<u8>, usize) {
    let mut writer = FileWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    writer.write(rows).unwrap();
    let bytes = writer.into_inner().unwrap();
    let trailer: [u8; 10] = *bytes.last_chunk().unwrap();
    let footer = bytes.len() - trailer.len() - read_footer_length(trailer).unwrap();
    (bytes, footer)
}

/// An Arrow IPC stream's bytes, and where its first record batch begins.
fn ipc_stream(rows: &RecordBatch) -> (Vec<u8>, usize) {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    let start = writer.get_ref().len();
    writer.write(rows).unwrap();
    (writer.into_inner().unwrap(), start)
}

/// The schema of an Arrow IPC file stands in its footer, too, and counts there.
#[tokio::test]
async fn nulls_that_an_ipc_footer_denies_name_the_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("footer.arrow");
    let (rows, end) = ipc_file(&with_nulls());
    let (promise, start) = ipc_file(&without_nulls());
    fs::write(&file, [&rows[..end], &promise[start..]].concat()).unwrap();
    assert_named(&refused(&open(&file).await).await, "footer.arrow");
}

#[tokio::test]
async fn nulls_that_an_ipc_stream_denies_name_the_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("stream.arrows");
    let (rows, start) = ipc_stream(&with_nulls());
    let (promise, end) = ipc_stream(&without_nulls());
    fs::write(&file, [&promise[..end], &rows[start..]].concat()).unwrap();
    assert_named(&refused(&open(&file).await).await, "stream.arrows");
}

/// A source has the schema of the files that it was opened with, which a later file may not keep.
#[tokio::test]
async fn nulls_in_a_parquet_file_that_was_added_name_the_file() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("first.parquet"), &without_nulls(), 100);
    let source = open(dir.path()).await;
    let known = source.fingerprint().unwrap().files;
    write_parquet(&dir.path().join("later.parquet"), &with_nulls(), 100);
    let added = source.added(known).await.unwrap().unwrap();
    let error = refused(added.as_ref()).await;
    assert!(matches!(error, Error::Column(ColumnError::Drift { .. })), "{error:?}");
    assert_says(&error.to_string(), &["later.parquet", "column `n` is Int64 with nulls", "but Int64 without"]);
}

/// A source whose schema promises more than its record batches keep.
struct Promising;

impl Source for Promising {
    fn uri(&self) -> &str {
        "promising"
    }

    fn schema(&self) -> SchemaRef {
        schema(false)
    }

    fn read(&self, _columns: &[String]) -> Result<RecordBatches> {
        Ok(stream::iter([Ok(with_nulls())]).boxed())
    }
}

#[tokio::test]
async fn nulls_that_a_source_denies_name_the_source() {
    let error = Store::build(&Promising, &columns(), &StoreConfig::default(), &mut |_| {}).await.unwrap_err();
    assert_named(&error, "`promising`");
    assert_says(&error.to_string(), &["what its schema says"]);
}
