//! Files in every format, damaged or filtered, give the right rows or an error that says what is wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterVersion};
use proptest::prelude::*;
use prosampler::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use prosampler::arrow::compute::concat_batches;
use prosampler::arrow::datatypes::{Int64Type, SchemaRef, UInt32Type};
use prosampler::arrow::ipc::writer::{FileWriter, StreamWriter};
use prosampler::arrow::util::display::array_value_to_string;
use prosampler::config::{Advice, OnCorrupt, SourceConfig, StoreConfig};
use prosampler::source::{
    self, FileSource, FilteredSource, Fingerprint, MemorySource, RecordBatches, Source, SourceFile,
};
use prosampler::store::Store;
use prosampler::{Error, Result, SampleId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use tempfile::TempDir;

use crate::support::{path, rows, source, write_parquet};

async fn open(path: impl AsRef<Path>) -> Result<FileSource> {
    FileSource::open(path.as_ref().display().to_string()).await
}

async fn read(source: &dyn Source) -> Result<RecordBatch> {
    let names: Vec<_> = source.schema().fields().iter().map(|f| f.name().clone()).collect();
    let batches: Vec<_> = source.read(&names)?.try_collect().await?;
    Ok(concat_batches(&source.schema(), &batches).unwrap())
}

/// Texts may come as bytes if one of them is damaged.
async fn count(source: &dyn Source) -> Result<usize> {
    let names: Vec<_> = source.schema().fields().iter().map(|f| f.name().clone()).collect();
    source.read(&names)?.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) }).await
}

/// pyarrow wrote these files: Parquet with and without page index or checksums, Feather with either codec, an IPC file
/// and an IPC stream.
#[tokio::test]
async fn every_format_gives_the_same_rows() {
    let folder = path("tests/data/formats");
    let store = async |name: &str| {
        let source = open(folder.join(name)).await.unwrap();
        let names: Vec<_> = source.schema().fields().iter().map(|f| f.name().clone()).collect();
        Store::build(&source, &names, &StoreConfig::default(), &mut |_| {}).await.unwrap()
    };
    let ids: Vec<_> = (0..60).rev().map(SampleId).collect();
    let first = store("rows.parquet").await.gather(&ids).unwrap();
    assert_eq!(first["n"].as_primitive::<Int64Type>().value(0), 59);
    assert_eq!(first["split"].as_string::<i32>().value(59), "test");
    assert_eq!(first["tags"].as_list::<i32>().value(1).len(), 1);
    assert_eq!(first["image"].as_binary::<i64>().value(56), [3; 4]);
    for name in ["pages.parquet", "checksums.parquet", "rows.feather", "zstd.feather", "rows.arrow", "rows.arrows"] {
        // Values are compared as text, since the names of list items differ.
        let rows = store(name).await.gather(&ids).unwrap();
        for (found, expected) in rows.columns().iter().zip(first.columns()) {
            for row in 0..60 {
                let [found, expected] = [found, expected].map(|column| array_value_to_string(column, row).unwrap());
                assert_eq!(found, expected, "{name}, row {row}");
            }
        }
    }
}

/// Advice about rows that will be read changes only the time it takes, whatever types they have.
#[tokio::test]
async fn advice_does_not_change_the_rows() {
    let source = open(path("tests/data/formats/rows.parquet")).await.unwrap();
    let names: Vec<_> = source.schema().fields().iter().map(|f| f.name().clone()).collect();
    let ids: Vec<_> = (0..60).rev().chain(7..19).map(SampleId).collect();
    let mut gathered = Vec::new();
    for advice in [Advice::Normal, Advice::Random, Advice::Auto] {
        let config = StoreConfig { advice, ..StoreConfig::default() };
        gathered.push(Store::build(&source, &names, &config, &mut |_| {}).await.unwrap().gather(&ids).unwrap());
    }
    assert!(gathered[0] == gathered[1] && gathered[0] == gathered[2]);
}

/// Row groups of several files and formats are read at the same time and arrive in order.
#[tokio::test]
async fn parts_come_in_order() {
    let dir = TempDir::new().unwrap();
    let all = rows(60_000);
    write_parquet(&dir.path().join("a.parquet"), &all.slice(0, 30_000), 1000);
    let file = fs::File::create(dir.path().join("b.arrow")).unwrap();
    let mut writer = FileWriter::try_new(file, &all.schema()).unwrap();
    writer.write(&all.slice(30_000, 20_000)).unwrap();
    writer.finish().unwrap();
    write_parquet(&dir.path().join("c.parquet"), &all.slice(50_000, 10_000), 10_000);
    let source = open(dir.path()).await.unwrap();
    assert_eq!(read(&source).await.unwrap(), all);
    let kinds: Vec<_> = source.files().map(|(_, kind, parts)| (kind, parts)).collect();
    assert_eq!(kinds, [("Parquet", 30), ("Arrow IPC file", 1), ("Parquet", 1)]);
}

/// Whatever byte of a file is damaged, and wherever it ends, there is an error or all rows arrive; it never panics.
#[tokio::test]
async fn damage_never_shortens_a_file_quietly() {
    let dir = TempDir::new().unwrap();
    let all = rows(500);
    write_parquet(&dir.path().join("x.parquet"), &all, 100);
    let file = |name: &str| fs::File::create(dir.path().join(name)).unwrap();
    let mut writer = FileWriter::try_new(file("x.arrow"), &all.schema()).unwrap();
    (0..5).for_each(|i| writer.write(&all.slice(100 * i, 100)).unwrap());
    writer.finish().unwrap();
    let mut writer = StreamWriter::try_new(file("x.arrows"), &all.schema()).unwrap();
    (0..5).for_each(|i| writer.write(&all.slice(100 * i, 100)).unwrap());
    writer.finish().unwrap();
    for (name, version, encoding) in [
        ("pages.parquet", WriterVersion::PARQUET_2_0, None),
        ("delta.parquet", WriterVersion::PARQUET_1_0, Some(Encoding::DELTA_BYTE_ARRAY)),
    ] {
        let properties = WriterProperties::builder().set_writer_version(version).set_max_row_group_row_count(Some(100));
        let properties = match encoding {
            Some(encoding) => properties.set_dictionary_enabled(false).set_column_encoding("text".into(), encoding),
            None => properties,
        };
        let mut writer = ArrowWriter::try_new(file(name), all.schema(), Some(properties.build())).unwrap();
        writer.write(&all).unwrap();
        writer.close().unwrap();
    }
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    for name in ["x.parquet", "pages.parquet", "delta.parquet", "x.arrow", "x.arrows"] {
        let (whole, target) = (fs::read(dir.path().join(name)).unwrap(), dir.path().join("y"));
        let mut refused = 0;
        for round in 0..300 {
            let mut bytes = whole.clone();
            if round % 2 == 0 {
                bytes.truncate(generator.random_range(0..bytes.len()));
            } else {
                let place = generator.random_range(0..bytes.len());
                bytes[place] ^= 1 << generator.random_range(0..8);
            }
            fs::write(&target, &bytes).unwrap();
            let result = match open(&target).await {
                Ok(source) => count(&source).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(rows) => assert!(rows == 500, "{name}, round {round}: {rows} rows"),
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("{name}, round {round}: {error}"),
            }
        }
        println!("{name}: {refused} of 300 refused");
        assert!(refused >= 150);
    }
}

#[tokio::test]
async fn every_codec_is_read() {
    let dir = TempDir::new().unwrap();
    let all = rows(3000);
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ] {
        let file = dir.path().join("a.parquet");
        let properties = WriterProperties::builder().set_compression(codec).build();
        let sink = fs::File::create(&file).unwrap();
        let mut writer = ArrowWriter::try_new(sink, all.schema(), Some(properties)).unwrap();
        writer.write(&all).unwrap();
        writer.close().unwrap();
        assert_eq!(read(&open(&file).await.unwrap()).await.unwrap(), all, "{codec:?}");
    }
}

/// A flipped bit within a page, which no codec would notice, is noticed by the checksum.
#[tokio::test]
async fn a_flipped_bit_is_noticed_by_its_checksum() {
    let dir = TempDir::new().unwrap();
    let whole = fs::read(path("tests/data/formats/checksums.parquet")).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(whole.clone())).unwrap();
    let file = dir.path().join("a.parquet");
    let mut tried = 0;
    for (number, row_group) in metadata.row_groups().iter().enumerate() {
        for chunk in row_group.columns() {
            let (start, length) = chunk.byte_range();
            let mut bytes = whole.clone();
            // This is the last byte of the chunk's only page.
            bytes[(start + length) as usize - 1] ^= 1;
            fs::write(&file, bytes).unwrap();
            let error = read(&open(&file).await.unwrap()).await.unwrap_err().to_string();
            let column = chunk.column_path().parts()[0].clone();
            assert!(error.contains(&format!("a.parquet`, row group {number}, column `{column}`")), "{error}");
            tried += 1;
        }
    }
    assert_eq!(tried, 2 * 9);
}

#[tokio::test]
async fn damaged_row_groups_are_skipped_where_that_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.parquet");
    write_parquet(&file, &rows(1000), 250);
    let mut bytes = fs::read(&file).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes.clone()));
    let (start, length) = metadata.unwrap().row_group(2).column(1).byte_range();
    bytes[start as usize..(start + length) as usize].fill(0xee);
    fs::write(&file, bytes).unwrap();

    let source = open(&file).await.unwrap();
    let error = read(&source).await.unwrap_err().to_string();
    assert!(error.contains("a.parquet`, row group 2, column `text`"), "{error}");
    let uri = vec![file.display().to_string()];
    let config = SourceConfig { uri, on_corrupt: OnCorrupt::Skip, ..SourceConfig::default() };
    let source = FileSource::open_all(&config).await.unwrap();
    let left = read(&source).await.unwrap();
    let expected: Vec<u32> = (0..500).chain(750..1000).collect();
    assert_eq!(left["n"].as_primitive::<UInt32Type>().values(), &expected[..]);
    assert_eq!(source.counts().skipped_rows, 250);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_filter_keeps_the_rows_for_which_it_holds(
        values in proptest::collection::vec((proptest::option::of(-5i64..5), proptest::option::of("[ab']{0,2}")), 1..200),
        number in -5i64..5, text in "[ab']{0,2}", signs in (0usize..6, 0usize..6),
    ) {
        const SIGNS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];
        fn holds<T: Ord>(sign: usize, a: &T, b: &T) -> bool {
            [a == b, a != b, a < b, a <= b, a > b, a >= b][sign]
        }
        let (numbers, texts): (Vec<_>, Vec<_>) = values.iter().cloned().unzip();
        let columns: [(&str, ArrayRef); 2] =
            [("a number", Arc::new(Int64Array::from(numbers))), ("text", Arc::new(StringArray::from(texts)))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let condition = format!(
            "\"a number\" {} {number} and text {} '{}'", SIGNS[signs.0], SIGNS[signs.1], text.replace('\'', "''")
        );
        let source = Box::new(MemorySource::new(vec![batch]).unwrap());
        let filtered = FilteredSource::new(source, &condition).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(async {
            let batches: Vec<_> = filtered.read(&["text".to_owned()]).unwrap().try_collect().await.unwrap();
            concat_batches(&batches[0].schema(), &batches).unwrap()
        });
        let expected = values.into_iter().filter(|(n, t)| {
            n.as_ref().is_some_and(|n| holds(signs.0, n, &number)) && t.as_ref().is_some_and(|t| holds(signs.1, t, &text))
        });
        let expected: Vec<_> = expected.map(|(_, text)| text).collect();
        let found: Vec<_> = found["text"].as_string::<i32>().iter().map(|t| t.map(str::to_owned)).collect();
        prop_assert_eq!(found, expected);
    }
}

/// Filters compare dictionaries, dates and missing numbers, and are part of the name of a cache.
#[tokio::test]
async fn filters_compare_values_of_the_columns_type() {
    let count = async |filter: &str| {
        let uri = vec![path("tests/data/formats/rows.parquet").display().to_string()];
        let config = SourceConfig { uri, filter: Some(filter.into()), ..SourceConfig::default() };
        let source = source::open(&config).await?;
        Ok::<_, Error>((read(source.as_ref()).await?.num_rows(), source.fingerprint()))
    };
    let counts = async |filter: &str| count(filter).await.unwrap().0;
    assert_eq!(counts("split = 'train'").await, 40);
    assert_eq!(counts("split != 'train' and n < 10").await, 4);
    assert_eq!(counts("score >= 0").await, 54);
    assert_eq!(counts("day >= '1971-01-01' AND day < '1972-01-01'").await, 12);
    assert_ne!(count("n < 10").await.unwrap().1, count("n < 11").await.unwrap().1);

    let refused = async |filter: &str| count(filter).await.unwrap_err().to_string();
    for (filter, expected) in [
        ("", "cannot read the filter ``: a column is expected at its start; write for example split = 'train'"),
        ("n = 1 or n = 2", "`and` is expected after `n = 1`"),
        ("n ~ 1", "one of = != < <= > >= is expected after `n`"),
        ("split = 'train", "a closing ' is expected after `split =`"),
        ("m = 1", "column `m` not found in"),
        ("n = 'many'", "column `n` holds Int64, but the filter compares it with `many`"),
        ("tags = 'a'", "column `tags` holds List"),
    ] {
        let message = refused(filter).await;
        assert!(message.contains(expected), "{filter}: {message}");
    }
}

/// A source that waits before its rows, and counts how often it is read.
struct Slow(MemorySource, Arc<AtomicUsize>);

impl Source for Slow {
    fn uri(&self) -> &str {
        "slow"
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let source_file = SourceFile { uri: "slow".into(), version: "1".into() };
        Some(Fingerprint { settings: String::new(), files: vec![source_file] })
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let late = futures::stream::once(async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        });
        let rows = self.0.read(columns)?;
        Ok(late.filter_map(|()| async { None }).chain(rows).boxed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_want_one_cache_build_it_once() {
    let dir = TempDir::new().unwrap();
    let config = StoreConfig { cache_dir: Some(dir.path().into()), ..StoreConfig::default() };
    let reads = Arc::new(AtomicUsize::new(0));
    let build = || {
        let (source, config) = (Slow(source(100), reads.clone()), config.clone());
        tokio::spawn(async move { Store::build(&source, &["n".to_owned()], &config, &mut |_| {}).await.unwrap().len() })
    };
    let (one, two, three) = (build(), build(), build());
    assert_eq!((one.await.unwrap(), two.await.unwrap(), three.await.unwrap()), (100, 100, 100));
    assert_eq!(reads.load(Ordering::Relaxed), 1);

    // Files that a killed process left are removed by the next process that builds this cache.
    let files = || fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let cache = files().find(|f| f.extension().is_some_and(|e| e == "arrow")).unwrap();
    let left = dir.path().join(format!(".building-{}-x1y2", cache.file_stem().unwrap().display()));
    fs::write(&left, "half").unwrap();
    fs::remove_file(&cache).unwrap();
    assert_eq!(build().await.unwrap(), 100);
    assert!(cache.exists() && !left.exists());
}

/// Of two processes that start together, one reads the source. The other waits for it and opens the cache.
#[test]
fn two_processes_build_one_cache() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.toml"), wordnet()).unwrap();
    let log = |name| dir.path().join(name);
    let start = |name| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_prosampler"));
        run.args(["run", "p.toml"]).env("RUST_LOG", "prosampler=info").current_dir(dir.path());
        run.stdout(Stdio::null()).stderr(fs::File::create(log(name)).unwrap()).spawn().unwrap()
    };
    let mut runs = ["one", "two"].map(start);
    let said = || ["one", "two"].map(|name| fs::read_to_string(log(name)).unwrap());
    let opened = || said().iter().filter(|said| said.contains("opened the cache of an earlier run")).count();
    while opened() == 0 {
        assert!(runs.iter_mut().all(|run| run.try_wait().unwrap().is_none()), "{:?}", said());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    runs.iter_mut().for_each(|run| run.kill().and_then(|()| run.wait()).map(drop).unwrap());
    assert_eq!(opened(), 1, "{:?}", said());
    let left = fs::read_dir(dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<_> = left.filter(|path| !path.ends_with("embeddings")).collect();
    let of = |extension| left.iter().filter(|path| path.extension().is_some_and(|e| e == extension)).count();
    assert_eq!((of("arrow"), of("lock"), left.len()), (1, 1, 2), "{left:?}");
}

/// Whenever a run is killed, the next start finds a whole cache or none, and half-written files are removed.
#[test]
#[cfg(unix)]
fn a_killed_run_leaves_nothing_half_written() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.toml"), wordnet()).unwrap();
    let files = || fs::read_dir(dir.path().join("cache")).into_iter().flatten().map(|e| e.unwrap().path());
    let unfinished = |path: &std::path::PathBuf| path.display().to_string().contains(".building-");
    let mut hit = 0;
    for round in 0..20 {
        let before: Vec<_> = files().filter(unfinished).collect();
        let mut run = Command::new(env!("CARGO_BIN_EXE_prosampler"));
        let mut run = run.args(["run", "p.toml"]).current_dir(dir.path()).stderr(Stdio::null()).spawn().unwrap();
        while !files().any(|path| unfinished(&path) && !before.contains(&path)) {
            assert!(run.try_wait().unwrap().is_none(), "it ended before it built anything");
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(12 * round));
        run.kill().unwrap();
        run.wait().unwrap();
        hit += usize::from(files().any(|path| unfinished(&path)));
        if let Some(whole) = files().find(|path| path.extension().is_some_and(|e| e == "arrow")) {
            let file = fs::File::open(&whole).unwrap();
            let rows: usize = prosampler::arrow::ipc::reader::FileReader::try_new(file, None)
                .unwrap()
                .map(|batch| batch.unwrap().num_rows())
                .sum();
            assert_eq!(rows, 117_659);
            fs::remove_file(whole).unwrap();
        }
    }
    println!("{hit} of 20 kills while building");
    assert!(hit > 0, "no kill came in time");
    let columns = ["synset", "label", "words", "definition", "examples"].map(str::to_owned);
    let config = StoreConfig { cache_dir: Some(dir.path().join("cache")), ..StoreConfig::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let source = open(path("data/wordnet/glosses.parquet")).await.unwrap();
        Store::build(&source, &columns, &config, &mut |_| {}).await.unwrap()
    });
    assert_eq!(store.len(), 117_659);
    assert!(!files().any(|path| unfinished(&path)));
}

/// A pipeline file over WordNet, with a cache.
fn wordnet() -> String {
    format!(
        "source.uri = \"{}\"\nstore.cache_dir = \"cache\"\n[encode]\nmodel = \"{}\"\ncolumn = \"definition\"\n",
        path("data/wordnet/glosses.parquet").display(),
        path("data/models/gloss-encoder/model.onnx").display(),
    )
}

/// A limit on file sizes stands in for a full disk: no file can grow beyond 40 kB.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_no_half_of_a_cache() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.toml"), wordnet()).unwrap();
    let command = format!("ulimit -f 80; trap '' XFSZ; exec {} run p.toml", env!("CARGO_BIN_EXE_prosampler"));
    let output = Command::new("sh").args(["-c", &command]).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(".building-") && said.contains("File too large"), "{said}");
    let left: Vec<_> = fs::read_dir(dir.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
}

#[test]
fn inspecting_says_what_is_there() {
    let inspect = |arguments: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_prosampler")).arg("inspect").args(arguments).output().unwrap();
        (String::from_utf8(command.stdout).unwrap(), String::from_utf8(command.stderr).unwrap())
    };
    let folder = path("tests/data/formats").display().to_string();
    let (said, _) = inspect(&[&format!("{folder}/rows.parquet"), "--rows", "1"]);
    for part in [
        "rows.parquet: Parquet, 3 row groups",
        "60 rows",
        "score  Float64, 6 nulls: filter",
        "text   Utf8, no nulls: text (encode.column), label, filter",
        "size   {width: 0, height: 0}",
        "image  (bytes)",
    ] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    let (said, _) = inspect(&[&format!("{folder}/rows.arrows"), "--filter", "n = 41", "--rows", "5"]);
    assert!(said.contains("rows.arrows: Arrow IPC stream") && said.contains("text 41") && !said.contains("text 42"));
    let (said, _) = inspect(&[&format!("{folder}/rows.arrows"), "--filter", "n = -1"]);
    assert!(said.contains("no row that can be read passes the filter: n = -1") && !said.contains("nulls"), "{said}");
    let (_, error) = inspect(&["nowhere.parquet"]);
    assert!(error.contains("no such file: `nowhere.parquet`"), "{error}");
}
