//! What record batches become in a cache file: without what only packs values, and without texts that are none.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::error::{Error, Result};
use crate::source::readable;

/// The schema without dictionaries and runs, however deep, and with lists in place of list views. An IPC file holds one
/// dictionary a column, a source may have one a row group; views of a slice would bring along what it leaves out.
/// Columns of texts may have nulls: a text that is no UTF-8 becomes one.
pub(crate) fn plain(schema: &Schema) -> Schema {
    let column = |field: &FieldRef| {
        let field = plain_field(field);
        let nullable = field.is_nullable() || holds_texts(field.data_type());
        Arc::new(field.as_ref().clone().with_nullable(nullable))
    };
    Schema::new(schema.fields().iter().map(column).collect::<Vec<_>>())
}

fn plain_field(field: &FieldRef) -> FieldRef {
    // Both hide nulls among their values.
    let hides = matches!(field.data_type(), DataType::Dictionary(..) | DataType::RunEndEncoded(..));
    let nullable = hides || field.is_nullable();
    Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())).with_nullable(nullable))
}

fn plain_type(data_type: &DataType) -> DataType {
    use DataType::{
        Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Timestamp,
    };
    match data_type {
        Dictionary(_, value) => plain_type(value),
        RunEndEncoded(_, values) => plain_type(values.data_type()),
        List(item) | ListView(item) => List(plain_field(item)),
        LargeList(item) | LargeListView(item) => LargeList(plain_field(item)),
        FixedSizeList(item, length) => FixedSizeList(plain_field(item), *length),
        Struct(fields) => Struct(fields.iter().map(plain_field).collect()),
        Map(entries, sorted) => Map(plain_field(entries), *sorted),
        // Arrow's format takes an empty name for no time zone, and its writers leave it out.
        Timestamp(unit, Some(zone)) if zone.is_empty() => Timestamp(*unit, None),
        other => other.clone(),
    }
}

fn holds_texts(data_type: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct};
    match data_type {
        List(item) | LargeList(item) | FixedSizeList(item, _) | Map(item, _) => holds_texts(item.data_type()),
        Struct(fields) => fields.iter().any(|field| holds_texts(field.data_type())),
        other => other.is_string(),
    }
}

/// Values of a column that are null since a text in them is no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadTexts {
    pub column: String,
    /// The first one's row in its segment.
    pub first: usize,
    pub count: usize,
}

impl BadTexts {
    /// A line for it. The column comes last: its name may have spaces.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.first, self.count, self.column.replace('\n', " "))
    }

    pub fn of_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { column: words.next()?.to_owned(), first, count })
    }
}

/// Makes the record batches of a segment plain, one after another.
pub(super) struct Plain {
    schema: SchemaRef,
    /// So far.
    rows: usize,
    bad: Vec<Option<BadTexts>>,
}

impl Plain {
    pub fn new(schema: SchemaRef) -> Self {
        let bad = vec![None; schema.fields().len()];
        Self { schema, rows: 0, bad }
    }

    pub fn convert(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        let failed = |cause| Error::Arrow { action: "store a record batch", cause };
        for at in 0..batch.num_columns() {
            columns.push(self.column(at, batch.column(at)).map_err(failed)?);
        }
        self.rows += batch.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(failed)
    }

    fn column(&mut self, at: usize, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let field = self.schema.field(at);
        let (column, bad) = readable(column, field.data_type())?;
        if let Some(first) = bad.first() {
            let first = self.rows + first;
            let name = field.name().clone();
            self.bad[at].get_or_insert(BadTexts { column: name, first, count: 0 }).count += bad.len();
        }
        Ok(column)
    }

    pub fn bad_texts(self) -> Vec<BadTexts> {
        self.bad.into_iter().flatten().collect()
    }
}
