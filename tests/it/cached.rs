//! `prosampler cache` lists the files that runs keep for later runs, checks them, and removes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::path;

fn prosampler(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prosampler")).args(arguments).current_dir(dir).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder with a pipeline file that has run once, over the first shelf of WordNet.
fn after_a_run() -> TempDir {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "[source]\nuri = {:?}\nfilter = \"label = 'noun.animal'\"\n[store]\ncache_dir = \"cache\"\n[encode]\nmodel = {:?}\n\
         column = \"definition\"\n[walk]\nbatch_size = 32\n",
        path("data/wordnet/glosses.parquet"),
        path("data/models/gloss-encoder/model.onnx"),
    );
    fs::write(dir.path().join("p.toml"), text).unwrap();
    let run = prosampler(dir.path(), &["run", "p.toml"]);
    assert!(run.status.success() && !said(&run).contains("samples from the cache"), "{}", said(&run));
    dir
}

fn segment(dir: &Path) -> PathBuf {
    let folder = fs::read_dir(dir.join("cache/embeddings")).unwrap().next().unwrap().unwrap().path();
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|file| file.extension().is_some_and(|extension| extension == "arrow")).unwrap()
}

#[test]
fn cached_files_are_listed_checked_and_removed() {
    let dir = after_a_run();
    for place in ["p.toml", "cache"] {
        let list = prosampler(dir.path(), &["cache", "list", place]);
        let text = said(&list);
        assert!(list.status.success() && text.contains("glosses.parquet") && text.contains("model.onnx"), "{text}");
        assert_eq!(text.matches("7,509").count(), 2, "{text}");
    }
    let verify = || prosampler(dir.path(), &["cache", "verify", "p.toml"]);
    assert!(verify().status.success() && said(&verify()).contains("all as they were written"), "{}", said(&verify()));
    // The next run embeds nothing, until a kept file is damaged.
    let run = || prosampler(dir.path(), &["run", "p.toml"]);
    assert!(said(&run()).contains("7,509 samples from the cache"), "{}", said(&run()));
    let file = segment(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(!verify().status.success() && said(&verify()).contains(&name), "{}", said(&verify()));
    let again = run();
    assert!(
        again.status.success() && said(&again).contains("the cache is unusable and is built anew"),
        "{}",
        said(&again)
    );
    assert!(verify().status.success());

    let clear = |which: &[&str]| prosampler(dir.path(), &[&["cache", "clear", "p.toml"], which].concat());
    assert!(clear(&["--embeddings"]).status.success());
    let list = said(&prosampler(dir.path(), &["cache", "list", "p.toml"]));
    assert!(list.contains("glosses.parquet") && !list.contains("model.onnx"), "{list}");
    assert!(clear(&[]).status.success());
    assert_eq!(said(&prosampler(dir.path(), &["cache", "list", "p.toml"])), "0.0 kB in all\n");
    assert!(run().status.success());
}
