//! A uri names every data file once, and none of the files that tools put beside the data.

use std::fs;
use std::path::Path;

use prosampler::arrow::array::AsArray;
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::arrow::ipc::writer::StreamWriter;
use prosampler::source::{FileSource, Source};
use tempfile::TempDir;

use crate::support::{assert_says, rows, write_parquet};

/// A folder with a file of rows for each of these names.
fn folder(names: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in names {
        write(&dir.path().join(name));
    }
    dir
}

fn write(file: &Path) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    if file.extension().is_some_and(|extension| extension == "arrow") {
        let mut writer = StreamWriter::try_new(fs::File::create(file).unwrap(), &rows(10).schema()).unwrap();
        writer.write(&rows(10)).unwrap();
        writer.finish().unwrap();
    } else {
        write_parquet(file, &rows(10), 10);
    }
}

/// The files found, relative to `dir`; or the error.
async fn found(dir: &Path, uri: &str) -> Result<Vec<String>, String> {
    let source = FileSource::open(uri).await.map_err(|e| e.to_string())?;
    let relative = |uri: String| Path::new(&uri).strip_prefix(dir).unwrap().display().to_string();
    Ok(source.files().map(|(uri, ..)| relative(uri)).collect())
}

async fn finds(dir: &Path, uri: &str, expected: &[&str]) {
    let uri = uri.replace("DIR", &dir.display().to_string());
    assert_eq!(found(dir, &uri).await.unwrap(), expected, "{uri}");
}

#[tokio::test]
async fn hidden_files_are_no_data() {
    let dir = folder(&["a.parquet", "b.PARQUET", "sub/c.parquet", "_delta/e.parquet", ".git/f.parquet"]);
    for name in ["._a.parquet", "_metadata.parquet", ".b.parquet.crc", "_SUCCESS", "sub/._c.parquet", "notes.txt"] {
        fs::write(dir.path().join(name), "no rows").unwrap();
    }
    for (uri, expected) in [
        ("DIR", &["a.parquet", "b.PARQUET"][..]),
        ("DIR/", &["a.parquet", "b.PARQUET"]),
        ("DIR/*.parquet", &["a.parquet"]),
        ("DIR/**/*.parquet", &["a.parquet", "sub/c.parquet"]),
        ("DIR/*/*.parquet", &["sub/c.parquet"]),
        ("DIR/_*/*.parquet", &["_delta/e.parquet"]),
        ("DIR/_delta", &["_delta/e.parquet"]),
        ("DIR/**/_delta/*.parquet", &["_delta/e.parquet"]),
        ("DIR/.git/*.parquet", &[".git/f.parquet"]),
    ] {
        finds(dir.path(), uri, expected).await;
    }
    let error = found(dir.path(), &format!("{}/*.parquet", dir.path().join("sub/..").display())).await;
    assert_eq!(error.unwrap(), ["sub/../a.parquet"]);
    let none = folder(&["b.pq", "year=2020/a.parquet"]);
    let error = found(none.path(), &none.path().display().to_string()).await.unwrap_err();
    assert_says(&error, &["no file matches", "not below", "it has `b.pq` and `year=2020/`"]);
}

#[tokio::test]
async fn datasets_of_hugging_face_are_read_as_they_say() {
    let dir = folder(&["data-00001-of-00002.arrow", "data-00000-of-00002.arrow", "cache-0123456789abcdef.arrow"]);
    let listed =
        r#"{"_data_files": [{"filename": "data-00001-of-00002.arrow"}, {"filename": "data-00000-of-00002.arrow"}]}"#;
    let [first, second] = ["data-00001-of-00002.arrow", "data-00000-of-00002.arrow"];
    fs::write(dir.path().join("dataset_info.json"), "{}").unwrap();
    // The cache of `datasets` has no list of files.
    finds(dir.path(), "DIR", &[second, first]).await;
    fs::write(dir.path().join("state.json"), listed).unwrap();
    finds(dir.path(), "DIR", &[first, second]).await;
    finds(dir.path(), "DIR/*.arrow", &[second, first]).await;
    finds(dir.path(), "DIR/cache-*.arrow", &["cache-0123456789abcdef.arrow"]).await;

    let all = |error: Result<Vec<String>, String>| error.unwrap_err();
    let uri = dir.path().display().to_string();
    fs::remove_file(dir.path().join(first)).unwrap();
    assert_says(&all(found(dir.path(), &uri).await), &["no such file", first, "state.json` names it"]);
    fs::write(dir.path().join("state.json"), "{").unwrap();
    assert_says(&all(found(dir.path(), &uri).await), &["state.json`", "damaged"]);
    // This file belongs to another program.
    fs::write(dir.path().join("state.json"), r#"{"step": 3}"#).unwrap();
    finds(dir.path(), "DIR", &[second]).await;
    let chosen = listed.replace("]}", r#"], "_indices_data_files": [{"filename": "indices.arrow"}]}"#);
    fs::write(dir.path().join("state.json"), chosen).unwrap();
    assert_says(&all(found(dir.path(), &uri).await), &["flatten_indices()"]);

    let splits = folder(&["train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow"]);
    fs::write(splits.path().join("dataset_dict.json"), r#"{"splits": ["train", "test"]}"#).unwrap();
    let uri = splits.path().display().to_string();
    assert_says(&all(found(splits.path(), &uri).await), &["splits `train` and `test`", &format!("`{uri}/train`")]);
}

#[tokio::test]
async fn names_may_have_any_characters() {
    let names = ["a[1]/x y.parquet", "a1/z.parquet", "b*/x.parquet", "bb/x.parquet", r"c\d.parquet", "e%20f.parquet"];
    let dir = folder(&names);
    for (uri, expected) in [
        ("DIR/a[1]", &["a[1]/x y.parquet"][..]),
        ("DIR/a[1]/*.parquet", &["a[1]/x y.parquet"]),
        ("DIR/a[1]/x y.parquet", &["a[1]/x y.parquet"]),
        (r"DIR/a\[1\]/*", &["a[1]/x y.parquet"]),
        ("DIR/a[0-9]/*", &["a1/z.parquet"]),
        (r"DIR/b\*/*", &["b*/x.parquet"]),
        ("DIR/b?/*", &["b*/x.parquet", "bb/x.parquet"]),
        (r"DIR/c\d.parquet", &[r"c\d.parquet"]),
        (r"DIR/\e%20f.parquet", &["e%20f.parquet"]),
        ("file://DIR/a%5B1%5D/x%20y.parquet", &["a[1]/x y.parquet"]),
        ("file://localhostDIR/a%5b1%5d/*.parquet", &["a[1]/x y.parquet"]),
        ("file:DIR/b%2A/*", &["b*/x.parquet"]),
        ("file://DIR/e%2520f.parquet", &["e%20f.parquet"]),
    ] {
        finds(dir.path(), uri, expected).await;
    }
    for (uri, says) in [
        ("file://host/a.parquet", &["cannot read `file://host/a.parquet`", "`host`", "file:///"][..]),
        ("-", &["cannot read `-`", "standard input"]),
        ("/dev/null", &["cannot read `/dev/null`", "neither a file nor a folder"]),
        ("DIR/e%20g.parquet", &["did you mean", "e%20f.parquet"]),
    ] {
        let uri = uri.replace("DIR", &dir.path().display().to_string());
        assert_says(&found(dir.path(), &uri).await.unwrap_err(), says);
    }
}

/// The cache of an earlier run is found however the uri names the files.
#[tokio::test]
async fn a_file_is_the_same_under_every_name() {
    let dir = folder(&["a b.parquet"]);
    let fingerprint = async |uri: String| FileSource::open(uri).await.unwrap().fingerprint().unwrap();
    let plain = fingerprint(dir.path().join("a b.parquet").display().to_string()).await;
    assert_eq!(fingerprint(format!("file://{}/a%20b.parquet", dir.path().display())).await, plain);
}

#[cfg(unix)]
#[tokio::test]
async fn links_that_lead_in_circles_end() {
    let dir = folder(&["one/a.parquet", "two/b.parquet"]);
    std::os::unix::fs::symlink(dir.path().join("two"), dir.path().join("one/other")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("one"), dir.path().join("two/other")).unwrap();
    let expected = ["one/a.parquet", "one/other/b.parquet", "two/b.parquet", "two/other/a.parquet"];
    finds(dir.path(), "DIR/**/*.parquet", &expected).await;
}

/// Names of files may have any bytes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;

    let dir = TempDir::new().unwrap();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
    write(&odd.join("a.parquet"));
    write(&odd.join(std::ffi::OsStr::from_bytes(b"\xfe.parquet")));
    for uri in [format!("{}/*/*.parquet", dir.path().display()), format!("file://{}/d%FF", dir.path().display())] {
        let source = FileSource::open(uri).await.unwrap();
        assert_eq!(source.rows(), Some(20));
    }
    // A pipeline file in such a folder finds what lies beside it.
    let pipeline = odd.join("p.toml");
    let text = "source.uri = 'a.parquet'\nencode = { feature = 'vector', column = 'v' }\n";
    fs::write(&pipeline, text).unwrap();
    let config = prosampler::config::PipelineConfig::from_file(&pipeline).unwrap();
    let source = FileSource::open_all(&config.source).await.unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect(source.read(&["n".to_owned()]).unwrap()).await.unwrap();
    let batches: Vec<prosampler::arrow::array::RecordBatch> = batches;
    assert_eq!(batches[0].column(0).as_primitive::<UInt32Type>().values()[9], 9);
}

#[test]
fn home_is_home_in_a_pipeline_file_too() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("p.toml");
    fs::write(
        &file,
        "source.uri = ['~/a.parquet', 'b.parquet', 'file:/c', '-']\nencode.feature = 'vector'\nencode.column = 'v'\n",
    )
    .unwrap();
    let config = prosampler::config::PipelineConfig::from_file(&file).unwrap();
    let beside = dir.path().join("b.parquet").display().to_string();
    assert_eq!(config.source.uri, ["~/a.parquet", beside.as_str(), "file:/c", "-"]);
}
