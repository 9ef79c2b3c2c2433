//! One schema for shards that differ, and their record batches in it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::positions;
use super::types::{Difference, common, item};
use crate::error::{Error, Result};

/// The columns of all shards in the order in which they first come, each of a type that holds the values of all; where
/// there is none, of the first one's. Who uses such a column hears of it from [`Adapter::new`].
pub(super) fn unified(schemas: &[SchemaRef]) -> SchemaRef {
    let Some(first) = schemas.first() else { return Arc::new(Schema::empty()) };
    if schemas.iter().all(|schema| schema.fields() == first.fields()) {
        return first.clone();
    }
    let mut fields = first.fields().to_vec();
    for schema in &schemas[1..] {
        // Two columns of one name stay two: whoever uses them is told.
        let known = fields.len();
        for field in schema.fields() {
            match fields[..known].iter().position(|known| known.name() == field.name()) {
                Some(at) => fields[at] = item(&fields[at], field, "").unwrap_or_else(|_| fields[at].clone()),
                None => fields.push(field.clone()),
            }
        }
    }
    Arc::new(Schema::new_with_metadata(fields, first.metadata().clone()))
}

/// Brings a shard's record batches to the types that its source has declared.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    uri: String,
    /// Where the columns in use are in the shard.
    pub positions: Arc<[usize]>,
    /// As declared.
    schema: SchemaRef,
    /// Their types in the shard.
    found: Arc<[DataType]>,
}

impl Adapter {
    /// For a shard with the schema `found`, of which the columns of `expected` are in use.
    ///
    /// # Errors
    /// [`Error::SchemaDrift`] for the first column that is missing, or whose type does not fit into the expected one.
    pub fn new(uri: &str, expected: SchemaRef, found: &Schema) -> Result<Self> {
        let drift = |column: String, found: &str, expected: &str| Error::SchemaDrift {
            column,
            uri: uri.to_owned(),
            found: short(found),
            expected: short(expected),
        };
        for field in expected.fields() {
            let Ok(other) = found.field_with_name(field.name()) else {
                return Err(drift(field.name().clone(), "missing", &field.data_type().to_string()));
            };
            let unlike = |d: Difference| drift(format!("{}{}", field.name(), d.path), &d.second, &d.first);
            if common(field.data_type(), other.data_type()).map_err(unlike)? != *field.data_type() {
                let [found, expected] = [other, field].map(|field| field.data_type().to_string());
                return Err(drift(field.name().clone(), &found, &expected));
            }
        }
        let names: Vec<_> = expected.fields().iter().map(|field| field.name().clone()).collect();
        let positions: Arc<[_]> = positions(uri, found, &names)?.into();
        let types = positions.iter().map(|&at| found.field(at).data_type().clone()).collect();
        Ok(Self { uri: uri.to_owned(), positions, schema: expected, found: types })
    }

    /// A record batch of the columns in use. A text column that came as bytes, since they are not all UTF-8, stays so.
    ///
    /// # Errors
    /// [`Error::SchemaDrift`] for a value that the declared type does not hold: a time so far away that the finer unit
    /// of other shards does not reach it. [`Error::Corrupt`] for nulls in a column that is declared to have none.
    pub fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut schema = self.schema.clone();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (at, column) in batch.columns().iter().enumerate() {
            let declared = self.schema.field(at);
            if column.data_type() == declared.data_type() {
                columns.push(column.clone());
            } else if *column.data_type() == self.found[at] {
                columns.push(exactly(column, declared.data_type()).map_err(|cause| Error::SchemaDrift {
                    column: declared.name().clone(),
                    uri: self.uri.clone(),
                    found: short(&format!("{} ({cause})", column.data_type())),
                    expected: short(&declared.data_type().to_string()),
                })?);
            } else {
                let mut fields = schema.fields().to_vec();
                fields[at] = Arc::new(declared.clone().with_data_type(column.data_type().clone()));
                schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
                columns.push(column.clone());
            }
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(|cause| Error::Corrupt {
            uri: self.uri.clone(),
            place: String::new(),
            expected: "Parquet or Arrow IPC",
            cause: cause.into(),
        })
    }
}

/// The same values as another type: no value becomes null or another one.
pub(crate) fn exactly(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// A type may be longer than a page.
fn short(text: &str) -> String {
    if text.chars().count() <= LONG { text.to_owned() } else { text.chars().take(LONG - 1).chain(['…']).collect() }
}

const LONG: usize = 100;
