//! Rows that were embedded once are not embedded again, and cached embeddings are never mistaken for others.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::TryStreamExt;
use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{EncodeConfig, OnBadSample, PipelineConfig, StoreConfig, StreamConfig};
use prosampler::encode::{BadRow, Encoded, Encoder};
use prosampler::source::MemorySource;
use prosampler::{Embedder, Error, MiniBatchStream, PipelineBuilder, Result, SampleId};
use tempfile::TempDir;

use crate::support::{pipeline, source};

/// Three record batches of the store.
const SAMPLES: usize = 20_000;
const SEGMENT: usize = 8192;
const DIMENSION: usize = 4;

/// An encoder that cannot read every hundredth row, and counts the rows that it was given.
struct Counting {
    columns: [String; 1],
    identity: Option<&'static str>,
    rows: Arc<AtomicUsize>,
    fails_after: usize,
}

impl Counting {
    fn new(identity: Option<&'static str>) -> (Self, Arc<AtomicUsize>) {
        let rows = Arc::new(AtomicUsize::new(0));
        (Self { columns: ["n".into()], identity, rows: rows.clone(), fails_after: usize::MAX }, rows)
    }
}

impl Encoder for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn identity(&self) -> Option<String> {
        self.identity.map(ToOwned::to_owned)
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.encode_readable(rows, vectors).map(drop)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        if self.rows.fetch_add(rows.num_rows(), Relaxed) >= self.fails_after {
            return Err(Error::Encode { encoder: "counting".into(), cause: "the power went".into() });
        }
        let (mut bad, mut pair_similarities) = (Vec::new(), Vec::new());
        for (row, &n) in rows.column(0).as_primitive::<UInt32Type>().values().iter().enumerate() {
            if n % 100 == 7 {
                bad.push(BadRow { row, column: "n".into(), reason: "ends with 07".into() });
            } else {
                let n = n as f32;
                vectors[row * DIMENSION..][..DIMENSION].copy_from_slice(&[n.sin(), n.cos(), 0.3, 1e-3 * n]);
            }
            pair_similarities.push(n as f32 * 1e-6);
        }
        Ok(Encoded { bad, pair_similarities })
    }
}

fn builder(cache: &Path, encoder: impl Encoder) -> PipelineBuilder {
    let encode =
        EncodeConfig { cache_dir: Some(cache.into()), on_bad_sample: OnBadSample::Skip, ..EncodeConfig::default() };
    pipeline(SAMPLES, 64).encoder(encoder).encode(encode)
}

async fn vectors(stream: &MiniBatchStream) -> Vec<(Vec<f32>, Option<f32>, bool)> {
    let table = stream.snapshot().unwrap().embeddings.clone();
    let one = |i| {
        let mut vector = vec![0.0; DIMENSION];
        table.read(SampleId::new(i), &mut vector);
        (vector, table.pair_similarity(SampleId::new(i)), table.is_skipped(SampleId::new(i)))
    };
    (0..table.len()).map(one).collect()
}

fn files(cache: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "arrow")).collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_second_run_embeds_nothing_and_draws_the_same() {
    let dir = TempDir::new().unwrap();
    let run = async |cache: &Path, identity| {
        let (encoder, rows) = Counting::new(identity);
        let mut stream = builder(cache, encoder).start().await.unwrap();
        let first = stream.try_next().await.unwrap().unwrap().ids;
        let reused = stream.handle().embeddings_reused();
        (vectors(&stream).await, first, rows.load(Relaxed), reused)
    };
    let fresh = run(&dir.path().join("none"), None).await;
    assert!(!dir.path().join("none").exists());
    assert_eq!((fresh.2, fresh.3), (SAMPLES, 0));
    assert_eq!(fresh.0.iter().filter(|one| one.2).count(), SAMPLES / 100);
    let cache = dir.path().join("cache");
    for (rows, reused) in [(SAMPLES, 0), (0, SAMPLES as u64)] {
        let again = run(&cache, Some("a model")).await;
        assert!(again.0 == fresh.0 && again.1 == fresh.1);
        assert_eq!((again.2, again.3), (rows, reused));
    }
    assert_eq!(files(&cache).len(), 3);
    let other = run(&cache, Some("another model")).await;
    assert_eq!((other.2, other.3), (SAMPLES, 0));
}

#[tokio::test]
async fn a_start_that_was_killed_goes_on() {
    let dir = TempDir::new().unwrap();
    let (mut encoder, _) = Counting::new(Some("a model"));
    encoder.fails_after = SEGMENT + 1;
    let error = builder(dir.path(), encoder).start().await.unwrap_err().to_string();
    assert!(error.contains("the power went"), "{error}");
    // A killed process leaves a half-written file, which is removed an hour later.
    let folder = files(dir.path())[0].parent().unwrap().to_owned();
    let [old, new] = [".building-0-old", ".building-0-new"].map(|name| folder.join(name));
    let hours = std::time::Duration::from_secs(7200);
    for (path, age) in [(&old, hours), (&new, std::time::Duration::ZERO)] {
        fs::write(path, "half").unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    let (encoder, rows) = Counting::new(Some("a model"));
    let stream = builder(dir.path(), encoder).start().await.unwrap();
    assert_eq!((old.exists(), new.exists()), (false, true));
    assert_eq!(rows.load(Relaxed), SAMPLES - 2 * SEGMENT);
    assert_eq!(stream.handle().embeddings_reused(), 2 * SEGMENT as u64);
}

/// Embeddings are found by the content of rows, wherever the rows lie.
#[tokio::test]
async fn embeddings_are_found_by_the_content_of_rows() {
    let dir = TempDir::new().unwrap();
    let run = async |rows: Vec<RecordBatch>| {
        let (encoder, asked) = Counting::new(Some("a model"));
        let source = MemorySource::new(rows).unwrap();
        builder(dir.path(), encoder).source(source).start().await.unwrap();
        asked.load(Relaxed)
    };
    let all = crate::support::rows(SAMPLES);
    assert_eq!(run(vec![all.clone()]).await, SAMPLES);
    // The rows come in other record batches, and more rows follow.
    let pieces = vec![all.slice(0, 100), all.slice(100, SAMPLES - 100)];
    assert_eq!(run(pieces.clone()).await, 0);
    assert_eq!(run([pieces, vec![all.slice(0, 1000)]].concat()).await, SAMPLES + 1000 - 2 * SEGMENT);
    // If one row is taken out, all rows after it move.
    assert_eq!(run(vec![all.slice(1, SAMPLES - 1)]).await, SAMPLES - 1);
}

/// Parts of 8,192 rows that were embedded one by one are what a run over all rows finds, and the other way round.
#[tokio::test]
async fn an_embedder_and_a_run_find_each_other_s_embeddings() {
    let all = crate::support::rows(SAMPLES);
    let part = |first: usize| MemorySource::new(vec![all.slice(first, SEGMENT.min(SAMPLES - first))]).unwrap();
    let embedder = |cache: &Path| {
        let (encoder, rows) = Counting::new(Some("a model"));
        let encode =
            EncodeConfig { cache_dir: Some(cache.into()), on_bad_sample: OnBadSample::Skip, ..EncodeConfig::default() };
        let config = PipelineConfig { encode, ..PipelineConfig::default() };
        (Embedder::new(config).unwrap().with_encoder(encoder), rows)
    };
    let dir = TempDir::new().unwrap();
    let (one, embedded) = embedder(dir.path());
    let mut tables = Vec::new();
    // In any order.
    for first in [2 * SEGMENT, 0, SEGMENT] {
        tables.push((first, one.embed(part(first)).await.unwrap()));
    }
    assert_eq!((embedded.load(Relaxed), one.reused()), (SAMPLES, 0));

    let (encoder, embedded) = Counting::new(Some("a model"));
    let stream = builder(dir.path(), encoder).start().await.unwrap();
    assert_eq!((embedded.load(Relaxed), stream.handle().embeddings_reused()), (0, SAMPLES as u64));
    let of_run = vectors(&stream).await;
    let mut skipped = 0;
    for (first, table) in tables {
        skipped += table.skipped();
        for row in 0..table.len() {
            let id = SampleId::new(row);
            let of_part = (table.get(id).into_owned(), table.pair_similarity(id), table.is_skipped(id));
            assert!(of_part == of_run[first + row], "row {row} of those from {first} on");
        }
    }
    assert_eq!(skipped, SAMPLES / 100);

    let dir = TempDir::new().unwrap();
    let (encoder, _) = Counting::new(Some("a model"));
    builder(dir.path(), encoder).start().await.unwrap();
    let (two, embedded) = embedder(dir.path());
    assert_eq!(two.embed(part(SEGMENT)).await.unwrap().len(), SEGMENT);
    assert_eq!((embedded.load(Relaxed), two.reused()), (0, SEGMENT as u64));

    let bad = MemorySource::new(vec![all.slice(100, 50)]).unwrap();
    let config = PipelineConfig::default();
    let failing = Embedder::new(config).unwrap().with_encoder(Counting::new(None).0);
    let error = failing.embed(bad).await.unwrap_err().to_string();
    crate::support::assert_says(&error, &["sample 7", "ends with 07"]);
    let texts = std::sync::Arc::new(prosampler::arrow::array::StringArray::from(vec!["a"]));
    let other = MemorySource::new(vec![RecordBatch::try_from_iter([("text", texts as _)]).unwrap()]).unwrap();
    let error = failing.embed(other).await.unwrap_err().to_string();
    crate::support::assert_says(&error, &["`n`", "`text`"]);
}

#[tokio::test]
async fn damaged_embeddings_are_made_again() {
    let dir = TempDir::new().unwrap();
    let start = async || {
        let (encoder, rows) = Counting::new(Some("a model"));
        let stream = builder(dir.path(), encoder).start().await.unwrap();
        (vectors(&stream).await, rows.load(Relaxed))
    };
    let (sound, _) = start().await;
    let first = files(dir.path()).remove(0);
    let whole = fs::read(&first).unwrap();
    let samples: usize = first.file_stem().unwrap().to_str().unwrap().split('-').nth(1).unwrap().parse().unwrap();
    for place in [0, whole.len() / 3, whole.len() / 2, whole.len() - 300, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        fs::write(&first, bytes).unwrap();
        let (again, rows) = start().await;
        assert!(again == sound, "byte {place}");
        assert_eq!(rows, samples, "byte {place}");
        assert!(fs::read(&first).unwrap() == whole, "byte {place}");
    }
}

/// Files that were not used for longest are removed first. If nothing fits, nothing is kept, and the run goes on.
#[tokio::test]
async fn the_cache_stays_within_its_limit() {
    let dir = TempDir::new().unwrap();
    let one = SAMPLES * DIMENSION * 4;
    let start = async |identity, cache_limit| {
        let (encoder, rows) = Counting::new(Some(identity));
        let encode = EncodeConfig {
            cache_dir: Some(dir.path().into()),
            cache_limit,
            on_bad_sample: OnBadSample::Skip,
            ..EncodeConfig::default()
        };
        builder(dir.path(), encoder).encode(encode).start().await.unwrap();
        rows.load(Relaxed)
    };
    assert_eq!(start("a", 0).await, SAMPLES);
    assert_eq!(files(dir.path()).len(), 0);
    assert_eq!(start("a", one as u64 / 2).await, SAMPLES);
    assert_eq!(files(dir.path()).len(), 1);
    // With the headers of files, two and a half of them fit.
    let limit = one as u64 * 5 / 2 + 100_000;
    for (identity, asked) in
        [("a", SAMPLES - SEGMENT), ("b", SAMPLES), ("a", 0), ("c", SAMPLES), ("a", 0), ("b", SAMPLES)]
    {
        assert_eq!(start(identity, limit).await, asked, "{identity}");
    }
}

/// Embeddings are cached below the folder of the rows, unless the settings name another.
#[tokio::test]
async fn embeddings_are_cached_beside_the_rows() {
    let dir = TempDir::new().unwrap();
    let (encoder, _) = Counting::new(Some("a model"));
    let encode = EncodeConfig { on_bad_sample: OnBadSample::Skip, ..EncodeConfig::default() };
    let store = StoreConfig { cache_dir: Some(dir.path().into()), ..StoreConfig::default() };
    pipeline(SAMPLES, 64)
        .source(source(SAMPLES))
        .encoder(encoder)
        .encode(encode)
        .store(store)
        .stream(StreamConfig::default())
        .start()
        .await
        .unwrap();
    assert_eq!(files(&dir.path().join("embeddings")).len(), 3);
}

/// A model is recognised by its content, its tokenizer and its settings, wherever its file is.
#[cfg(feature = "onnx")]
#[tokio::test]
async fn embeddings_are_found_by_the_content_of_models() {
    use crate::support::path;
    let dir = TempDir::new().unwrap();
    let model = path("data/models/gloss-encoder/model.onnx");
    let config = EncodeConfig { model: Some(model.clone()), column: Some("text".into()), ..EncodeConfig::default() };
    let identity = |config: &EncodeConfig| {
        prosampler::encode::OnnxEncoder::open(config).unwrap().identity().expect("it has not changed since")
    };
    let known = identity(&config);
    for name in ["model.onnx", "tokenizer.json"] {
        fs::copy(model.with_file_name(name), dir.path().join(name)).unwrap();
    }
    let copied = EncodeConfig { model: Some(dir.path().join("model.onnx")), ..config.clone() };
    assert_eq!(identity(&copied), known);
    assert_eq!(identity(&EncodeConfig { column: Some("other".into()), ..config.clone() }), known);
    for other in [
        EncodeConfig { max_tokens: 17, ..config.clone() },
        EncodeConfig { prefix: "query: ".into(), ..config.clone() },
        EncodeConfig { batch_rows: 7, ..config.clone() },
    ] {
        assert_ne!(identity(&other), known);
    }
    let tokenizer = fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer + "\n").unwrap();
    assert_ne!(identity(&copied), known);
}
