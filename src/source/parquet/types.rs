//! Chooses the types of columns for which the decoder's own choice would lose values.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use parquet::basic::{ConvertedType, Type as Physical};
use parquet::errors::Result;
use parquet::file::metadata::{FileMetaData, ParquetMetaData};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::source::leaves::with_leaves;
use crate::source::texts::is_text;

/// Returns the schema with INT96 timestamps in microseconds; `None` if there are none.
///
/// Microseconds reach from 290,000 years ago to as many ahead. Nanoseconds reach from 1677 to 2262 only, and wrap.
pub(super) fn with_microseconds(schema: &Schema, stored: &SchemaDescriptor) -> Option<Schema> {
    let is_int96 = |leaf: usize| stored.columns().get(leaf).is_some_and(|c| c.physical_type() == Physical::INT96);
    if !(0..stored.num_columns()).any(is_int96) {
        return None;
    }
    Some(with_leaves(schema, &mut |leaf, data_type| match data_type {
        DataType::Timestamp(_, zone) if is_int96(leaf) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    }))
}

/// Returns the columns with texts that the decoder does not check for UTF-8.
///
/// These are texts by the Arrow schema alone, or by an annotation such as JSON.
pub(super) fn unchecked_texts(schema: &Schema, stored: &SchemaDescriptor) -> Vec<usize> {
    let mut columns = Vec::new();
    with_leaves(schema, &mut |leaf, data_type| {
        let checked = stored.columns().get(leaf).is_some_and(|c| c.converted_type() == ConvertedType::UTF8);
        if is_text(data_type) && !checked {
            columns.push(stored.get_column_root_idx(leaf));
        }
        data_type.clone()
    });
    columns
}

/// Returns the metadata with a Parquet schema in which no column is annotated as text.
pub(super) fn without_texts(metadata: &ParquetMetaData) -> Result<ParquetMetaData> {
    let file = metadata.file_metadata();
    let stored = SchemaDescriptor::new(without_text(file.schema_descr().root_schema_ptr())?);
    let orders = file.column_orders().cloned();
    let file = FileMetaData::new(file.version(), file.num_rows(), None, None, Arc::new(stored), orders);
    Ok(ParquetMetaData::new(file, metadata.row_groups().to_vec()))
}

fn without_text(stored: TypePtr) -> Result<TypePtr> {
    let info = stored.get_basic_info();
    let id = info.has_id().then(|| info.id());
    Ok(match stored.as_ref() {
        Type::PrimitiveType { physical_type: Physical::BYTE_ARRAY, scale, precision, .. } if *precision <= 0 => {
            let bytes = Type::primitive_type_builder(info.name(), Physical::BYTE_ARRAY);
            Arc::new(bytes.with_repetition(info.repetition()).with_scale(*scale).with_id(id).build()?)
        }
        Type::PrimitiveType { .. } => stored,
        Type::GroupType { fields, .. } => {
            let group = Type::group_type_builder(info.name())
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned())
                .with_id(id)
                .with_fields(fields.iter().cloned().map(without_text).collect::<Result<_>>()?);
            let group = if info.has_repetition() { group.with_repetition(info.repetition()) } else { group };
            Arc::new(group.build()?)
        }
    })
}
