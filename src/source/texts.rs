//! Texts that are decoded as bytes, since one of them may not be UTF-8.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;

use super::leaves::with_leaves;
use super::types::exactly;

/// Turns columns of bytes that are declared as texts into texts, except those with bytes that are not UTF-8.
///
/// `columns` are the indices of the record batch's columns in the schema `declared`.
pub(super) fn bytes_to_texts(
    batch: RecordBatch,
    declared: &Schema,
    columns: &[usize],
) -> Result<RecordBatch, ArrowError> {
    let declared = |index: usize| declared.field(columns[index]);
    if (0..batch.num_columns()).all(|index| batch.column(index).data_type() == declared(index).data_type()) {
        return Ok(batch);
    }
    let mut fields = batch.schema().fields().to_vec();
    let mut converted = batch.columns().to_vec();
    for (index, column) in batch.columns().iter().enumerate() {
        if let Ok(texts) = texts(column, declared(index).data_type()) {
            fields[index] = Arc::new(declared(index).clone());
            converted[index] = texts;
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), converted, &options)
}

/// Casts bytes to what was declared: texts, or a nested type with texts in it.
fn texts(column: &ArrayRef, declared: &DataType) -> Result<ArrayRef, ArrowError> {
    match declared {
        DataType::Dictionary(_, value) => exactly(&exactly(column, value)?, declared),
        other => exactly(column, other),
    }
}

/// Casts a column to the type `declared`; rows with a text that is not UTF-8 become null, and are listed.
///
/// # Errors
/// An [`ArrowError`] if the column cannot be cast for another reason.
pub(crate) fn readable(column: &ArrayRef, declared: &DataType) -> Result<(ArrayRef, Vec<usize>), ArrowError> {
    match texts(column, declared) {
        Ok(texts) => return Ok((texts, Vec::new())),
        Err(error) if !holds_bytes(column.data_type()) => return Err(error),
        Err(_) => {}
    }
    let is_bad = |row: usize| texts(&column.slice(row, 1), declared).is_err();
    let rows: Vec<_> = (0..column.len()).map(|row| (!is_bad(row)).then_some(row as u64)).collect();
    let bad = rows.iter().enumerate().filter(|(_, good)| good.is_none()).map(|(row, _)| row).collect();
    Ok((texts(&take(column, &UInt64Array::from(rows), None)?, declared)?, bad))
}

fn holds_bytes(data_type: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, FixedSizeList, LargeBinary, LargeList, LargeListView, List, ListView, Map, Struct,
    };
    match data_type {
        Binary | LargeBinary | BinaryView => true,
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => holds_bytes(item.data_type()),
        FixedSizeList(item, _) | Map(item, _) => holds_bytes(item.data_type()),
        Struct(fields) => fields.iter().any(|field| holds_bytes(field.data_type())),
        _ => false,
    }
}

/// Returns the schema with bytes in place of texts.
pub(super) fn texts_as_bytes(schema: &Schema) -> Schema {
    with_leaves(schema, &mut |_, data_type| match data_type {
        text if !is_text(text) => text.clone(),
        DataType::LargeUtf8 => DataType::LargeBinary,
        DataType::Utf8View => DataType::BinaryView,
        _ => DataType::Binary,
    })
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_text(value),
        other => other.is_string(),
    }
}
