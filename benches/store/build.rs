//! Building the store's cache, against decoding the same Parquet file on one thread, and against writing as many bytes.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prosampler::config::{Advice, StoreConfig};
use prosampler::source::{FileSource, Source};
use prosampler::store::Store;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;

use super::{Rates, pages};

const ROUNDS: usize = 3;

pub fn run(folder: &Path) -> Vec<String> {
    let parquet = parquet(folder);
    println!("the Parquet file is in memory");
    let memory = rounds(folder, &|| pages::load(&parquet));
    println!("the Parquet file is on disk");
    let disk = rounds(folder, &|| pages::evict(&parquet));
    let figures = |place, [scan, write, build]: [Rates; 3]| {
        [("parquet_scan", scan), ("plain_write", write)]
            .map(|(other, rates)| build.figure(&format!("build.vs_{other}{place}"), &rates))
    };
    [figures("", memory), figures("_from_disk", disk)].concat()
}

/// Scans, plain writes and builds, each after `prepare`.
fn rounds(folder: &Path, prepare: &dyn Fn()) -> [Rates; 3] {
    let [mut scan, mut write, mut build] = <[Rates; 3]>::default();
    let mut bytes = vec![0u8; 8 << 20];
    ChaCha8Rng::seed_from_u64(1).fill(&mut bytes[..]);
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

        let size = fs::metadata(cached_file(&cache(folder))).expect("cached file").len();
        let begun = Instant::now();
        plain_write(&folder.join("plain"), &bytes, size);
        write.push(rows, begun.elapsed().as_secs_f64());
        fs::remove_file(folder.join("plain")).expect("the plain file");
    }
    scan.print("  Parquet, decoded on one thread");
    write.print("  as many bytes, written and synced to disk");
    build.print("  prosampler, built and synced to disk");
    [scan, write, build]
}

/// What the disk takes: where rows are read faster, they wait for it.
fn plain_write(path: &Path, bytes: &[u8], size: u64) {
    let mut file = File::create(path).expect("a file");
    let mut left = size as usize;
    while left > 0 {
        let piece = &bytes[..bytes.len().min(left)];
        file.write_all(piece).expect("write");
        left -= piece.len();
    }
    file.sync_all().expect("sync");
}

/// From front to back, all columns, in record batches of the reader's default size.
fn read(path: &Path) -> usize {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("file")).expect("Parquet");
    reader.build().expect("reader").map(|batch| black_box(batch.expect("record batch")).num_rows()).sum()
}

/// The store of all columns, out of its cache if there is one.
pub fn open(folder: &Path, cache: &Path, advice: Advice) -> Store {
    open_with(folder, StoreConfig { cache_dir: Some(cache.to_owned()), advice, ..StoreConfig::default() })
}

pub fn open_with(folder: &Path, config: StoreConfig) -> Store {
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

pub fn cached_file(cache: &Path) -> PathBuf {
    let mut files = fs::read_dir(cache).expect("cache").map(|entry| entry.expect("entry").path());
    files.find(|path| path.extension().is_some_and(|e| e == "arrow")).expect("a cached file")
}
