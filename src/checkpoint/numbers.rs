//! Files of whole numbers: what was left of an epoch, and the steps at which vectors were pushed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};

use crate::arrow_file::{self, FORMAT_VERSION};
use crate::error::{Error, Result};

/// Saves numbers, and a few more in the file's metadata.
pub(super) fn save(path: &Path, numbers: &[u64], more: &[u64]) -> Result<()> {
    let named = MORE.iter().zip(more).map(|(key, number)| ((*key).to_owned(), number.to_string()));
    let metadata: HashMap<_, _> = [(FORMAT_VERSION.to_owned(), FORMAT.to_owned())].into_iter().chain(named).collect();
    let fields = vec![Field::new("numbers", DataType::UInt64, false)];
    let schema = Schema::new_with_metadata(fields, metadata);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(UInt64Array::from(numbers.to_vec()))]);
    arrow_file::save(path, &batch.map_err(|cause| Error::Arrow { action: "save a checkpoint", cause })?)
}

/// Opens what [`save`] has saved. Fewer than `least` in the metadata are an error.
pub(super) fn open(path: &Path, least: usize) -> Result<(Vec<u64>, Vec<u64>)> {
    arrow_file::open_one(path, FORMAT, "numbers of a checkpoint that this version reads", |schema, batch| {
        let more: Vec<u64> = MORE.iter().map_while(|key| schema.metadata().get(key)?.parse().ok()).collect();
        let numbers = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>());
        match numbers.filter(|_| more.len() >= least) {
            Some(numbers) => Ok((numbers.values().to_vec(), more)),
            None => Err("it holds something else".to_owned()),
        }
    })
}

/// The keys of the numbers in the metadata.
const MORE: [&str; 4] = ["a", "b", "c", "d"];

/// Raised if older releases would misread a file.
const FORMAT: &str = "1";
