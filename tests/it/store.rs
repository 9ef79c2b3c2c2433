//! The store gives the rows of the ids asked for, from memory, from Parquet, and from the cache of an earlier run.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use prosampler::SampleId;
use prosampler::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, DictionaryArray, ListArray, RecordBatch, StructArray, UInt32Array,
};
use prosampler::arrow::buffer::OffsetBuffer;
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, Field, Int32Type, UInt32Type};
use prosampler::arrow::util::display::array_value_to_string;
use prosampler::config::{StoreConfig, Verify};
use prosampler::source::{FileSource, MemorySource, Source};
use prosampler::store::Store;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{path, rows, source, write_parquet};

async fn store(source: &dyn Source, columns: &[&str], config: &StoreConfig) -> Store {
    let columns: Vec<_> = columns.iter().map(|c| (*c).to_owned()).collect();
    Store::build(source, &columns, config, &mut |_| {}).await.unwrap()
}

fn numbers(rows: &RecordBatch) -> Vec<u32> {
    rows["n"].as_primitive::<UInt32Type>().values().to_vec()
}

fn texts(rows: &RecordBatch) -> Vec<String> {
    rows["text"].as_string::<i32>().iter().map(|t| t.unwrap().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// An id is the row's position, however the source divides rows into record batches.
    #[test]
    fn gather_gives_the_rows_of_the_ids(
        sizes in proptest::collection::vec(0usize..9000, 1..5),
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 1..200),
    ) {
        let all = rows(sizes.iter().sum::<usize>() + 1);
        let mut cuts = vec![0];
        sizes.iter().for_each(|size| cuts.push(cuts.last().unwrap() + size));
        cuts.push(all.num_rows());
        let batches = cuts.windows(2).map(|w| all.slice(w[0], w[1] - w[0])).collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let source = MemorySource::new(batches).unwrap();
        let store = runtime.block_on(store(&source, &["text", "n"], &StoreConfig::default()));
        prop_assert_eq!(store.len(), all.num_rows());
        let ids: Vec<_> = picks.iter().map(|p| SampleId::new(p.index(all.num_rows()))).collect();
        let gathered = store.gather(&ids).unwrap();
        prop_assert_eq!(numbers(&gathered), ids.iter().map(|id| id.0).collect::<Vec<_>>());
        prop_assert_eq!(texts(&gathered), ids.iter().map(|id| format!("text {}", id.0)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn unknown_ids_are_refused() {
    let store = store(&source(10), &["n"], &StoreConfig::default()).await;
    let error = store.gather(&[SampleId(3), SampleId(10)]).unwrap_err().to_string();
    assert_eq!(error, "sample 10 does not exist; the data set has 10 samples, ids 0 to 9");
    assert_eq!(store.gather(&[]).unwrap().num_rows(), 0);
}

#[tokio::test]
async fn rows_without_columns_are_counted() {
    let store = store(&source(10), &[], &StoreConfig::default()).await;
    let rows = store.gather(&[SampleId(3), SampleId(4)]).unwrap();
    assert_eq!((rows.num_rows(), rows.num_columns()), (2, 0));
}

/// Two different dictionaries of a column become plain values, alone, in lists, in structs and in both.
#[tokio::test]
async fn dictionaries_are_stored_plain() {
    let batch = |values: [&str; 2]| {
        let column: DictionaryArray<Int32Type> = values.into_iter().collect();
        let column: ArrayRef = Arc::new(column);
        let field = Arc::new(Field::new("part", column.data_type().clone(), true));
        let parts: ArrayRef = Arc::new(StructArray::from(vec![(field, column.clone())]));
        let lists = |items: &ArrayRef| -> ArrayRef {
            let item = Arc::new(Field::new("item", items.data_type().clone(), true));
            Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1, 1]), items.clone(), None))
        };
        let columns = [("text", column.clone()), ("texts", lists(&column)), ("deep", lists(&parts)), ("part", parts)];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let source = MemorySource::new(vec![batch(["a", "b"]), batch(["c", "a"])]).unwrap();
    let store = store(&source, &["text", "texts", "part", "deep"], &StoreConfig::default()).await;
    assert_eq!(store.schema().field(0).data_type(), &DataType::Utf8);
    let rows = store.gather(&[SampleId(2), SampleId(1)]).unwrap();
    assert_eq!(texts(&rows), ["c", "b"]);
    for (row, text) in ["c", "b"].into_iter().enumerate() {
        let found = rows.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
        let expected = [text.into(), format!("[{text}]"), format!("{{part: {text}}}"), format!("[{{part: {text}}}]")];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}

/// If rows have 1 MB, record batches of the cache have fewer than 8,192 rows, and ids stay positions.
#[tokio::test]
async fn long_rows_make_small_record_batches() {
    const ROWS: usize = 150;
    let lengths = (0..ROWS).map(|row| 1 << 20 >> (row % 7 == 0) as usize);
    let long: Vec<_> = lengths.enumerate().map(|(row, length)| vec![row as u8; length]).collect();
    let plain: ArrayRef = Arc::new(BinaryArray::from_iter_values(&long));
    let view = cast(&plain, &DataType::BinaryView).unwrap();
    let ids: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..ROWS as u32));
    let item = Arc::new(Field::new("item", DataType::Binary, true));
    let offsets = OffsetBuffer::from_lengths([1; ROWS]);
    let list: ArrayRef = Arc::new(ListArray::new(item, offsets, plain.clone(), None));
    for column in [plain, view, list] {
        let rows = RecordBatch::try_from_iter([("n", ids.clone()), ("long", column)]).unwrap();
        // The rows come in one record batch, and in slices of it.
        let slices = (0..ROWS).step_by(30).map(|at| rows.slice(at, 30)).collect();
        for batches in [vec![rows.clone()], slices] {
            let source = MemorySource::new(batches).unwrap();
            let store = store(&source, &["n", "long"], &StoreConfig::default()).await;
            assert_eq!(store.len(), ROWS);
            let sizes: Vec<_> = store.record_batches().map(|item| item.unwrap().1.num_rows()).collect();
            assert!(sizes.iter().all(|rows| (25..=72).contains(rows)), "{sizes:?}");
            assert!(store.record_batches().map(Result::unwrap).all(|(first, batch)| numbers(batch)[0] == first.0));
            let ids: Vec<_> = (0..ROWS as u32).rev().step_by(11).map(SampleId).collect();
            let expected = ids.iter().map(|id| id.0).collect::<Vec<_>>();
            assert_eq!(numbers(&store.gather(&ids).unwrap()), expected);
        }
    }
}

struct Files {
    dir: TempDir,
    config: StoreConfig,
}

impl Files {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let config = StoreConfig { cache_dir: Some(dir.path().join("cache")), ..StoreConfig::default() };
        Self { dir, config }
    }

    fn write(&self, name: &str, batch: &RecordBatch) {
        write_parquet(&self.dir.path().join(name), batch, 100);
    }

    async fn open_both(&self, columns: &[&str]) -> (FileSource, Store) {
        let source = FileSource::open(self.dir.path().display().to_string()).await.unwrap();
        let store = store(&source, columns, &self.config).await;
        (source, store)
    }

    async fn open(&self, columns: &[&str]) -> Store {
        self.open_both(columns).await.1
    }

    fn caches(&self) -> Vec<std::path::PathBuf> {
        let mut caches: Vec<_> =
            fs::read_dir(self.dir.path().join("cache")).unwrap().map(|e| e.unwrap().path()).collect();
        caches.retain(|file| file.extension().is_none_or(|e| e != "lock"));
        caches.sort();
        caches
    }
}

#[tokio::test]
async fn files_of_a_folder_are_one_source_in_the_order_of_their_names() {
    let files = Files::new();
    files.write("b.parquet", &rows(250).slice(150, 100));
    files.write("a.parquet", &rows(150));
    fs::write(files.dir.path().join("readme.txt"), "not data").unwrap();
    let store = files.open(&["text", "n"]).await;
    assert_eq!(store.len(), 250);
    let ids: Vec<_> = (0..250).rev().map(SampleId).collect();
    assert_eq!(numbers(&store.gather(&ids).unwrap()), (0..250).rev().collect::<Vec<_>>());
    assert_eq!(store.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["text", "n"]);
    let pattern = format!("{}/[b]*.parquet", files.dir.path().display());
    assert_eq!(FileSource::open(pattern).await.unwrap().rows(), Some(100));
}

/// Tells a file from another one written in its place.
fn written(path: &std::path::Path) -> (Option<u64>, SystemTime) {
    let about = fs::metadata(path).unwrap();
    #[cfg(unix)]
    let file = Some(std::os::unix::fs::MetadataExt::ino(&about));
    #[cfg(not(unix))]
    let file = None;
    (file, about.modified().unwrap())
}

#[tokio::test]
async fn a_cache_is_used_again_until_source_or_columns_change() {
    let files = Files::new();
    files.write("a.parquet", &rows(300));
    files.open(&["n", "text"]).await;
    let first = files.caches();
    assert_eq!(first.len(), 1, "one cache, and no temporary file left");
    let before = written(&first[0]);

    let store = files.open(&["n", "text"]).await;
    assert_eq!(texts(&store.gather(&[SampleId(299)]).unwrap()), ["text 299"]);
    assert_eq!(written(&first[0]), before, "it was written again");

    files.open(&["n"]).await;
    assert_eq!(files.caches().len(), 2);

    // The file has the same size, but was changed since.
    let data = fs::File::options().write(true).open(files.dir.path().join("a.parquet")).unwrap();
    data.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
    let before = written(&first[0]);
    files.open(&["n", "text"]).await;
    assert_eq!(files.caches().len(), 2);
    assert_ne!(written(&first[0]), before, "it was not written again");
}

/// Whether files are added during a run or between two, their samples come last, and earlier segments stay as they are.
#[tokio::test]
async fn new_files_are_appended() {
    let files = Files::new();
    for (name, first) in [("b.parquet", 0), ("d.parquet", 100)] {
        files.write(name, &rows(200).slice(first, 100));
    }
    let source = FileSource::open(files.dir.path().display().to_string()).await.unwrap();
    let columns = ["n".to_owned(), "text".to_owned()];
    let store = Store::build(&source, &columns, &files.config, &mut |_| {}).await.unwrap();
    assert!(store.grow(&source).await.unwrap().is_none());
    let before = written(&files.caches()[0]);

    files.write("c.parquet", &rows(250).slice(200, 50));
    let grown = store.grow(&source).await.unwrap().unwrap();
    files.write("a.parquet", &rows(9000).slice(250, 8750));
    let grown = grown.grow(&source).await.unwrap().unwrap();
    assert_eq!((store.len(), grown.len()), (200, 9000));
    let expected: Vec<u32> = (0..9000).collect();
    let all: Vec<_> = grown.record_batches().flat_map(|item| numbers(item.unwrap().1)).collect();
    assert_eq!(all, expected);
    assert!(grown.record_batches().map(Result::unwrap).all(|(first, batch)| numbers(batch)[0] == first.0));

    // The next run finds all three files, and the run after a fourth file finds all four.
    assert_eq!(files.caches().len(), 3);
    let all: Vec<_> = expected.iter().rev().copied().map(SampleId).collect();
    assert_eq!(numbers(&files.open(&["n", "text"]).await.gather(&all).unwrap())[..3], [8999, 8998, 8997]);
    files.write("aa.parquet", &rows(9010).slice(9000, 10));
    assert_eq!(
        numbers(&files.open(&["n", "text"]).await.gather(&[SampleId(9009), SampleId(8999)]).unwrap()),
        [9009, 8999]
    );
    assert_eq!(written(&files.caches()[0]), before, "the first was written again");

    // If a file changes during a run, that is an error, and the next run reads all files anew.
    files.write("c.parquet", &rows(50));
    let error = grown.grow(&source).await.unwrap_err().to_string();
    assert!(error.contains("c.parquet` has changed since its rows were read; start anew"), "{error}");
    assert_eq!(files.open(&["n", "text"]).await.len(), 9010);
    let (source, store) = files.open_both(&["n", "text"]).await;
    fs::remove_file(files.dir.path().join("d.parquet")).unwrap();
    let error = store.grow(&source).await.unwrap_err().to_string();
    assert!(error.contains("d.parquet` is gone") && error.contains("start anew"), "{error}");
    assert_eq!(numbers(&files.open(&["n", "text"]).await.gather(&[SampleId(0)]).unwrap()), [250]);
    assert_eq!(files.caches().len(), 1, "segments of files that are no longer used");
}

/// Whatever byte of a cache is damaged, and wherever the file ends, it is built anew.
#[tokio::test]
async fn a_damaged_cache_is_built_anew() {
    let files = Files::new();
    files.write("a.parquet", &rows(300));
    let ids: Vec<_> = (0..300).map(SampleId).collect();
    let store = files.open(&["n", "text"]).await;
    let all = store.gather(&ids).unwrap();
    assert_eq!(all.schema(), store.schema(), "rows do not tell what caches note");
    let cache = files.caches().remove(0);
    let whole = fs::read(&cache).unwrap();
    let cut = [&whole[..whole.len() / 2], &whole[..5], &[], &vec![0; whole.len()]].map(<[u8]>::to_vec);
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    let mut bit = || 1 << generator.random_range(0..8u32);
    let places = (0..whole.len()).step_by(whole.len() / 100);
    let flipped = places.map(|at| [&whole[..at], &[whole[at] ^ bit()], &whole[at + 1..]].concat());
    for damaged in cut.into_iter().chain(flipped) {
        fs::write(&cache, &damaged).unwrap();
        assert_eq!(files.open(&["n", "text"]).await.gather(&ids).unwrap(), all);
        let rebuilt = written(&cache);
        assert_ne!(fs::read(&cache).unwrap(), damaged);
        files.open(&["n", "text"]).await;
        assert_eq!(written(&cache), rebuilt, "a sound cache was written again");
    }
}

/// If a disk has failed, the time of the last change does not show the damage. Rows are then right, or are read anew,
/// or their first use is an error and the next run reads them anew.
#[tokio::test]
async fn damage_to_a_cache_never_becomes_rows() {
    let files = Files::new();
    files.write("a.parquet", &rows(300));
    files.open(&["n", "text"]).await;
    let cache = files.caches().remove(0);
    let whole = fs::read(&cache).unwrap();
    let time = fs::metadata(&cache).unwrap().modified().unwrap();
    let ids: Vec<_> = (0..300).map(SampleId).collect();
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    let all = files.open(&["n", "text"]).await.gather(&ids).unwrap();
    let (mut rebuilt, mut told) = (0, 0);
    for round in 0..400 {
        let mut bytes = whole.clone();
        if round % 2 == 0 {
            bytes.truncate(generator.random_range(0..bytes.len()));
        } else {
            bytes[generator.random_range(0..whole.len())] ^= 1 << (round % 8);
        }
        fs::write(&cache, &bytes).unwrap();
        fs::File::options().write(true).open(&cache).unwrap().set_modified(time).unwrap();
        let store = files.open(&["n", "text"]).await;
        match store.gather(&ids) {
            Ok(rows) => assert_eq!(rows, all, "round {round}"),
            Err(error) => {
                told += 1;
                let expected = format!("`{}` is damaged in record batch 0", cache.display());
                assert!(error.to_string().starts_with(&expected), "{error}");
                assert!(error.to_string().ends_with("start again, and it is built anew from the source"), "{error}");
                assert_eq!(files.open(&["n", "text"]).await.gather(&ids).unwrap(), all, "round {round}");
            }
        }
        rebuilt += usize::from(fs::read(&cache).unwrap() != bytes);
    }
    assert!((200..=400).contains(&rebuilt) && told > 50, "{rebuilt} rebuilt, {told} told");
}

/// A number that a disk has changed is noticed at the start, at its first use, or not at all, as `store.verify` says.
#[tokio::test]
async fn cached_rows_are_checked_when_the_settings_say() {
    let mut files = Files::new();
    files.write("a.parquet", &rows(300));
    let ids: Vec<_> = (0..300).map(SampleId).collect();
    let all = files.open(&["n", "text"]).await.gather(&ids).unwrap();
    let cache = files.caches().remove(0);
    let whole = fs::read(&cache).unwrap();
    let time = fs::metadata(&cache).unwrap().modified().unwrap();
    // These four bytes are the number 255, the only one that is followed by 256.
    let numbers = [255u32.to_le_bytes(), 256u32.to_le_bytes()].concat();
    let place = whole.windows(8).position(|bytes| bytes == numbers).unwrap();
    let damage = || {
        let mut bytes = whole.clone();
        bytes[place + 1] ^= 1;
        fs::write(&cache, bytes).unwrap();
        fs::File::options().write(true).open(&cache).unwrap().set_modified(time).unwrap();
    };
    for (verify, is_told, is_right) in
        [(Verify::Never, false, false), (Verify::FirstUse, true, false), (Verify::Open, false, true)]
    {
        damage();
        files.config.verify = verify;
        let store = files.open(&["n", "text"]).await;
        let gathered = store.gather(&ids);
        assert_eq!(gathered.is_err(), is_told, "{verify:?}");
        assert_eq!(gathered.is_ok_and(|rows| rows == all), is_right, "{verify:?}");
        let passed = store.record_batches().all(|item| item.is_ok());
        assert_eq!(passed, !is_told, "{verify:?}");
    }
}

#[tokio::test]
async fn a_failed_source_leaves_no_cache() {
    let files = Files::new();
    files.write("a.parquet", &rows(300));
    let file = files.dir.path().join("a.parquet");
    let mut bytes = fs::read(&file).unwrap();
    bytes[200..600].fill(0xff);
    fs::write(&file, bytes).unwrap();
    let source = FileSource::open(file.display().to_string()).await.unwrap();
    let columns = ["n".to_owned(), "text".to_owned()];
    Store::build(&source, &columns, &files.config, &mut |_| {}).await.unwrap_err();
    assert_eq!(files.caches(), Vec::<std::path::PathBuf>::new());
}

/// pyarrow wrote this file.
#[tokio::test]
async fn wordnet_is_read_whole() {
    let source = FileSource::open(path("data/wordnet/glosses.parquet").display().to_string()).await.unwrap();
    assert_eq!(source.rows(), Some(117_659));
    let store = store(&source, &["synset", "definition"], &StoreConfig::default()).await;
    assert_eq!(store.len(), 117_659);
    let rows = store.gather(&[SampleId(0)]).unwrap();
    let definition = rows["definition"].as_string::<i32>().value(0).to_owned();
    assert_eq!(
        definition,
        "that which is perceived or known or inferred to have its own distinct existence (living or nonliving)"
    );
}

#[test]
fn selecting_shares_rows_and_keeps_the_order_asked_for() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(store(&source(20), &["n", "text"], &StoreConfig::default()));
    let one = store.select(&["text".to_owned()]).unwrap();
    assert_eq!((one.len(), one.schema().fields().len()), (20, 1));
    assert!(one.select(&["n".to_owned()]).unwrap_err().to_string().contains("it has `text`"));
}
