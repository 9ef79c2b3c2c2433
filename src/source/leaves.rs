//! The leaves of a schema: the columns, or parts of nested ones, that have values of their own.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};

/// Returns the schema with `change` applied to the types of its leaves.
///
/// Leaves are numbered depth first, as those of a Parquet schema are.
pub(super) fn with_leaves(schema: &Schema, change: &mut dyn FnMut(usize, &DataType) -> DataType) -> Schema {
    let mut leaf = 0;
    let fields: Vec<_> = schema.fields().iter().map(|field| with_leaf(field, &mut leaf, change)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn with_leaf(field: &Field, leaf: &mut usize, change: &mut dyn FnMut(usize, &DataType) -> DataType) -> FieldRef {
    let mut inner = |field: &FieldRef| with_leaf(field, leaf, change);
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::ListView(item) => DataType::ListView(inner(item)),
        DataType::LargeListView(item) => DataType::LargeListView(inner(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(inner(item), *length),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        data_type => {
            *leaf += 1;
            change(*leaf - 1, data_type)
        }
    };
    Arc::new(field.clone().with_data_type(data_type))
}
