//! The cache of rows is built once and then damaged.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use prosampler::arrow::array::RecordBatch;
use prosampler::config::StoreConfig;
use prosampler::source::{FileSource, Source};
use prosampler::store::Store;
use prosampler::{Result, SampleId};
use rand::RngExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::Target;
use crate::ipc_edit::IpcLayout;
use crate::mutate::Mutant;
use crate::outcome::Outcome;
use crate::support::{random, runtime};
use crate::tables::{self, KINDS, ParquetOptions};

pub struct Cache {
    runtime: Runtime,
    dir: TempDir,
    file: PathBuf,
    written: SystemTime,
    bytes: Vec<u8>,
    layout: IpcLayout,
    rows: RecordBatch,
}

impl Cache {
    pub fn new() -> Self {
        let (runtime, dir) = (runtime(), TempDir::new().unwrap());
        let table = tables::table(&KINDS, 120, true, &mut random(0, "cache", 0));
        let options = ParquetOptions {
            codec: 0,
            newer: false,
            dictionary: true,
            special_encodings: false,
            indexed: false,
            page_rows: 50,
            group_rows: 50,
        };
        fs::write(dir.path().join("rows.parquet"), tables::parquet(&table, &options)).unwrap();
        let rows = runtime.block_on(rows(&dir)).unwrap();
        let mut files = fs::read_dir(dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|file| file.extension().is_some_and(|ending| ending == "arrow")).unwrap();
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        let bytes = fs::read(&file).unwrap();
        let layout = IpcLayout::of(&bytes);
        Self { runtime, dir, file, written, bytes, layout, rows }
    }
}

impl Target for Cache {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let mut random = random(seed, "cache", number);
        let mut mutant = Mutant::new(&self.bytes);
        self.layout.damage(&mut mutant, &self.bytes, &mut random);
        // This is a new file, since a run that has not ended may have mapped the old one.
        fs::remove_file(&self.file).unwrap();
        fs::write(&self.file, &mutant.bytes).unwrap();
        if random.random_range(0..10) > 0 {
            // The time stays, as when a disk fails.
            File::options().write(true).open(&self.file).unwrap().set_modified(self.written).unwrap();
        }
        let read = self.runtime.block_on(rows(&self.dir));
        let outcome = match read {
            Ok(rows) if rows == self.rows => Outcome::Right,
            Ok(rows) if rows.num_rows() == self.rows.num_rows() => Outcome::Fault("other values".to_owned()),
            Ok(rows) => Outcome::Fault(format!("{} rows of {}", rows.num_rows(), self.rows.num_rows())),
            Err(error) => super::refused(&error, &["cache/", "rows.parquet"]),
        };
        fs::remove_dir_all(self.dir.path().join("cache")).unwrap();
        fs::create_dir(self.dir.path().join("cache")).unwrap();
        fs::write(&self.file, &self.bytes).unwrap();
        outcome
    }
}

async fn rows(dir: &TempDir) -> Result<RecordBatch> {
    let source = FileSource::open(dir.path().join("rows.parquet").display().to_string()).await?;
    let names: Vec<_> = source.schema().fields().iter().map(|field| field.name().clone()).collect();
    let config = StoreConfig { cache_dir: Some(dir.path().join("cache")), ..StoreConfig::default() };
    let store = Store::build(&source, &names, &config, &mut |_| {}).await?;
    store.gather(&(0..store.len()).map(SampleId::new).collect::<Vec<_>>())
}
