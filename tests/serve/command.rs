//! `prosampler serve`, from its first line to its end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use futures::TryStreamExt;
use prosampler::MiniBatch;
use prosampler::serve::{RemoteOptions, RemoteStream};
use tempfile::TempDir;

use crate::support::path;

/// A folder with a pipeline file over the shipped vectors.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "source.uri = '{}'\nencode = {{ feature = 'vector', column = 'embedding', dimension = 64 }}\nwalk.batch_size = 64\n",
        path("data/fashion-mnist/embeddings.parquet").display()
    );
    std::fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

fn serve(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prosampler"));
    command.current_dir(dir.path()).args(["serve", "p.toml"]).args(arguments).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_serves_and_ends_when_it_is_told_to() {
    let dir = folder();
    let mut child = serve(&dir, &["--address", "127.0.0.1:0", "--set", "stream.world_size=2"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let uri = lines.find_map(|line| line.unwrap().strip_prefix("serving at ").map(str::to_owned)).unwrap();
    let mut options = RemoteOptions::default();
    options.world_size = 2;
    let mut stream = RemoteStream::connect(&uri, options).await.unwrap();
    let first: MiniBatch = stream.try_next().await.unwrap().unwrap();
    assert_eq!((first.step, first.ids.len()), (0, 32));

    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn options_that_are_not_safe_are_refused_before_anything_is_read() {
    let dir = folder();
    std::fs::write(dir.path().join("token"), "short\n").unwrap();
    let cases: [(i32, &[&str], &[&str]); 3] = [
        (2, &["--address", "0.0.0.0:0"], &["--token-file: is required", "--tls-cert: is required"]),
        (2, &["--token-file", "token"], &["--token-file: has fewer than 16 bytes"]),
        (8, &["--token-file", "no-such"], &["cannot read `no-such`"]),
    ];
    for (status, arguments, expected) in cases {
        let output = serve(&dir, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        for part in expected {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("reading"), "{said}");
    }
}
