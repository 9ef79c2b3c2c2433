//! One Parquet file, row group by row group.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::file::{Emit, Listening, ROWS, corrupt};
use crate::error::{Cause, Error, Result};

#[derive(Clone, Debug)]
pub(super) struct ParquetFile {
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = ArrowReaderMetadata::load(&open(path)?, ArrowReaderOptions::new());
        Ok(Self { metadata: metadata.map_err(|e| corrupt(path, String::new(), e.into()))? })
    }

    pub fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    pub fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    pub fn row_group_rows(&self, row_group: usize) -> Option<usize> {
        usize::try_from(self.metadata.metadata().row_group(row_group).num_rows()).ok()
    }

    pub fn read(&self, path: &Path, row_group: usize, columns: &[usize], emit: Emit<'_>) -> Result<Listening> {
        let order = order_of(columns);
        for batch in self.reader(path, row_group, columns)? {
            let batch = batch.and_then(|b| b.project(&order));
            let batch = batch.map_err(|e| self.corrupt_column(path, row_group, columns, e.into()))?;
            if let Listening::No = emit(batch) {
                return Ok(Listening::No);
            }
        }
        Ok(Listening::Yes)
    }

    fn reader(&self, path: &Path, row_group: usize, columns: &[usize]) -> Result<ParquetRecordBatchReader> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(open(path)?, self.metadata.clone())
            .with_row_groups(vec![row_group])
            .with_projection(mask)
            .with_batch_size(ROWS)
            .build()
            .map_err(|e| self.corrupt_column(path, row_group, columns, e.into()))
    }

    /// Reads the columns of a damaged row group one by one, to name the one that is damaged.
    fn corrupt_column(&self, path: &Path, row_group: usize, columns: &[usize], cause: Cause) -> Error {
        let damaged = |column: &&usize| {
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), [**column]);
            let Ok(file) = File::open(path) else { return false };
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_row_groups(vec![row_group])
                .with_projection(mask)
                .build()
                .map_or(true, |mut reader| reader.any(|batch| batch.is_err()))
        };
        let column = columns.iter().find(damaged).map(|&c| self.metadata.schema().field(c).name());
        let column = column.map(|c| format!(", column `{c}`")).unwrap_or_default();
        corrupt(path, format!(", row group {row_group}{column}"), cause)
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|cause| Error::Io { action: "open", path: path.into(), cause })
}

/// A projected reader gives columns in the file's order; these positions in its output restore the order asked for.
pub(super) fn order_of(columns: &[usize]) -> Vec<usize> {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    columns.iter().map(|c| sorted.partition_point(|s| s < c)).collect()
}
