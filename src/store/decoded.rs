//! Decodes record batches for a cache file: dictionaries, runs and list views, and texts that are not UTF-8.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::source::readable;

/// Returns the schema without dictionaries and runs, at any depth, and with lists in place of list views.
///
/// An IPC file holds one dictionary a column, a source may have one a row group; and list views of a slice would also
/// store the items that it leaves out. Columns of texts are nullable, since a text that is not UTF-8 becomes null.
pub(crate) fn decoded_schema(schema: &Schema) -> Schema {
    let column = |field: &FieldRef| {
        let field = decoded_field(field);
        let nullable = field.is_nullable() || holds_texts(field.data_type());
        Arc::new(field.as_ref().clone().with_nullable(nullable))
    };
    Schema::new(schema.fields().iter().map(column).collect::<Vec<_>>())
}

fn decoded_field(field: &FieldRef) -> FieldRef {
    // Both may have nulls among their values.
    let hides = matches!(field.data_type(), DataType::Dictionary(..) | DataType::RunEndEncoded(..));
    let nullable = hides || field.is_nullable();
    Arc::new(field.as_ref().clone().with_data_type(decoded_type(field.data_type())).with_nullable(nullable))
}

fn decoded_type(data_type: &DataType) -> DataType {
    use DataType::{
        Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Timestamp,
    };
    match data_type {
        Dictionary(_, value) => decoded_type(value),
        RunEndEncoded(_, values) => decoded_type(values.data_type()),
        List(item) | ListView(item) => List(decoded_field(item)),
        LargeList(item) | LargeListView(item) => LargeList(decoded_field(item)),
        FixedSizeList(item, length) => FixedSizeList(decoded_field(item), *length),
        Struct(fields) => Struct(fields.iter().map(decoded_field).collect()),
        Map(entries, sorted) => Map(decoded_field(entries), *sorted),
        // In Arrow's format an empty name means no time zone, and its writers leave it out.
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

/// The values of a column that are null since a text in them is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadTexts {
    pub column: String,
    /// The row of the first one in its segment.
    pub first: usize,
    pub count: usize,
}

impl BadTexts {
    /// Formats it as a line. The column comes last, since its name may have spaces.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.first, self.count, self.column.replace('\n', " "))
    }

    /// Parses what [`line`](Self::line) returned.
    pub fn of_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let first = words.next()?.parse().ok()?;
        let count = words.next()?.parse().ok()?;
        Some(Self { column: words.next()?.to_owned(), first, count })
    }
}

/// Decodes the record batches of a segment, one after another.
pub(super) struct Decoder {
    schema: SchemaRef,
    /// The rows decoded so far.
    rows: usize,
    /// What was not UTF-8 so far, by column.
    bad: Vec<Option<BadTexts>>,
}

impl Decoder {
    pub fn new(schema: SchemaRef) -> Self {
        let bad = vec![None; schema.fields().len()];
        Self { schema, rows: 0, bad }
    }

    /// Decodes a record batch: dictionaries, runs and list views.
    pub fn decode(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for index in 0..batch.num_columns() {
            columns.push(self.column(index, batch.column(index))?);
        }
        self.rows += batch.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }

    fn column(&mut self, index: usize, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let field = self.schema.field(index);
        let (column, bad) = readable(column, field.data_type())?;
        if let Some(first) = bad.first() {
            let first = self.rows + first;
            let name = field.name().clone();
            self.bad[index].get_or_insert(BadTexts { column: name, first, count: 0 }).count += bad.len();
        }
        Ok(column)
    }

    /// Returns the texts that were not UTF-8, by column.
    pub fn bad_texts(self) -> Vec<BadTexts> {
        self.bad.into_iter().flatten().collect()
    }
}
