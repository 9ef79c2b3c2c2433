//! One Parquet file, row group by row group.

use std::ops::Range;

use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ColumnChunkMetaData;

use super::data_file::{BYTES, Emit, Listening, ROWS, corrupt};
use super::location::{Input, Location};
use crate::error::Result;

#[derive(Clone, Debug)]
pub(super) struct ParquetFile {
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    pub fn open(location: &Location, input: &Input) -> Result<Self> {
        let metadata = ArrowReaderMetadata::load(input, ArrowReaderOptions::new());
        Ok(Self { metadata: metadata.map_err(|e| corrupt(location, String::new(), e.into()))? })
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

    /// Where the column chunks of these columns lie in the file.
    pub fn spans(&self, row_group: usize, columns: &[usize]) -> Vec<Range<u64>> {
        let mask = self.mask(columns);
        let chunks = self.metadata.metadata().row_group(row_group).columns().iter().enumerate();
        let used = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf)).map(|(_, chunk)| chunk.byte_range());
        used.map(|(start, length)| start..start.saturating_add(length)).collect()
    }

    pub fn read(
        &self,
        location: &Location,
        input: Input,
        row_group: usize,
        columns: &[usize],
        emit: Emit<'_>,
    ) -> Result<Listening> {
        let damaged = |cause| corrupt(location, String::new(), cause);
        let order = order_of(columns);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(input, self.metadata.clone())
            .with_row_groups(vec![row_group])
            .with_projection(self.mask(columns))
            .with_batch_size(self.rows_at_once(row_group, columns))
            .build()
            .map_err(|e| damaged(e.into()))?;
        for batch in reader {
            let batch = batch.and_then(|b| b.project(&order)).map_err(|e| damaged(e.into()))?;
            if let Listening::No = emit(batch) {
                return Ok(Listening::No);
            }
        }
        Ok(Listening::Yes)
    }

    /// Rows of a record batch: fewer than others have where they are long on the average.
    fn rows_at_once(&self, row_group: usize, columns: &[usize]) -> usize {
        let (mask, row_group) = (self.mask(columns), self.metadata.metadata().row_group(row_group));
        let chunks = row_group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        // A dictionary makes a chunk shorter than its values; newer files tell how long these are.
        let bytes = |chunk: &ColumnChunkMetaData| {
            chunk.uncompressed_size().max(chunk.unencoded_byte_array_data_bytes().unwrap_or(0)).max(0)
        };
        let bytes: i64 = chunks.map(|(_, chunk)| bytes(chunk)).fold(0, i64::saturating_add);
        let long = usize::try_from(bytes / row_group.num_rows().max(1)).unwrap_or(usize::MAX).max(1);
        ROWS.min((BYTES / long).max(1))
    }

    fn mask(&self, columns: &[usize]) -> ProjectionMask {
        ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied())
    }

    /// Reads the columns of a damaged row group one by one, to name the one that is damaged.
    pub fn damaged(&self, location: &Location, row_group: usize, columns: &[usize]) -> Option<&str> {
        let damaged = |column: &&usize| {
            let Ok(input) = location.open(&self.spans(row_group, &[**column]), 1) else { return false };
            ParquetRecordBatchReaderBuilder::new_with_metadata(input, self.metadata.clone())
                .with_row_groups(vec![row_group])
                .with_projection(self.mask(&[**column]))
                .build()
                .map_or(true, |mut reader| reader.any(|batch| batch.is_err()))
        };
        columns.iter().find(damaged).map(|&c| self.metadata.schema().field(c).name().as_str())
    }
}

/// A projected reader gives columns in the file's order; these positions in its output restore the order asked for.
pub(super) fn order_of(columns: &[usize]) -> Vec<usize> {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    columns.iter().map(|c| sorted.partition_point(|s| s < c)).collect()
}
