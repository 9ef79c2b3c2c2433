//! Files of whole numbers: what was left of an epoch, and the steps at which vectors were pushed.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};

use crate::arrow_file::{self, FORMAT_VERSION};
use crate::error::{Error, Result};

/// Saves numbers, and two more in the file's metadata.
pub(super) fn save(path: &Path, numbers: &[u64], more: [u64; 2]) -> Result<()> {
    let metadata = [(FORMAT_VERSION, FORMAT.to_owned()), ("a", more[0].to_string()), ("b", more[1].to_string())];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let fields = vec![Field::new("numbers", DataType::UInt64, false)];
    let schema = Schema::new_with_metadata(fields, metadata);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(UInt64Array::from(numbers.to_vec()))]);
    arrow_file::save(path, &batch.map_err(|cause| Error::Arrow { action: "save a checkpoint", cause })?)
}

/// Opens what [`save`] has saved.
pub(super) fn open(path: &Path) -> Result<(Vec<u64>, [u64; 2])> {
    arrow_file::open_one(path, FORMAT, "numbers of a checkpoint that this version reads", |schema, batch| {
        let more = ["a", "b"].map(|key| schema.metadata().get(key).and_then(|value| value.parse().ok()));
        let numbers = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>());
        match (numbers, more) {
            (Some(numbers), [Some(a), Some(b)]) => Ok((numbers.values().to_vec(), [a, b])),
            _ => Err("it holds something else".to_owned()),
        }
    })
}

/// Raised if older releases would misread a file.
const FORMAT: &str = "1";
