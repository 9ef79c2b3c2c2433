//! Building the store's cache, against decoding the same Parquet file on one thread.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prosampler::config::{Advice, StoreConfig};
use prosampler::source::{FileSource, Source};
use prosampler::store::Store;
use tokio::runtime::Runtime;

use super::{Rates, pages};

const ROUNDS: usize = 3;

pub fn run(folder: &Path) -> Vec<String> {
    let parquet = parquet(folder);
    println!("the Parquet file is in memory");
    let memory = rounds(folder, &|| pages::load(&parquet));
    println!("the Parquet file is on disk");
    let disk = rounds(folder, &|| pages::evict(&parquet));
    let [memory, disk] = [("", memory), ("_from_disk", disk)]
        .map(|(place, [scan, build])| build.figure(&format!("build.vs_parquet_scan{place}"), &scan));
    vec![memory, disk]
}

/// Scans and builds, each after `prepare`.
fn rounds(folder: &Path, prepare: &dyn Fn()) -> [Rates; 2] {
    let [mut scan, mut build] = <[Rates; 2]>::default();
    for _ in 0..ROUNDS {
        prepare();
        let begun = Instant::now();
        let rows = read(&parquet(folder));
        scan.push(rows, begun.elapsed().as_secs_f64());

        // It may not be there.
        let _ = fs::remove_dir_all(cache(folder));
        prepare();
        let begun = Instant::now();
        assert_eq!(open(folder, &cache(folder), Advice::Auto).len(), rows);
        build.push(rows, begun.elapsed().as_secs_f64());
    }
    scan.print("  Parquet, decoded on one thread");
    build.print("  prosampler, built and synced to disk");
    [scan, build]
}

/// From front to back, all columns, in record batches of the reader's default size.
fn read(path: &Path) -> usize {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("file")).expect("Parquet");
    reader.build().expect("reader").map(|batch| black_box(batch.expect("record batch")).num_rows()).sum()
}

/// The store of all columns, out of its cache if there is one.
pub fn open(folder: &Path, cache: &Path, advice: Advice) -> Store {
    let config = StoreConfig { cache_dir: Some(cache.to_owned()), advice };
    let store = async {
        let source = FileSource::open(parquet(folder).to_str().expect("a path in UTF-8")).await?;
        let columns: Vec<_> = source.schema().fields().iter().map(|field| field.name().clone()).collect();
        Store::build(&source, &columns, &config, &mut |_| {}).await
    };
    Runtime::new().expect("runtime").block_on(store).expect("store")
}

pub fn parquet(folder: &Path) -> PathBuf {
    folder.join("rows.parquet")
}

pub fn cache(folder: &Path) -> PathBuf {
    folder.join("prosampler")
}
