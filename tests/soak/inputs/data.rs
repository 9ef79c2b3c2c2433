//! Files of Parquet and Arrow IPC are damaged.

use std::fs;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::SampleId;
use prosampler::arrow::array::RecordBatch;
use prosampler::arrow::compute::{cast, concat_batches};
use prosampler::arrow::datatypes::{DataType, Schema};
use prosampler::config::StoreConfig;
use prosampler::source::{FileSource, Source};
use prosampler::store::Store;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::Target;
use crate::ipc_edit::IpcLayout;
use crate::mutate::Mutant;
use crate::outcome::Outcome;
use crate::parquet_edit::ParquetLayout;
use crate::support::{path, random, runtime};
use crate::tables::{self, IpcOptions, KINDS, Kind, ParquetOptions};

pub struct Data {
    name: &'static str,
    runtime: Runtime,
    dir: TempDir,
    files: Vec<DataFile>,
}

/// An undamaged file.
pub struct DataFile {
    bytes: Vec<u8>,
    layout: Layout,
    rows: RecordBatch,
}

enum Layout {
    Parquet(ParquetLayout),
    Ipc(IpcLayout),
}

impl Data {
    pub fn new(name: &str) -> Self {
        let name = ["parquet", "ipc-file", "ipc-stream"].into_iter().find(|known| *known == name).unwrap();
        let (runtime, dir) = (runtime(), TempDir::new().unwrap());
        let files = seeds(name).into_iter().map(|bytes| DataFile::new(bytes, &runtime, &dir)).collect();
        Self { name, runtime, dir, files }
    }
}

impl Target for Data {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let mut random = random(seed, self.name, number);
        let file = &self.files[random.random_range(0..self.files.len())];
        let other = &self.files[random.random_range(0..self.files.len())];
        let mutant = file.damaged(&other.bytes, &mut random);
        if mutant.bytes == file.bytes {
            return Outcome::Right;
        }
        let stored = random.random_range(0..4) == 0;
        file.judge(&mutant, stored, &self.runtime, &self.dir)
    }
}

impl DataFile {
    pub fn new(bytes: Vec<u8>, runtime: &Runtime, dir: &TempDir) -> Self {
        let layout = match &bytes[..3] {
            b"PAR" => Layout::Parquet(ParquetLayout::of(&bytes)),
            _ => Layout::Ipc(IpcLayout::of(&bytes)),
        };
        let rows = concat(&runtime.block_on(read(&bytes, false, dir)).unwrap()).expect("record batches of one schema");
        Self { bytes, layout, rows }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn holds(&self, table: &RecordBatch) -> bool {
        concat(std::slice::from_ref(table)).is_some_and(|table| table.columns() == self.rows.columns())
    }

    /// The file, damaged in one to three places.
    pub fn damaged(&self, other: &[u8], random: &mut ChaCha8Rng) -> Mutant {
        let mut mutant = Mutant::new(&self.bytes);
        for _ in 0..[1, 1, 2, 3][random.random_range(0..4)] {
            // Bytes that have moved are no longer where the layout says.
            if !mutant.moved {
                match &self.layout {
                    Layout::Parquet(layout) => layout.damage(&mut mutant, other, random),
                    Layout::Ipc(layout) => layout.damage(&mut mutant, other, random),
                }
            }
        }
        mutant
    }

    pub fn judge(&self, mutant: &Mutant, stored: bool, runtime: &Runtime, dir: &TempDir) -> Outcome {
        let batches = match runtime.block_on(read(&mutant.bytes, stored, dir)) {
            Ok(batches) => batches,
            Err(error) => return super::refused(&error, &["damaged.data"]),
        };
        let (found, expected) = (batches.iter().map(RecordBatch::num_rows).sum::<usize>(), self.rows.num_rows());
        match (&self.layout, found == expected) {
            // Record batches with a text that is not UTF-8 have a column of bytes, and cannot be joined with others.
            (_, true) if concat(&batches).is_some_and(|rows| rows == self.rows) => Outcome::Right,
            (Layout::Parquet(layout), true) => match layout.not_knowable(mutant) {
                Some(why) => Outcome::NotKnowable(why.to_owned()),
                None => Outcome::Fault("other values, which a page's checksum tells".to_owned()),
            },
            (Layout::Ipc(_), same) if same || mutant.moved => {
                let why = if mutant.moved { "whole blocks moved" } else { "Arrow IPC has no checksums" };
                Outcome::NotKnowable(why.to_owned())
            }
            _ => Outcome::Fault(format!("{found} rows of {expected}")),
        }
    }
}

/// All record batches as one, if they have one schema, with dictionaries unpacked as in the store.
fn concat(batches: &[RecordBatch]) -> Option<RecordBatch> {
    let all = concat_batches(&batches.first()?.schema(), batches).ok()?;
    let unpacked = all.columns().iter().map(|column| match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values),
        _ => Ok(column.clone()),
    });
    let columns = unpacked.collect::<Result<Vec<_>, _>>().ok()?;
    let fields = all
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
        .collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()
}

/// All rows, from the source or from a store made of it.
async fn read(bytes: &[u8], stored: bool, dir: &TempDir) -> prosampler::Result<Vec<RecordBatch>> {
    let file = dir.path().join("damaged.data");
    fs::write(&file, bytes).unwrap();
    let source = FileSource::open(file.display().to_string()).await?;
    let schema = source.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
    if stored {
        let store = Store::build(&source, &names, &StoreConfig::default(), &mut |_| {}).await?;
        return Ok(vec![store.gather(&(0..store.len()).map(SampleId::new).collect::<Vec<_>>())?]);
    }
    source.read(&names)?.try_collect().await
}

/// Small files of 120 rows each with all kinds of columns and options; those of pyarrow have checksums.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut random = random(0, "seeds", 0);
    let fixtures = |ending: &str| -> Vec<Vec<u8>> {
        let folder = fs::read_dir(path("tests/data/soak")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = folder.filter(|file| file.to_string_lossy().ends_with(ending)).collect();
        files.sort();
        files.into_iter().map(|file| fs::read(file).unwrap()).collect()
    };
    let columns = |part: usize| -> Vec<Kind> { KINDS.into_iter().skip(part).step_by(2).collect() };
    let mut files = Vec::new();
    for variant in 0..8u8 {
        let table = tables::table(&columns(usize::from(variant) % 2), ROWS, variant % 4 < 2, &mut random);
        files.push(match name {
            "parquet" => tables::parquet(
                &table,
                &ParquetOptions {
                    codec: variant % 6,
                    newer: variant % 2 == 0,
                    dictionary: variant % 3 == 0,
                    special_encodings: variant % 3 == 1,
                    indexed: variant % 4 == 3,
                    page_rows: [20, 1000][usize::from(variant) / 4],
                    group_rows: 40,
                },
            ),
            _ => tables::ipc(
                &table,
                &IpcOptions {
                    file: name == "ipc-file",
                    codec: variant / 2 % 3,
                    batch_rows: [40, 25][usize::from(variant) % 2],
                },
            ),
        });
    }
    let ending = match name {
        "parquet" => ".parquet",
        "ipc-file" => ".arrow",
        _ => ".arrows",
    };
    files.extend(fixtures(ending));
    files
}

const ROWS: usize = 120;
