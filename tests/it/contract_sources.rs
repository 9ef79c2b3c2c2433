//! Every source keeps the contract that users' own are checked against, and the check finds each rule that is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use prosampler::arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use prosampler::arrow::compute::take;
use prosampler::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use prosampler::source::{
    FileSource, FilteredSource, Fingerprint, MemorySource, RecordBatches, Source, SourceFile, column_indices, contract,
};
use prosampler::{Error, Result};
use tempfile::TempDir;

use crate::support::{assert_says, path, rows, source, write_parquet};

#[tokio::test]
async fn record_batches_in_memory_keep_the_contract() {
    contract::check(&source(100)).await.unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let other_type = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let smaller_type = rows(5).project(&[0]).unwrap();
    contract::check(&MemorySource::new(vec![smaller_type, other_type]).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_format_keep_the_contract() {
    for name in ["rows.parquet", "rows.arrow", "rows.arrows", "rows.feather", "zstd.feather", "pages.parquet"] {
        let file = path("tests/data/formats").join(name);
        let source = FileSource::open(file.display().to_string()).await.unwrap();
        let kept = contract::check(&source).await;
        assert_eq!(kept, Ok(()), "{name}");
    }
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("a.parquet"), &rows(300), 100);
    write_parquet(&dir.path().join("b.parquet"), &rows(70), 50);
    let folder = || FileSource::open(dir.path().display().to_string());
    contract::check(&folder().await.unwrap()).await.unwrap();
    let filtered = FilteredSource::new(Box::new(folder().await.unwrap()), "n >= 20 and text != 'text 33'").unwrap();
    contract::check(&filtered).await.unwrap();
}

/// What a wrong source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    HasNoName,
    ChangesItsSchema,
    HasNoColumns,
    CannotBeRead,
    IgnoresTheOrderOfColumns,
    GivesAnotherType,
    GivesNulls,
    MixesColumns,
    ReversesTheSecondReading,
    EndsTheSecondReadingEarly,
    CountsTooMany,
    ReadsUnknownColumns,
    RefusesUnknownColumnsOtherwise,
    GoesOnAfterADroppedStream,
    ChangesItsFingerprint,
    AddsKnownFiles,
    LosesItsFiles,
}

/// Three record batches of ten rows each, with one thing wrong.
struct WrongSource {
    wrong: Wrong,
    batches: Vec<RecordBatch>,
    calls: AtomicUsize,
    /// The next record batch of all streams, for those that go on where others were dropped.
    next: Arc<AtomicUsize>,
}

impl WrongSource {
    fn new(wrong: Wrong) -> Self {
        let all = rows(30);
        let batches = (0..3).map(|at| all.slice(10 * at, 10)).collect();
        Self { wrong, batches, calls: AtomicUsize::new(0), next: Arc::default() }
    }

    /// The number of this call of a method that changes its answer.
    fn call(&self) -> usize {
        self.calls.fetch_add(1, Relaxed)
    }

    fn column(&self, batch: &RecordBatch, name: &str, asked: usize) -> ArrayRef {
        let numbers = || 0..batch.num_rows() as u32;
        match (self.wrong, name) {
            (Wrong::GivesAnotherType, "n") => Arc::new(Int64Array::from_iter_values(numbers().map(i64::from))),
            (Wrong::GivesNulls, "n") => Arc::new(UInt32Array::from_iter(numbers().map(|n| (n > 0).then_some(n)))),
            (Wrong::MixesColumns, _) if asked == 1 => {
                take(&batch[name], &UInt32Array::from(vec![5; 10]), None).unwrap()
            }
            _ => batch.column_by_name(name).unwrap_or(batch.column(0)).clone(),
        }
    }
}

impl Source for WrongSource {
    fn uri(&self) -> &str {
        if self.wrong == Wrong::HasNoName { "" } else { "wrong" }
    }

    fn schema(&self) -> SchemaRef {
        match self.wrong {
            Wrong::HasNoColumns => Arc::new(Schema::empty()),
            Wrong::ChangesItsSchema => {
                Arc::new(Schema::new(vec![Field::new(format!("n{}", self.call()), DataType::UInt32, true)]))
            }
            Wrong::GivesNulls => self.batches[0].schema(),
            _ => {
                let fields = self.batches[0].schema();
                let nullable = fields.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
                Arc::new(Schema::new(nullable.collect::<Vec<_>>()))
            }
        }
    }

    fn rows(&self) -> Option<usize> {
        Some(if self.wrong == Wrong::CountsTooMany { 31 } else { 30 })
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let version = if self.wrong == Wrong::ChangesItsFingerprint { self.call() } else { 0 };
        let source_file = SourceFile { uri: "wrong".into(), version: version.to_string() };
        Some(Fingerprint { settings: String::new(), files: vec![source_file] })
    }

    fn added(&self, _: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let added = match self.wrong {
            Wrong::AddsKnownFiles => Ok(Some(Box::new(source(1)) as Box<dyn Source>)),
            Wrong::LosesItsFiles => Err(Error::Cancelled),
            _ => Ok(None),
        };
        std::future::ready(added).boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        match (column_indices("wrong", &self.batches[0].schema(), columns), self.wrong) {
            (Ok(_), _) | (Err(_), Wrong::ReadsUnknownColumns) => {}
            (Err(_), Wrong::RefusesUnknownColumnsOtherwise) => return Err(Error::Cancelled),
            (Err(missing), _) => return Err(missing),
        }
        if self.wrong == Wrong::CannotBeRead {
            return Ok(stream::iter([Err(Error::Cancelled)]).boxed());
        }
        let mut names: Vec<_> = columns.iter().map(String::as_str).collect();
        if self.wrong == Wrong::IgnoresTheOrderOfColumns {
            names.sort_unstable();
        }
        let mut batches: Vec<_> = self
            .batches
            .iter()
            .map(|batch| {
                let values = names.iter().map(|name| self.column(batch, name, names.len()));
                let fields = names.iter().zip(values).map(|(name, values)| (*name, values, true));
                RecordBatch::try_from_iter_with_nullable(fields).unwrap()
            })
            .collect();
        if self.wrong == Wrong::GoesOnAfterADroppedStream {
            let next = self.next.clone();
            let batches = std::iter::from_fn(move || {
                let batch = batches.get(next.fetch_add(1, Relaxed)).cloned();
                if batch.is_none() {
                    next.store(0, Relaxed);
                }
                batch.map(Ok)
            });
            return Ok(stream::iter(batches).boxed());
        }
        let is_later = self.call() > 0;
        if is_later && self.wrong == Wrong::ReversesTheSecondReading {
            batches.reverse();
        }
        if is_later && self.wrong == Wrong::EndsTheSecondReadingEarly {
            batches.pop();
        }
        Ok(stream::iter(batches.into_iter().map(Ok)).boxed())
    }
}

#[tokio::test]
async fn each_rule_that_a_source_breaks_is_named() {
    for (wrong, expected) in [
        (Wrong::HasNoName, "`uri` is empty"),
        (Wrong::ChangesItsSchema, "`schema` changes from one call to the next"),
        (Wrong::HasNoColumns, "no column has a name of its own"),
        (Wrong::CannotBeRead, "cannot be read: "),
        (Wrong::IgnoresTheOrderOfColumns, "has the columns [\"n\", \"text\"] where [\"text\", \"n\"] were asked for"),
        (Wrong::GivesAnotherType, "column `n` is declared as UInt32 and comes as Int64"),
        (Wrong::GivesNulls, "column `n` is declared without nulls and has some"),
        (Wrong::ReversesTheSecondReading, "a second reading gives other rows, first at row 0"),
        (Wrong::EndsTheSecondReadingEarly, "a second reading gives other rows: 20 instead of 30"),
        (Wrong::CountsTooMany, "`rows` says 31, but 30 are read"),
        (Wrong::ReadsUnknownColumns, "a column that does not exist is not refused by `read`"),
        (Wrong::RefusesUnknownColumnsOtherwise, "gives another error than `ColumnError::Missing`"),
        (Wrong::GoesOnAfterADroppedStream, "a reading after a dropped stream gives other rows: 20 instead of 30"),
        (Wrong::ChangesItsFingerprint, "`fingerprint` changes from one call to the next"),
        (Wrong::AddsKnownFiles, "`added` gives files that the fingerprint lists already"),
        (Wrong::LosesItsFiles, "`added` fails for the files of the fingerprint"),
        (Wrong::MixesColumns, "the columns [\"text\"] have other values than among all columns, first at row 0"),
    ] {
        let broken = contract::check(&WrongSource::new(wrong)).await;
        assert_says(&broken.expect_err(&format!("{wrong:?} is not found")), &[expected]);
    }
}
