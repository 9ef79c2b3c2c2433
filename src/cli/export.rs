//! `prosampler export`: rows, their embeddings and their neighbors, for tools that browse data.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, ListBuilder, PrimitiveBuilder, RecordBatch, StructArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, Field, Fields, Float32Type, Int64Type, Schema};
use clap::Args;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::ending::Ending;
use super::out::unfinished;
use super::progress::{StageBars, thousands};
use crate::config::{CheckpointConfig, PipelineConfig};
use crate::refresh::Snapshot;
use crate::{ComputePool, Error, Pipeline, Result, SampleId};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    /// The pipeline file.
    pipeline: PathBuf,

    /// The Parquet file to write, with the columns that embedding-atlas reads: those of the rows, `sample_id`,
    /// `embedding` and `neighbors`. It is replaced if it is there.
    #[arg(long, value_name = "FILE")]
    atlas: PathBuf,

    /// Another setting than the file's, for example source.filter="label = 'noun.animal'". May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Export {
    pub async fn run(self) -> Result<Ending> {
        let mut config = PipelineConfig::from_file_with(&self.pipeline, &self.set)?;
        config.walk.warm_up = None;
        config.stream.rank = 0;
        config.stream.world_size = 1;
        config.checkpoint = CheckpointConfig::default();
        let pool = ComputePool::new(config.compute.threads)?;
        let mut bars = StageBars::new();
        let stream = Pipeline::from_config(config).on_progress(move |progress| bars.show(progress)).start().await?;
        let Some(snapshot) = stream.snapshot() else { return Ok(Ending::Done) };
        drop(stream);
        let rows = snapshot.embeddings.len();
        let atlas = self.atlas.clone();
        pool.run("export", move || self.write(&snapshot)).await?;
        note!("{}: {} rows; open it: embedding-atlas {}", atlas.display(), thousands(rows as u64), atlas.display());
        Ok(Ending::Done)
    }

    /// Writes all rows under a temporary name, then gives the file its own.
    fn write(&self, snapshot: &Snapshot) -> Result<()> {
        let schema = snapshot.store.schema();
        if let Some(taken) = OWN.iter().find(|name| schema.field_with_name(name).is_ok()) {
            let message = format!("would have two columns `{taken}`; leave the data's out by source.columns");
            return Err(Error::setting("source.columns", message));
        }
        let failed = |cause| Error::Io { action: "write", path: self.atlas.clone(), cause };
        let not_written = |cause: parquet::errors::ParquetError| failed(std::io::Error::other(cause));
        let mut batches = snapshot.store.record_batches().map(|item| {
            let (first, rows) = item?;
            with_columns(snapshot, first, rows)
        });
        // A snapshot has two samples at least.
        let Some(first) = batches.next().transpose()? else { return Ok(()) };
        let file = unfinished(&self.atlas).map_err(failed)?;
        let zstd = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(zstd).build();
        let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(not_written)?;
        for rows in std::iter::once(Ok(first)).chain(batches) {
            writer.write(&rows?).map_err(not_written)?;
        }
        let file = writer.into_inner().map_err(not_written)?;
        file.persist(&self.atlas).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

/// Rows from `first` on, with the columns of this file.
fn with_columns(snapshot: &Snapshot, first: SampleId, rows: &RecordBatch) -> Result<RecordBatch> {
    let ids: Vec<SampleId> = (first.index()..).take(rows.num_rows()).map(SampleId::new).collect();
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    let added: [ArrayRef; 3] = [
        Arc::new(UInt32Array::from_iter_values(ids.iter().map(|id| id.0))),
        Arc::new(embeddings(snapshot, &ids)),
        Arc::new(neighbors(snapshot, &ids)),
    ];
    for (name, column) in OWN.into_iter().zip(added) {
        fields.push(Field::new(name, column.data_type().clone(), true).into());
        columns.push(column);
    }
    RecordBatch::try_new(Schema::new(fields).into(), columns)
        .map_err(|cause| Error::Arrow { action: "export rows", cause })
}

/// The embeddings of samples. Null for skipped samples.
fn embeddings(snapshot: &Snapshot, ids: &[SampleId]) -> FixedSizeListArray {
    let table = &snapshot.embeddings;
    let vectors =
        ids.iter().map(|&id| (!table.is_skipped(id)).then(|| table.get(id).iter().map(|&x| Some(x)).collect()));
    let vectors = vectors.collect::<Vec<Option<Vec<Option<f32>>>>>();
    FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, table.dimension() as i32)
}

/// The neighbors of samples, `{ids, distances}`: row numbers from 0, and 1 − similarity. Null for skipped samples.
fn neighbors(snapshot: &Snapshot, ids: &[SampleId]) -> StructArray {
    let of = |id: &SampleId| if snapshot.embeddings.is_skipped(*id) { &[][..] } else { snapshot.graph.neighbors(*id) };
    let rows = lists::<Int64Type>(ids.iter().map(|id| of(id).iter().map(|to| i64::from(to.0)).collect()));
    let distances = ids.iter().map(|id| {
        let similarities = snapshot.graph.similarities(*id).iter().take(of(id).len());
        similarities.map(|similarity| 1.0 - similarity).collect()
    });
    let distances = lists::<Float32Type>(distances);
    let field = |name: &str, column: &ArrayRef| Field::new(name, column.data_type().clone(), true);
    let fields = Fields::from(vec![field("ids", &rows), field("distances", &distances)]);
    let present: NullBuffer = ids.iter().map(|id| !snapshot.embeddings.is_skipped(*id)).collect::<Vec<bool>>().into();
    StructArray::new(fields, vec![rows, distances], Some(present))
}

fn lists<T: ArrowPrimitiveType>(rows: impl Iterator<Item = Vec<T::Native>>) -> ArrayRef {
    let mut lists = ListBuilder::new(PrimitiveBuilder::<T>::new());
    for row in rows {
        lists.values().append_slice(&row);
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// The columns that are added.
const OWN: [&str; 3] = ["sample_id", "embedding", "neighbors"];

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler export pipelines/images.toml --atlas images.parquet
  prosampler export pipelines/text.toml --atlas animals.parquet --set \"source.filter=label = 'noun.animal'\"";
