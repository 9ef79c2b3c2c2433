use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use tokio::sync::mpsc;

use super::memory::same_columns;
use super::{RecordBatches, Source, files, positions};
use crate::error::{Cause, Error, Result};

/// Parquet files on disk, read row group by row group.
///
/// Opening reads the footers only. Reading runs on a blocking thread of tokio, two record batches ahead at most.
#[derive(Clone, Debug)]
pub struct ParquetSource {
    uri: String,
    schema: SchemaRef,
    files: Vec<ParquetFile>,
}

#[derive(Clone, Debug)]
struct ParquetFile {
    path: PathBuf,
    /// Size in bytes and time of the last change in nanoseconds since 1970: what a cache's validity hangs on.
    version: (u64, u128),
    metadata: ArrowReaderMetadata,
}

impl ParquetSource {
    /// Opens a file, a folder of `*.parquet` files, or all that match a shell pattern.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::UnsupportedSource`], [`Error::Corrupt`] for what is no Parquet, and
    /// [`Error::SchemaDrift`] where files differ in their columns.
    pub async fn open(uri: impl Into<String>) -> Result<Self> {
        Self::open_all(vec![uri.into()]).await
    }

    /// Opens several uris as one source, in this order.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_all(uris: Vec<String>) -> Result<Self> {
        let open = move || {
            let files = files::list(&uris)?.into_iter().map(ParquetFile::open).collect::<Result<Vec<_>>>()?;
            let schema = files[0].metadata.schema().clone();
            for file in &files {
                same_columns(&file.name(), &schema, file.metadata.schema())?;
            }
            Ok(Self { uri: uris.join(", "), schema, files })
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(|e| Error::TaskDied { task: "source", message: e.to_string() })?
    }
}

/// Whether the receiving end of a channel is still there.
enum Listening {
    Yes,
    No,
}

impl Source for ParquetSource {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<usize> {
        let rows = |f: &ParquetFile| usize::try_from(f.metadata.metadata().file_metadata().num_rows()).ok();
        self.files.iter().map(rows).sum()
    }

    fn fingerprint(&self) -> Option<String> {
        let one = |f: &ParquetFile| {
            let path = std::path::absolute(&f.path).unwrap_or_else(|_| f.path.clone());
            format!("{} {} {}", path.display(), f.version.0, f.version.1)
        };
        Some(self.files.iter().map(one).collect::<Vec<_>>().join("\n"))
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let positions = positions(&self.uri, &self.schema, columns)?;
        let files = self.files.clone();
        let (tx, rx) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            for file in &files {
                match file.read(&positions, &tx) {
                    Ok(Listening::Yes) => {}
                    Ok(Listening::No) => break,
                    Err(error) => {
                        // Nobody there to hear it: then nobody needs to.
                        let _ = tx.blocking_send(Err(error));
                        break;
                    }
                }
            }
        });
        let stream = futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) });
        Ok(stream.boxed())
    }
}

impl ParquetFile {
    fn open(path: PathBuf) -> Result<Self> {
        let io = |action| {
            let path = path.clone();
            move |cause| Error::Io { action, path, cause }
        };
        let file = File::open(&path).map_err(io("open"))?;
        let about = file.metadata().map_err(io("inspect"))?;
        let modified = about.modified().map_err(io("inspect"))?;
        let version = (about.len(), modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .map_err(|e| corrupt(&path, String::new(), e.into()))?;
        Ok(Self { path, version, metadata })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Sends every record batch of the file, in order, while somebody listens.
    fn read(&self, columns: &[usize], tx: &mpsc::Sender<Result<RecordBatch>>) -> Result<Listening> {
        let order = order_of(columns);
        for row_group in 0..self.metadata.metadata().num_row_groups() {
            for batch in self.reader(row_group, columns)? {
                let batch = batch.and_then(|b| b.project(&order));
                let batch = batch.map_err(|e| self.corrupt_column(row_group, columns, e.into()))?;
                if tx.blocking_send(Ok(batch)).is_err() {
                    return Ok(Listening::No);
                }
            }
        }
        Ok(Listening::Yes)
    }

    fn reader(&self, row_group: usize, columns: &[usize]) -> Result<ParquetRecordBatchReader> {
        let file =
            File::open(&self.path).map_err(|cause| Error::Io { action: "open", path: self.path.clone(), cause })?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![row_group])
            .with_projection(mask)
            .with_batch_size(ROWS)
            .build()
            .map_err(|e| self.corrupt_column(row_group, columns, e.into()))
    }

    /// Reads the columns of a damaged row group one by one, to name the one that is damaged.
    fn corrupt_column(&self, row_group: usize, columns: &[usize], cause: Cause) -> Error {
        let damaged = |column: &&usize| {
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), [**column]);
            let Ok(file) = File::open(&self.path) else { return false };
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_row_groups(vec![row_group])
                .with_projection(mask)
                .build()
                .map_or(true, |mut reader| reader.any(|batch| batch.is_err()))
        };
        let column = columns.iter().find(damaged).map(|&c| self.metadata.schema().field(c).name());
        let column = column.map(|c| format!(", column `{c}`")).unwrap_or_default();
        corrupt(&self.path, format!(", row group {row_group}{column}"), cause)
    }
}

/// A projected reader gives columns in the file's order; these positions in its output restore the order asked for.
fn order_of(columns: &[usize]) -> Vec<usize> {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    columns.iter().map(|c| sorted.partition_point(|s| s < c)).collect()
}

fn corrupt(path: &Path, place: String, cause: Cause) -> Error {
    Error::Corrupt { uri: path.display().to_string(), place, expected: "Parquet", cause }
}

const ROWS: usize = 8192;
