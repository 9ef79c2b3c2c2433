//! "Does my [`Source`] keep what the trait promises?"
//!
//! [`check`] is for the tests of whoever writes a source of their own. It reads the source several times and looks at
//! each of these rules:
//!
//! 1. The source has a name, and a schema that stays the same.
//! 2. Each record batch has the columns that were asked for, in that order, with the types of the schema; a column that
//!    cannot be null has no nulls. Only text that is not UTF-8 may come as bytes.
//! 3. Columns have the same values whichever others are asked for.
//! 4. Every reading gives the same rows in the same order.
//! 5. If the number of rows is known beforehand, that many are read.
//! 6. A column that does not exist is refused before anything is read.
//! 7. A stream may be dropped before its end, and the next one begins at the first row.
//! 8. The fingerprint stays the same, and nothing has been added to the files that it lists.
//!
//! ```
//! use std::sync::Arc;
//!
//! use futures::{StreamExt, stream};
//! use prosampler::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
//! use prosampler::arrow::datatypes::SchemaRef;
//! use prosampler::source::{RecordBatches, Source, column_indices, contract};
//!
//! /// The numbers from 0 to 9.
//! struct Digits(RecordBatch);
//!
//! impl Source for Digits {
//!     fn uri(&self) -> &str {
//!         "digits"
//!     }
//!
//!     fn schema(&self) -> SchemaRef {
//!         self.0.schema()
//!     }
//!
//!     fn read(&self, columns: &[String]) -> prosampler::Result<RecordBatches> {
//!         let columns = column_indices(self.uri(), &self.0.schema(), columns)?;
//!         let batch = self.0.project(&columns).expect("columns that exist");
//!         Ok(stream::iter([Ok(batch)]).boxed())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..10));
//! let digits = Digits(RecordBatch::try_from_iter([("n", numbers)]).unwrap());
//! assert_eq!(contract::check(&digits).await, Ok(()));
//! # }
//! ```

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use futures::{StreamExt, TryStreamExt};

use super::Source;
use crate::error::{ColumnError, Error};

/// Reads `source` about five times and says which [rule](self) it breaks first.
///
/// Two readings are in memory at the same time, and rows are compared one by one: give it some thousand rows at most.
/// Call it within a tokio runtime if the source needs one. It does not return if a stream never ends.
///
/// # Errors
/// A sentence that names the broken rule, with what was found.
pub async fn check(source: &dyn Source) -> Result<(), String> {
    let columns = columns(source)?;
    let rows = read(source, &columns).await?;
    check_count(source, &rows)?;
    check_again(source, &columns, &rows).await?;
    check_order_of_columns(source, &columns, &rows).await?;
    check_unknown_column(source)?;
    check_dropped_stream(source, &columns, &rows).await?;
    check_fingerprint(source).await
}

/// The columns that can be asked for by name.
fn columns(source: &dyn Source) -> Result<Vec<String>, String> {
    if source.uri().is_empty() {
        return Err("`uri` is empty; messages need a name for the source".into());
    }
    let schema = source.schema();
    if schema != source.schema() {
        return Err("`schema` changes from one call to the next".into());
    }
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let is_alone = |name: &&String| names.iter().filter(|other| other == name).count() == 1;
    let columns: Vec<_> = names.iter().filter(is_alone).cloned().collect();
    if columns.is_empty() {
        return Err(format!("no column has a name of its own among {names:?}"));
    }
    Ok(columns)
}

/// All rows of these columns; each record batch has them as the schema declares them.
async fn read(source: &dyn Source, columns: &[String]) -> Result<Vec<RecordBatch>, String> {
    let failed = |error: Error| format!("the columns {columns:?} cannot be read: {error}");
    let batches: Vec<_> = source.read(columns).map_err(failed)?.try_collect().await.map_err(failed)?;
    let schema = source.schema();
    for batch in &batches {
        check_batch(&schema, columns, batch)?;
    }
    Ok(batches)
}

fn check_batch(schema: &Schema, columns: &[String], batch: &RecordBatch) -> Result<(), String> {
    let found: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    if found != columns {
        return Err(format!("a record batch has the columns {found:?} where {columns:?} were asked for"));
    }
    for (name, values) in columns.iter().zip(batch.columns()) {
        let declared = schema.field_with_name(name).map_err(|error| error.to_string())?;
        let (expected, found) = (declared.data_type(), values.data_type());
        if !is_declared(expected, found) {
            return Err(format!("column `{name}` is declared as {expected} and comes as {found}"));
        }
        if !declared.is_nullable() && values.logical_null_count() > 0 {
            return Err(format!("column `{name}` is declared without nulls and has some"));
        }
    }
    Ok(())
}

/// Whether values of the type `found` may come for a column that is declared as `expected`.
fn is_declared(expected: &DataType, found: &DataType) -> bool {
    let as_bytes = match expected {
        DataType::Utf8 => &DataType::Binary,
        DataType::LargeUtf8 => &DataType::LargeBinary,
        DataType::Utf8View => &DataType::BinaryView,
        other => other,
    };
    found == expected || found == as_bytes
}

fn check_count(source: &dyn Source, rows: &[RecordBatch]) -> Result<(), String> {
    let found: usize = rows.iter().map(RecordBatch::num_rows).sum();
    match source.rows() {
        Some(promised) if promised != found => Err(format!("`rows` says {promised}, but {found} are read")),
        _ => Ok(()),
    }
}

async fn check_again(source: &dyn Source, columns: &[String], rows: &[RecordBatch]) -> Result<(), String> {
    let again = read(source, columns).await?;
    check_same("a second reading gives other rows", rows, &again)
}

async fn check_order_of_columns(source: &dyn Source, columns: &[String], rows: &[RecordBatch]) -> Result<(), String> {
    let all: Vec<_> = (0..columns.len()).rev().collect();
    for places in [&all[..], &all[..1]] {
        let names: Vec<_> = places.iter().map(|&place| columns[place].clone()).collect();
        let found = read(source, &names).await?;
        let expected: Result<Vec<_>, _> = rows.iter().map(|batch| batch.project(places)).collect();
        let expected = expected.map_err(|error| error.to_string())?;
        check_same(&format!("the columns {names:?} have other values than among all columns"), &expected, &found)?;
    }
    Ok(())
}

fn check_unknown_column(source: &dyn Source) -> Result<(), String> {
    match source.read(&[UNKNOWN.to_owned()]) {
        Err(Error::Column(ColumnError::Missing { .. })) => Ok(()),
        Err(other) => {
            Err(format!("a column that does not exist gives another error than `ColumnError::Missing`: {other}"))
        }
        Ok(_) => Err("a column that does not exist is not refused by `read`".into()),
    }
}

async fn check_dropped_stream(source: &dyn Source, columns: &[String], rows: &[RecordBatch]) -> Result<(), String> {
    let mut stream = source.read(columns).map_err(|error| error.to_string())?;
    let _ = stream.next().await;
    drop(stream);
    let again = read(source, columns).await?;
    check_same("a reading after a dropped stream gives other rows", rows, &again)
}

async fn check_fingerprint(source: &dyn Source) -> Result<(), String> {
    let Some(fingerprint) = source.fingerprint() else { return Ok(()) };
    if source.fingerprint() != Some(fingerprint.clone()) {
        return Err("`fingerprint` changes from one call to the next".into());
    }
    match source.added(fingerprint.files).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("`added` gives files that the fingerprint lists already".into()),
        Err(error) => Err(format!("`added` fails for the files of the fingerprint: {error}")),
    }
}

/// Whether two readings have the same rows; where a record batch ends does not matter.
fn check_same(otherwise: &str, expected: &[RecordBatch], found: &[RecordBatch]) -> Result<(), String> {
    let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    let each = |batches: &[RecordBatch]| -> Vec<RecordBatch> {
        batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1))).collect()
    };
    if rows(expected) != rows(found) {
        return Err(format!("{otherwise}: {} instead of {}", rows(found), rows(expected)));
    }
    let differs = |(a, b): (&RecordBatch, &RecordBatch)| a.columns() != b.columns();
    match each(expected).iter().zip(&each(found)).position(differs) {
        Some(row) => Err(format!("{otherwise}, first at row {row}")),
        None => Ok(()),
    }
}

/// A name that no column has.
const UNKNOWN: &str = "no column has this name";
