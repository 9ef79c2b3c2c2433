//! Objects are read from a real S3 server on this machine, with faults injected on the way to it.

use std::collections::{BTreeMap, VecDeque};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, BinaryArray, RecordBatch, UInt32Array};
use prosampler::arrow::compute::concat_batches;
use prosampler::config::{OnCorrupt, SourceConfig, StoreConfig};
use prosampler::source::{FileSource, Source, SourceCounts};
use prosampler::store::Store;
use prosampler::{Error, Result};
use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{path, rows, write_parquet};

/// moto, an S3 server in Python.
struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    async fn start() -> Self {
        let python = path(".moto/bin/python");
        assert!(python.is_file(), "moto is not there; `make test` puts it there");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(python)
            .args(["-I", "-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { process, port };
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        moto.put("bucket", &[]).await;
        moto
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        let mut server = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = format!(
            "PUT /{key} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nx-amz-acl: public-read-write\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        server.write_all(head.as_bytes()).await.unwrap();
        server.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        server.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The answer is to come again later.
    Unavailable,
    /// As an overloaded store says it.
    Throttled,
    /// The connection is closed without an answer.
    Reset,
    /// The connection is closed in the middle of the answer's body.
    CutShort,
    /// No answer comes.
    Timeout,
}

/// A proxy between source and server, with one fault for each request, in the order given, until none are left.
#[derive(Clone, Default)]
struct Faults {
    coming: Arc<Mutex<VecDeque<Fault>>>,
    injected: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Faults {
    async fn between(&self, moto: &Moto) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, server, faults) = (listener.local_addr().unwrap().port(), moto.port, self.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let faults = faults.clone();
                // Broken connections are expected here.
                tokio::spawn(async move { faults.pass_on(client, server).await.ok() });
            }
        });
        port
    }

    fn inject(&self, faults: &[Fault]) {
        self.coming.lock().unwrap().extend(faults);
    }

    async fn pass_on(&self, mut client: TcpStream, server: u16) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
        }
        let fault = self.coming.lock().unwrap().pop_front().unwrap_or(Fault::None);
        self.injected.fetch_add(usize::from(fault != Fault::None), Relaxed);
        match fault {
            Fault::Unavailable => {
                client
                    .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .await
            }
            Fault::Throttled => {
                client
                    .write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .await
            }
            Fault::Reset => client.set_zero_linger(),
            Fault::Timeout => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            }
            Fault::None | Fault::CutShort => {
                // Each connection has one request, so that each request has its fault.
                let end = head.len() - 2;
                head.splice(end..end, *b"Connection: close\r\n");
                let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                server.write_all(&head).await?;
                let mut answer = Vec::new();
                server.read_to_end(&mut answer).await?;
                self.bytes.fetch_add(answer.len(), Relaxed);
                if fault == Fault::CutShort {
                    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                    answer.truncate(body + (answer.len() - body) / 2);
                }
                client.write_all(&answer).await
            }
        }
    }
}

fn config(port: u16, uri: &str) -> SourceConfig {
    let options = [
        ("endpoint", format!("http://127.0.0.1:{port}")),
        ("allow_http", "true".into()),
        ("access_key_id", "test".into()),
        ("secret_access_key", "test".into()),
        ("region", "us-east-1".into()),
        ("timeout", "1s".into()),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value)).into();
    SourceConfig { uri: vec![uri.into()], options, ..SourceConfig::default() }
}

async fn read(source: &dyn Source, columns: &[String]) -> Result<RecordBatch> {
    let batches: Vec<_> = source.read(columns)?.try_collect().await?;
    Ok(concat_batches(&batches[0].schema(), &batches).unwrap())
}

fn names(source: &dyn Source) -> Vec<String> {
    source.schema().fields().iter().map(|f| f.name().clone()).collect()
}

/// Numbers with a kilobyte each that no codec makes smaller, so that reading takes several requests and row groups.
fn large() -> RecordBatch {
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let mut bytes = vec![0; 1 << 20];
    generator.fill_bytes(&mut bytes);
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..24_000));
    let images = (0..24_000).map(|i| &bytes[i * 31 % 900_000..][..1000]);
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
    RecordBatch::try_from_iter([("n", numbers), ("image", images)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_found_and_read_as_files_are() {
    let moto = Moto::start().await;
    let formats = path("tests/data/formats");
    for key in ["data/rows.parquet", "data/pages.parquet", "ipc/rows.arrow", "ipc/rows.arrows"] {
        let name = key.rsplit_once('/').unwrap().1;
        moto.put(&format!("bucket/some/{key}"), &std::fs::read(formats.join(name)).unwrap()).await;
    }
    moto.put("bucket/some/data/notes.txt", b"no data").await;
    for (uri, expected) in [
        ("s3://bucket/some/data/rows.parquet", &["data/rows.parquet"][..]),
        ("s3://bucket/some/ipc/rows.arrow", &["ipc/rows.arrow"]),
        ("s3://bucket/some/ipc/rows.arrows", &["ipc/rows.arrows"]),
        ("s3://bucket/some/data", &["data/pages.parquet", "data/rows.parquet"]),
        ("s3://bucket/some/data/*.parquet", &["data/pages.parquet", "data/rows.parquet"]),
        ("s3://bucket/*/ipc/rows.arrow?", &["ipc/rows.arrows"]),
    ] {
        let source = FileSource::open_all(&config(moto.port, uri)).await.unwrap();
        let found: Vec<_> = source.files().map(|(uri, ..)| uri).collect();
        let expected: Vec<_> = expected.iter().map(|name| format!("s3://bucket/some/{name}")).collect();
        assert_eq!(found, expected, "{uri}");
        let [name] = &expected[..] else { continue };
        let local = formats.join(name.rsplit_once('/').unwrap().1).display().to_string();
        let local = FileSource::open(local).await.unwrap();
        let names = names(&local);
        assert_eq!(read(&source, &names).await.unwrap(), read(&local, &names).await.unwrap(), "{uri}");
    }

    let at_store = config(moto.port, "s3://bucket/some/data/rows.parquet");
    let options = at_store.options.iter().flat_map(|(key, value)| ["--option".to_owned(), format!("{key}={value}")]);
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_prosampler"));
    inspect.arg("inspect").args(&at_store.uri).args(options);
    let said = tokio::task::block_in_place(|| inspect.output()).unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("60 rows"), "{said:?}");

    // A web server has no listing, so each uri is one file.
    let web = format!("http://127.0.0.1:{}/bucket/some/data/rows.parquet", moto.port);
    let web_config = SourceConfig { options: [("allow_http".into(), "true".into())].into(), ..config(0, &web) };
    let source = FileSource::open_all(&web_config).await.unwrap();
    assert_eq!(read(&source, &["n".into()]).await.unwrap().num_rows(), 60);

    // Stores of Azure and Google answer to GET and HEAD of an object as that of S3 does, without signatures.
    let server = format!("http://127.0.0.1:{}", moto.port);
    for (uri, endpoint, account) in [
        ("az://bucket/some/data/rows.parquet", "endpoint", Some("account_name")),
        ("gs://bucket/some/data/rows.parquet", "base_url", None),
    ] {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut options: BTreeMap<_, _> =
            [set(endpoint, &server), set("skip_signature", "true"), set("allow_http", "true")].into();
        options.extend(account.map(|key| set(key, "test")));
        let config = SourceConfig { uri: vec![uri.into()], options, ..SourceConfig::default() };
        let source = FileSource::open_all(&config).await.unwrap();
        assert_eq!(read(&source, &["n".into()]).await.unwrap().num_rows(), 60, "{uri}");
    }

    let refused = async |config: SourceConfig| FileSource::open_all(&config).await.unwrap_err().to_string();
    let message = refused(config(moto.port, "s3://bucket/some/date")).await;
    assert!(message.contains("no such file: `s3://bucket/some/date`"), "{message}");
    let message = refused(config(moto.port, "s3://other/data/*.parquet")).await;
    assert!(message.contains("`s3://other/data/*.parquet`"), "{message}");
    let mut odd = config(moto.port, "s3://bucket/some/data");
    odd.options.insert("regoin".into(), "here".into());
    let message = refused(odd).await;
    assert!(message.contains("`source.options` has `regoin`, which is no option of this store"), "{message}");
    let private = web.replace("rows.parquet", "private.parquet");
    let message = refused(SourceConfig { uri: vec![private], ..web_config.clone() }).await;
    assert!(message.contains("private.parquet"), "{message}");
    let message = refused(SourceConfig { uri: vec![web.replace("rows", "*")], ..web_config }).await;
    assert!(message.contains("cannot be listed"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_retried_and_counted() {
    let moto = Moto::start().await;
    let dir = TempDir::new().unwrap();
    let (file, expected) = (dir.path().join("a.parquet"), large());
    write_parquet(&file, &expected, 10_000);
    moto.put("bucket/a.parquet", &std::fs::read(&file).unwrap()).await;

    let faults = Faults::default();
    let port = faults.between(&moto).await;
    use Fault::{CutShort, None, Reset, Throttled, Timeout, Unavailable};
    faults.inject(&[Unavailable, None, Reset, None, CutShort]);
    let source = FileSource::open_all(&config(port, "s3://bucket/a.parquet")).await.unwrap();
    faults.inject(&[CutShort, Reset, Throttled, None, Unavailable, Unavailable, Timeout, CutShort, None, Reset]);
    assert_eq!(read(&source, &names(&source)).await.unwrap(), expected);
    assert_eq!(source.counts().failed_requests, faults.injected.load(Relaxed));
    assert!(faults.coming.lock().unwrap().is_empty(), "too few requests for all faults");

    // Only the columns in use travel.
    faults.bytes.store(0, Relaxed);
    assert_eq!(read(&source, &["n".into()]).await.unwrap().num_rows(), 24_000);
    let bytes = faults.bytes.load(Relaxed);
    assert!(bytes < 400_000, "{bytes} bytes for 96,000");
}

/// If a store is down, that is an error: neither damage to skip nor the end of the data.
#[tokio::test(flavor = "multi_thread")]
async fn lasting_faults_are_errors() {
    let moto = Moto::start().await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.parquet");
    write_parquet(&file, &rows(1000), 1000);
    let bytes = std::fs::read(&file).unwrap();
    moto.put("bucket/a.parquet", &bytes).await;
    let faults = Faults::default();
    let port = faults.between(&moto).await;
    let config = SourceConfig { retries: 2, on_corrupt: OnCorrupt::Skip, ..config(port, "s3://bucket/a.parquet") };
    let source = FileSource::open_all(&config).await.unwrap();
    faults.inject(&[Fault::Unavailable; 100]);
    let error = read(&source, &["n".into()]).await.unwrap_err();
    assert!(matches!(error, Error::Remote { .. }), "{error}");
    assert!(error.to_string().contains("cannot read `s3://bucket/a.parquet`"), "{error}");
    assert_eq!(source.counts(), SourceCounts { skipped_rows: 0, bad_texts: 0, failed_requests: 3 });

    faults.coming.lock().unwrap().clear();
    write_parquet(&file, &rows(999), 1000);
    moto.put("bucket/a.parquet", &std::fs::read(&file).unwrap()).await;
    let error = read(&source, &["n".into()]).await.unwrap_err();
    assert!(error.to_string().contains("`s3://bucket/a.parquet` has changed since its rows were read"), "{error}");
}

/// Which files of a folder are data is decided in a store as on disk.
#[tokio::test(flavor = "multi_thread")]
async fn folders_of_a_store_are_listed_as_on_disk() {
    let moto = Moto::start().await;
    let rows = std::fs::read(path("tests/data/formats/rows.parquet")).unwrap();
    let arrows = std::fs::read(path("tests/data/formats/rows.arrows")).unwrap();
    for (key, bytes) in [
        ("plain/b.parquet", &rows),
        ("plain/._b.parquet", &rows),
        ("plain/_metadata.parquet", &rows),
        ("plain/.git/c.parquet", &rows),
        ("hf/data-00000-of-00001.arrow", &arrows),
        ("hf/cache-1234.arrow", &arrows),
        ("dict/train/data-00000-of-00001.arrow", &arrows),
    ] {
        moto.put(&format!("bucket/{key}"), bytes).await;
    }
    let listed = br#"{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}"#;
    moto.put("bucket/hf/state.json", listed).await;
    moto.put("bucket/dict/dataset_dict.json", br#"{"splits": ["train"]}"#).await;
    let open = async |folder: &str| {
        let source = FileSource::open_all(&config(moto.port, &format!("s3://bucket/{folder}"))).await?;
        Ok(source.files().map(|(uri, ..)| uri).collect::<Vec<_>>())
    };
    assert_eq!(
        open("plain").await.map_err(|e: Error| e.to_string()),
        Ok(vec!["s3://bucket/plain/b.parquet".to_owned()])
    );
    let expected = Ok(vec!["s3://bucket/hf/data-00000-of-00001.arrow".to_owned()]);
    assert_eq!(open("hf").await.map_err(|e: Error| e.to_string()), expected);
    let error = open("dict").await.unwrap_err().to_string();
    assert!(
        error.contains("DatasetDict with the splits `train`; name one, such as `s3://bucket/dict/train`"),
        "{error}"
    );
}

/// Objects that are added during a run get the next ids.
#[tokio::test(flavor = "multi_thread")]
async fn new_objects_are_appended() {
    let moto = Moto::start().await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.parquet");
    write_parquet(&file, &rows(1000), 400);
    let bytes = std::fs::read(&file).unwrap();
    moto.put("bucket/data/b.parquet", &bytes).await;
    let source = FileSource::open_all(&config(moto.port, "s3://bucket/data/")).await.unwrap();
    let columns = names(&source);
    let store = Store::build(&source, &columns, &StoreConfig::default(), &mut |_| {}).await.unwrap();
    assert!(store.grow(&source).await.unwrap().is_none());
    moto.put("bucket/data/a.parquet", &bytes).await;
    assert_eq!(store.grow(&source).await.unwrap().unwrap().len(), 2000);
}
