//! Processes with one cache folder embed each record batch once between them.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{EncodeConfig, OnBadSample};
use prosampler::encode::{BadRow, Encoded, Encoder};
use prosampler::{PipelineBuilder, Result, Stage};
use tempfile::TempDir;

use crate::support::pipeline;

/// The rows of a full record batch in the store.
const FULL: usize = 8192;
const RECORD_BATCHES: usize = 6;
const SAMPLES: usize = (RECORD_BATCHES - 1) * FULL + 100;
const DIMENSION: usize = 4;

/// When a process waits for a line of its standard input before it embeds a record batch.
const HOLDS: &str = "PROSAMPLER_TEST_HOLDS";
const IDENTITY: &str = "PROSAMPLER_TEST_IDENTITY";
const FOLDER: &str = "PROSAMPLER_TEST_FOLDER";

/// An encoder that tells which record batch it is given, and cannot read some rows.
struct Telling<F> {
    columns: [String; 1],
    identity: Option<String>,
    tell: F,
}

impl<F: Fn(usize) + Send + Sync + 'static> Telling<F> {
    fn new(identity: Option<&str>, tell: F) -> Self {
        Self { columns: ["n".into()], identity: identity.map(ToOwned::to_owned), tell }
    }
}

impl<F: Fn(usize) + Send + Sync + 'static> Encoder for Telling<F> {
    fn name(&self) -> &str {
        "telling"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.encode_readable(rows, vectors).map(drop)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
        (self.tell)(numbers[0] as usize / FULL);
        let (mut bad, mut pair_similarities) = (Vec::new(), Vec::new());
        for (row, &n) in numbers.iter().enumerate() {
            if n % 1000 == 7 {
                bad.push(BadRow { row, column: "n".into(), reason: "ends with 007".into() });
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

/// All that a run knows of its embeddings, as it is saved.
async fn embeddings(builder: PipelineBuilder, dir: &Path) -> Vec<u8> {
    let stream = builder.start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let file = dir.join(format!("embeddings-{}", std::process::id()));
    snapshot.embeddings.save(&file).unwrap();
    fs::read(file).unwrap()
}

/// What a run without a cache makes.
async fn expected() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    embeddings(builder(&dir.path().join("unused"), Telling::new(None, |_| {})), dir.path()).await
}

/// The process that the tests below start.
#[tokio::test(flavor = "multi_thread")]
async fn rank_of_a_job() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let (holds, identity) = (std::env::var(HOLDS).unwrap(), std::env::var(IDENTITY).unwrap());
    let tell = move |record_batch: usize| {
        println!("\nbegun {record_batch}");
        if holds == "every" || holds == record_batch.to_string() {
            assert_eq!(std::io::stdin().read_line(&mut String::new()).unwrap(), "go on\n".len());
        }
    };
    let dir = Path::new(&dir);
    embeddings(builder(&dir.join("cache"), Telling::new(Some(&identity), tell)), dir).await;
}

/// A process, and what it says.
struct Rank {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Rank {
    /// Starts a process that holds before `holds`: before `every` record batch, one by its number, or `none`.
    fn start(dir: &Path, identity: &str, holds: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embed_once::rank_of_a_job", "--nocapture"])
            .envs([(HOLDS, holds), (IDENTITY, identity)])
            .env(FOLDER, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, input, lines: BufReader::new(output).lines() }
    }

    /// Waits until it begins a record batch; `None` when it ends.
    fn begun(&mut self) -> Option<usize> {
        let number = |line: String| line.strip_prefix("begun ").map(|number| number.parse().unwrap());
        self.lines.by_ref().map(Result::unwrap).find_map(number)
    }

    fn go_on(&mut self) {
        writeln!(self.input, "go on").unwrap();
    }

    /// Waits until it ends, and returns which record batches it has begun since, and its embeddings.
    fn end(mut self, dir: &Path) -> (Vec<usize>, Vec<u8>) {
        let begun = std::iter::from_fn(|| self.begun()).collect();
        assert!(self.process.wait().unwrap().success());
        (begun, fs::read(dir.join(format!("embeddings-{}", self.process.id()))).unwrap())
    }
}

/// The names in the folder of the only encoder, apart from that of its identity.
fn names(cache: &Path) -> Vec<String> {
    let folder = fs::read_dir(cache).unwrap().next().unwrap().unwrap().path();
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "encoder.txt").collect()
}

#[tokio::test]
async fn each_record_batch_is_embedded_once() {
    let expected = expected().await;
    for world_size in [1, 2, 4] {
        let dir = TempDir::new().unwrap();
        let mut ranks: Vec<_> = (0..world_size).map(|_| Rank::start(dir.path(), "a model", "every")).collect();
        // All have begun one, and none is done.
        let mut begun: Vec<_> = ranks.iter_mut().map(|rank| rank.begun().unwrap()).collect();
        for rank in &mut ranks {
            (0..RECORD_BATCHES).for_each(|_| rank.go_on());
        }
        for rank in ranks {
            let (more, embeddings) = rank.end(dir.path());
            begun.extend(more);
            assert!(embeddings == expected, "{world_size} ranks");
        }
        begun.sort_unstable();
        assert_eq!(begun, (0..RECORD_BATCHES).collect::<Vec<_>>(), "{world_size} ranks");
        // No lock is left.
        let names = names(&dir.path().join("cache"));
        assert_eq!(names.iter().filter(|name| name.ends_with(".arrow")).count(), RECORD_BATCHES);
        assert_eq!(names.len(), RECORD_BATCHES, "{names:?}");
    }
}

#[tokio::test]
async fn a_late_rank_embeds_what_is_left() {
    let dir = TempDir::new().unwrap();
    let mut first = Rank::start(dir.path(), "a model", "1");
    assert_eq!([first.begun(), first.begun()], [Some(0), Some(1)]);
    let mut late = Rank::start(dir.path(), "a model", "none");
    assert_eq!([(); 4].map(|()| late.begun()), [2, 3, 4, 5].map(Some));
    first.go_on();
    let expected = expected().await;
    for rank in [first, late, Rank::start(dir.path(), "a model", "none")] {
        assert!(rank.end(dir.path()) == (vec![], expected.clone()));
    }
}

#[tokio::test]
async fn the_work_of_a_killed_rank_is_done_by_another() {
    let dir = TempDir::new().unwrap();
    let mut killed = Rank::start(dir.path(), "a model", "1");
    assert_eq!([killed.begun(), killed.begun()], [Some(0), Some(1)]);
    let mut other = Rank::start(dir.path(), "a model", "none");
    assert_eq!([(); 4].map(|()| other.begun()), [2, 3, 4, 5].map(Some));
    killed.process.kill().unwrap();
    killed.process.wait().unwrap();
    assert_eq!(other.begun(), Some(1));
    assert!(other.end(dir.path()) == (vec![], expected().await));
    assert_eq!(names(&dir.path().join("cache")).len(), RECORD_BATCHES);
}

#[tokio::test]
async fn ranks_with_other_encoders_share_nothing() {
    let dir = TempDir::new().unwrap();
    let mut first = Rank::start(dir.path(), "a model", "0");
    assert_eq!(first.begun(), Some(0));
    let expected = expected().await;
    let all: Vec<_> = (0..RECORD_BATCHES).collect();
    assert!(Rank::start(dir.path(), "another model", "none").end(dir.path()) == (all.clone(), expected.clone()));
    first.go_on();
    assert!(first.end(dir.path()) == (all[1..].to_vec(), expected));
}

/// Locks every record batch in a cache that has been filled, and removes the embeddings.
fn claim_all(cache: &Path) -> Vec<fs::File> {
    let folder = fs::read_dir(cache).unwrap().next().unwrap().unwrap().path();
    let files = names(cache).into_iter().map(|name| folder.join(name));
    let claim = |file: std::path::PathBuf| {
        fs::remove_file(&file).unwrap();
        let lock = fs::File::create(file.with_extension("lock")).unwrap();
        lock.try_lock().unwrap();
        lock
    };
    files.map(claim).collect()
}

#[tokio::test]
async fn a_wait_for_others_is_told_and_can_be_cancelled() {
    let dir = TempDir::new().unwrap();
    embeddings(builder(dir.path(), Telling::new(Some("a model"), |_| {})), dir.path()).await;
    fs::remove_file(dir.path().join(format!("embeddings-{}", std::process::id()))).unwrap();
    let claims = claim_all(dir.path());
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let tell = move |_| sender.send(()).unwrap();
    let (waits, has_waited) = tokio::sync::oneshot::channel();
    let mut waits = Some(waits);
    let mut reports = 0;
    let progress = move |progress: prosampler::Progress| {
        assert!(progress.stage != Stage::Graph, "it was not embedded yet");
        reports += usize::from(progress.stage == Stage::Encode);
        if reports == 3 {
            waits.take().unwrap().send(progress.done).unwrap();
        }
    };
    let start = builder(dir.path(), Telling::new(Some("a model"), tell)).on_progress(progress).start();
    let started = tokio::spawn(start);
    assert_eq!(has_waited.await, Ok(0));
    started.abort();
    assert!(started.await.unwrap_err().is_cancelled());
    // The encoder is dropped, without having embedded anything.
    tokio::task::spawn_blocking(move || assert!(receiver.recv().is_err())).await.unwrap();
    drop(claims);
}

/// Where nothing can be locked, a run embeds what is missing, and shares it all the same.
#[tokio::test]
async fn a_run_without_locks_embeds_all() {
    let dir = TempDir::new().unwrap();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let run = async || {
        let begun = begun.clone();
        let tell = move |record_batch| begun.lock().unwrap().push(record_batch);
        embeddings(builder(&dir.path().join("cache"), Telling::new(Some("a model"), tell)), dir.path()).await
    };
    let expected = expected().await;
    assert!(run().await == expected);
    let folder = fs::read_dir(dir.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    for name in names(&dir.path().join("cache")) {
        fs::remove_file(folder.join(&name)).unwrap();
        fs::create_dir(folder.join(name).with_extension("lock")).unwrap();
    }
    begun.lock().unwrap().clear();
    assert!(run().await == expected);
    assert!(run().await == expected);
    assert_eq!(*begun.lock().unwrap(), (0..RECORD_BATCHES).collect::<Vec<_>>());
}
