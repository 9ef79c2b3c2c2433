//! Brings files with different schemas to a common one.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use super::interface::column_indices;
use super::types::{Difference, common, exactly, item};
use crate::error::{ColumnError, Error, Result};

/// Returns the columns of all files, each with a type that holds the values of all of them.
///
/// Columns are in the order in which they first appear. A column for which there is no such type has the type of the
/// first file; [`Adapter::new`] reports it to whoever uses the column.
pub(super) fn unified(schemas: &[SchemaRef]) -> SchemaRef {
    let Some(first) = schemas.first() else { return Arc::new(Schema::empty()) };
    if schemas.iter().all(|schema| schema.fields() == first.fields()) {
        return first.clone();
    }
    let mut fields = first.fields().to_vec();
    for schema in &schemas[1..] {
        // Two columns of one name remain two: the lookup by name reports them.
        let known = fields.len();
        for field in schema.fields() {
            match fields[..known].iter().position(|known| known.name() == field.name()) {
                Some(index) => {
                    fields[index] = item(&fields[index], field, "").unwrap_or_else(|_| fields[index].clone());
                }
                None => fields.push(field.clone()),
            }
        }
    }
    Arc::new(Schema::new_with_metadata(fields, first.metadata().clone()))
}

/// Casts a file's record batches to the types that its source has declared.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    uri: String,
    /// The indices in the file of the columns in use.
    pub column_indices: Arc<[usize]>,
    /// The columns in use as the source declares them.
    schema: SchemaRef,
    /// The columns in use as the file declares them.
    found: Arc<[FieldRef]>,
}

impl Adapter {
    /// Adapts a file with the schema `found`, of which the columns of `expected` are in use.
    ///
    /// # Errors
    /// [`ColumnError::Drift`] for the first column that is missing, or whose type does not fit into the expected one.
    pub fn new(uri: &str, expected: SchemaRef, found: &Schema) -> Result<Self> {
        let drift = |column: String, found: &str, expected: &str| ColumnError::Drift {
            column,
            uri: uri.to_owned(),
            found: short(found),
            expected: short(expected),
        };
        for field in expected.fields() {
            let Ok(other) = found.field_with_name(field.name()) else {
                return Err(drift(field.name().clone(), "missing", &field.data_type().to_string()).into());
            };
            let unlike = |d: Difference| drift(format!("{}{}", field.name(), d.path), &d.second, &d.first);
            if common(field.data_type(), other.data_type()).map_err(unlike)? != *field.data_type() {
                let [found, expected] = [other, field].map(|field| field.data_type().to_string());
                return Err(drift(field.name().clone(), &found, &expected).into());
            }
        }
        let names: Vec<_> = expected.fields().iter().map(|field| field.name().clone()).collect();
        let column_indices: Arc<[_]> = column_indices(uri, found, &names)?.into();
        let fields = column_indices.iter().map(|&index| found.fields()[index].clone()).collect();
        Ok(Self { uri: uri.to_owned(), column_indices, schema: expected, found: fields })
    }

    /// Casts a record batch of the columns in use.
    ///
    /// A text column that arrives as bytes, since they are not all UTF-8, remains bytes.
    ///
    /// # Errors
    /// [`ColumnError::Drift`] for a value that the declared type does not hold, such as a time beyond the range of the
    /// finer unit that other files have, or a null in a file that came later, where those before can have none.
    pub fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut schema = self.schema.clone();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (index, column) in batch.columns().iter().enumerate() {
            let (declared, found) = (self.schema.field(index), &self.found[index]);
            if found.is_nullable() && !declared.is_nullable() && column.logical_null_count() > 0 {
                return Err(ColumnError::Drift {
                    column: declared.name().clone(),
                    uri: self.uri.clone(),
                    found: short(&format!("{} with nulls", column.data_type())),
                    expected: short(&format!("{} without", declared.data_type())),
                }
                .into());
            }
            if column.data_type() == declared.data_type() {
                columns.push(column.clone());
            } else if column.data_type() == found.data_type() {
                columns.push(exactly(column, declared.data_type()).map_err(|cause| ColumnError::Drift {
                    column: declared.name().clone(),
                    uri: self.uri.clone(),
                    found: short(&format!("{} ({cause})", column.data_type())),
                    expected: short(&declared.data_type().to_string()),
                })?);
            } else {
                let mut fields = schema.fields().to_vec();
                fields[index] = Arc::new(declared.clone().with_data_type(column.data_type().clone()));
                schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
                columns.push(column.clone());
            }
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(|cause| Error::Corrupt {
            uri: self.uri.clone(),
            place: None,
            expected: "Parquet or Arrow IPC",
            cause: cause.into(),
        })
    }
}

/// Shortens a type for a message: that of a nested column may be longer than a page.
fn short(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN_CHARS {
        text.to_owned()
    } else {
        text.chars().take(MAX_SHOWN_CHARS - 1).chain(['…']).collect()
    }
}

/// The most characters of a type that a message shows.
const MAX_SHOWN_CHARS: usize = 100;
