//! Reads one Parquet file, row group by row group.

mod footer;
mod pages;
mod types;
mod varint;

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use self::footer::impossible_columns;
pub(super) use self::footer::is_encrypted;
use self::pages::CheckedRowGroup;
use super::decode::{Emit, MAX_BATCH_BYTES, MAX_BATCH_ROWS, PartRequest, Texts, corrupt, order_of};
use super::location::{Location, ShardReader};
use super::texts::{bytes_to_texts, texts_as_bytes};
use crate::error::Result;
use crate::panics::guarded;
use crate::telemetry;

#[derive(Debug)]
pub(super) struct ParquetFile {
    metadata: ArrowReaderMetadata,
    /// The same metadata with all texts as bytes, made when it is first needed; see [`Texts`].
    as_bytes: OnceLock<Option<ArrowReaderMetadata>>,
    /// The columns whose texts the decoder does not check for UTF-8, since only the Arrow schema beside the Parquet
    /// schema says that they are texts.
    unchecked: Vec<usize>,
}

impl ParquetFile {
    /// Reads the footer and checks it.
    pub fn open(location: &Location, input: &mut ShardReader) -> Result<Self> {
        let damaged = |cause| corrupt(location, None, cause);
        // The decoder reports a footer that cannot be read at all.
        if let Ok(Some(reason)) = impossible_columns(input) {
            return Err(damaged(reason.into()));
        }
        let input = &*input;
        let bare = ArrowReaderMetadata::load(input, ArrowReaderOptions::new().with_skip_arrow_metadata(true));
        let bare = bare.map_err(|e| damaged(e.into()))?;
        check_footer(bare.metadata()).map_err(|reason| damaged(reason.into()))?;
        // A writer may leave its Arrow schema in the footer, which tells more. It is wrong if another program has
        // changed the columns since.
        let hinted = guarded(|| ArrowReaderMetadata::try_new(bare.metadata().clone(), ArrowReaderOptions::new()));
        let metadata = match hinted {
            Ok(Ok(hinted)) => hinted,
            Ok(Err(error)) => {
                telemetry::arrow_schema_ignored(&location.uri(), &error);
                bare
            }
            Err(panic) => {
                telemetry::arrow_schema_ignored(&location.uri(), &panic);
                bare
            }
        };
        let metadata = match types::with_microseconds(metadata.schema(), metadata.parquet_schema()) {
            Some(schema) => retyped(metadata.metadata().clone(), schema).map_err(|e| damaged(e.into()))?,
            None => metadata,
        };
        let unchecked = types::unchecked_texts(metadata.schema(), metadata.parquet_schema());
        Ok(Self { metadata, as_bytes: OnceLock::new(), unchecked })
    }

    pub fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    pub fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    pub fn row_group_rows(&self, row_group: usize) -> usize {
        usize::try_from(self.row_group(row_group).num_rows()).unwrap_or(0)
    }

    /// Returns how to read the texts of these columns at first.
    pub fn texts(&self, columns: &[usize]) -> Texts {
        if columns.iter().any(|column| self.unchecked.contains(column)) { Texts::Lenient } else { Texts::Strict }
    }

    /// Returns the byte ranges of these columns in a row group.
    pub fn spans(&self, row_group: usize, columns: &[usize]) -> Vec<Range<u64>> {
        let mask = self.mask(columns);
        let chunks = self.row_group(row_group).columns().iter().enumerate();
        let used = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf)).map(|(_, chunk)| chunk.byte_range());
        used.map(|(start, length)| start..start.saturating_add(length)).collect()
    }

    /// Reads a row group.
    pub fn read(
        &self,
        location: &Location,
        input: ShardReader,
        part: PartRequest<'_>,
        emit: Emit<'_>,
    ) -> Result<ControlFlow<()>> {
        let damaged = |cause| corrupt(location, None, cause);
        let metadata = match part.texts {
            Texts::Strict => &self.metadata,
            Texts::Lenient => {
                let made = self.as_bytes.get_or_init(|| with_bytes(&self.metadata));
                made.as_ref().ok_or_else(|| damaged("its texts cannot be read as bytes".into()))?
            }
        };
        let order = order_of(part.columns);
        let row_group =
            CheckedRowGroup { input: Arc::new(input), metadata: metadata.metadata().clone(), number: part.number };
        let rest = (part.skip > 0).then(|| {
            let left = self.row_group_rows(part.number).saturating_sub(part.skip);
            RowSelection::from(vec![RowSelector::skip(part.skip), RowSelector::select(left)])
        });
        let mask = self.mask(part.columns);
        let fields = metadata.schema().fields();
        let levels = parquet_to_arrow_field_levels(metadata.parquet_schema(), mask, Some(fields));
        let batch_size = self.rows_at_once(part.number, part.columns);
        let batches = levels.and_then(|levels| {
            ParquetRecordBatchReader::try_new_with_row_groups(&levels, &row_group, batch_size, rest)
        });
        for batch in batches.map_err(|e| damaged(e.into()))? {
            let batch =
                batch.and_then(|batch| bytes_to_texts(batch.project(&order)?, self.metadata.schema(), part.columns));
            if let ControlFlow::Break(()) = emit(batch.map_err(|e| damaged(e.into()))?) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn row_group(&self, row_group: usize) -> &RowGroupMetaData {
        self.metadata.metadata().row_group(row_group)
    }

    /// Returns the rows of a record batch: fewer if the rows of the row group are long on average.
    fn rows_at_once(&self, row_group: usize, columns: &[usize]) -> usize {
        let mask = self.mask(columns);
        let row_group = self.row_group(row_group);
        let chunks = row_group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        // With a dictionary, a chunk is shorter than its values; newer files tell how long these are.
        let bytes = |chunk: &ColumnChunkMetaData| {
            chunk.uncompressed_size().max(chunk.unencoded_byte_array_data_bytes().unwrap_or(0)).max(0)
        };
        let bytes: i64 = chunks.map(|(_, chunk)| bytes(chunk)).fold(0, i64::saturating_add);
        let row_bytes = usize::try_from(bytes / row_group.num_rows().max(1)).unwrap_or(usize::MAX).max(1);
        MAX_BATCH_ROWS.min((MAX_BATCH_BYTES / row_bytes).max(1))
    }

    fn mask(&self, columns: &[usize]) -> ProjectionMask {
        ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied())
    }
}

/// Refuses a footer that contradicts itself: nothing can be counted against it. The error is the reason.
fn check_footer(metadata: &ParquetMetaData) -> Result<(), String> {
    let mut rows = 0i64;
    for (number, row_group) in metadata.row_groups().iter().enumerate() {
        let count = row_group.num_rows();
        rows = Some(count)
            .filter(|count| *count >= 0)
            .and_then(|count| rows.checked_add(count))
            .ok_or_else(|| format!("its footer says that row group {number} has {count} rows"))?;
        let negative = |chunk: &&ColumnChunkMetaData| {
            let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
            start < 0 || chunk.compressed_size() < 0
        };
        if let Some(chunk) = row_group.columns().iter().find(negative) {
            let column = chunk.column_path();
            return Err(format!(
                "its footer says that row group {number} has column `{column}` before the file's start"
            ));
        }
    }
    let promised = metadata.file_metadata().num_rows();
    // The decoder stops at the promised number, whatever the row groups hold.
    if rows != promised {
        return Err(format!("its footer says that it has {promised} rows, and its row groups {rows}"));
    }
    Ok(())
}

/// Returns the metadata with other types of columns.
fn retyped(metadata: Arc<ParquetMetaData>, schema: Schema) -> parquet::errors::Result<ArrowReaderMetadata> {
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new().with_schema(Arc::new(schema)))
}

/// Returns the metadata with all texts as bytes.
fn with_bytes(metadata: &ArrowReaderMetadata) -> Option<ArrowReaderMetadata> {
    let schema = texts_as_bytes(metadata.schema());
    let bare = types::without_texts(metadata.metadata()).ok()?;
    retyped(Arc::new(bare), schema).ok()
}
