//! The rows of each part, as Arrow files that are written once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prosampler::arrow::array::{ArrayRef, BinaryArray, RecordBatch, UInt32Array};
use prosampler::arrow::ipc::writer::FileWriter;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// The definitions of WordNet.
pub const TEXTS: usize = 117_659;

/// The bytes of a row of [`binaries`].
const IMAGE: usize = 3072;

/// Rows of a record batch.
const RECORD_BATCH: usize = 8192;

/// The first definitions of WordNet.
pub fn texts(folder: &Path, rows: usize) -> PathBuf {
    once(folder.join(format!("texts-{rows}.arrow")), || {
        let file = File::open("data/wordnet/glosses.parquet").expect("WordNet");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        let reader = reader.with_batch_size(RECORD_BATCH).with_limit(rows).build().expect("reader");
        reader.map(|batch| batch.expect("record batch"))
    })
}

/// Numbers from 0.
pub fn numbers(folder: &Path, rows: usize) -> PathBuf {
    once(folder.join(format!("numbers-{rows}.arrow")), || {
        ranges(rows).map(|(first, end)| RecordBatch::try_from_iter([("n", ids(first, end))]).expect("rows"))
    })
}

/// Numbers from 0, each with 3 kB that cannot be compressed.
pub fn binaries(folder: &Path, rows: usize) -> PathBuf {
    once(folder.join(format!("binaries-{rows}.arrow")), || {
        let mut generator = ChaCha8Rng::seed_from_u64(0);
        ranges(rows).map(move |(first, end)| {
            let mut bytes = vec![0u8; (end - first) * IMAGE];
            generator.fill_bytes(&mut bytes);
            let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(bytes.chunks_exact(IMAGE)));
            RecordBatch::try_from_iter([("n", ids(first, end)), ("image", images)]).expect("rows")
        })
    })
}

fn ranges(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(RECORD_BATCH).map(move |first| (first, rows.min(first + RECORD_BATCH)))
}

fn ids(first: usize, end: usize) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(first as u32..end as u32))
}

/// Writes a file that is not there. An interrupted run leaves nothing half-written under its name.
fn once<B: Iterator<Item = RecordBatch>>(path: PathBuf, batches: impl FnOnce() -> B) -> PathBuf {
    if path.exists() {
        return path;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    let partial = path.with_extension("partial");
    let mut batches = batches().peekable();
    let schema = batches.peek().expect("rows").schema();
    let mut writer = FileWriter::try_new(File::create(&partial).expect("a file"), &schema).expect("writer");
    batches.for_each(|batch| writer.write(&batch).expect("write"));
    writer.finish().expect("the end of the file");
    fs::rename(partial, &path).expect("rename");
    path
}

/// Removes a folder with all that is in it, if it is there.
pub fn remove(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).expect("a folder that can be removed");
    }
}
