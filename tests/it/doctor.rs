//! `prosampler doctor` says what works, what a pipeline takes, and what to do before it can run.

use std::fs;
use std::path::Path;
use std::process::Output;

use prosampler::encode::{cuda, runtime};

use crate::support::command::{command, pipeline, prosampler, text};
use crate::support::{assert_says, path};

/// The value in the line of this name.
#[track_caller]
fn item(said: &str, name: &str) -> String {
    let value = said.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no line `{name}` in {said}")).trim().to_owned()
}

#[track_caller]
fn ends_with_line(output: &Output, status: i32, last: &str) -> String {
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(status), "{said}{}", text(&output.stderr));
    assert_eq!(said.lines().last(), Some(last), "{said}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    said
}

#[test]
fn the_machine_and_the_library_are_named() {
    let said = ends_with_line(&prosampler(&path(""), &["doctor"]), 0, "ready");
    let library = runtime::find(None).unwrap().0;
    assert_eq!(item(&said, "library"), library.display().to_string());
    assert_eq!(item(&said, "cpu"), "works");
    if cuda::provider_files(&library).is_empty() {
        assert!(item(&said, "cuda").starts_with("no: `"), "{said}");
    }
    let cores = std::thread::available_parallelism().unwrap().to_string();
    assert!(item(&said, "cores").starts_with(&cores), "{said}");
    assert!(item(&said, "processor").starts_with(std::env::consts::ARCH), "{said}");
    assert_says(&item(&said, "kernels"), &["f32 by ", "bf16 by ", "i8 by "]);
    if cfg!(target_os = "linux") {
        // The system's own words for it.
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
        assert_eq!(item(&said, "processor").contains("AVX2"), flags.contains(" avx2"), "{said}");
        let limit = std::process::Command::new("sh").args(["-c", "ulimit -n"]).output().unwrap();
        let limit = text(&limit.stdout).trim().replace("unlimited", "any number");
        assert!(item(&said, "open files").replace(',', "").starts_with(&limit), "{said}");
        assert!(item(&said, "memory").contains(" available of "), "{said}");
    }
}

#[test]
fn a_pipeline_that_can_run_is_ready() {
    let dir = pipeline("store.cache_dir = 'cache'\nrefresh.every_steps = 5");
    let said = ends_with_line(&prosampler(dir.path(), &["doctor", "p.toml"]), 0, "ready");
    assert!(item(&said, "source").ends_with("200 rows"), "{said}");
    assert!(item(&said, "vectors").ends_with("8 numbers a vector"), "{said}");
    assert!(item(&said, "graph").starts_with("8 neighbors of 40 candidates, scored in f32 by "), "{said}");
    // 200 rows of 8 numbers of 4 bytes; 8 neighbors of 8 bytes each.
    let memory = "about 38.4 kB (an estimate): embeddings 6.4 kB, graph 12.8 kB, twice while a refresh makes them anew";
    assert_eq!(said.lines().filter(|line| line.ends_with(memory)).count(), 1, "{said}");
    assert!(item(&said, "cache").starts_with("cache, "), "{said}");
    assert!(!dir.path().join("cache").exists(), "nothing is made");
    // Models are not needed for vectors in the data.
    let output = command(dir.path()).args(["doctor", "p.toml"]).env("ORT_DYLIB_PATH", "/no/lib.so").output().unwrap();
    ends_with_line(&output, 0, "ready");

    let said = ends_with_line(&prosampler(&path(""), &["doctor", "pipelines/text.toml"]), 0, "ready");
    assert_says(&said, &["117,659 rows", "gloss-encoder/model.onnx: 128 numbers", "gloss-encoder/tokenizer.json"]);
}

#[test]
fn the_guide_and_all_columns_are_looked_for() {
    let dir = pipeline("guards = { max_similarity = 0.99, guide = { column = 'v' } }\nwalk.weight_column = 'n'");
    let doctor = |set: &[&str]| {
        let arguments: Vec<_> =
            ["doctor", "p.toml"].into_iter().chain(set.iter().flat_map(|set| ["--set", set])).collect();
        prosampler(dir.path(), &arguments)
    };
    let said = ends_with_line(&doctor(&[]), 0, "ready");
    assert!(item(&said, "guide").ends_with("8 numbers a vector"), "{said}");
    for set in ["walk.weight_column=w", "walk.length_column=w", "shard={by='w', count=2}"] {
        let said = ends_with_line(&doctor(&[set]), 5, "to do: name columns that the source has");
        assert_says(&item(&said, "columns"), &["`w`", "`n`"]);
    }
}

/// Everything that is amiss is told at once.
#[test]
fn what_is_amiss_is_told_at_once_with_what_to_do() {
    let doctor = |dir: &Path, set: &[&str]| {
        let set = set.iter().flat_map(|set| ["--set", set]);
        prosampler(dir, &["doctor", "p.toml"].into_iter().chain(set).collect::<Vec<_>>())
    };
    let dir = pipeline("");
    let output = doctor(dir.path(), &["graph.neighbours=5", "walk.batch_size=0"]);
    let said = ends_with_line(&output, 4, "to do: correct the faults of p.toml");
    assert_says(&said, &["2 faults in p.toml", "did you mean `neighbors`?", "walk.batch_size"]);

    let columns = ["guards.distinct=['w']", "report.label=x"];
    let once = "to do: name columns that the source has";
    let said = ends_with_line(&doctor(dir.path(), &columns), 5, once);
    assert_says(&said, &["column `w` not found", "column `x` not found", "it has `n` and `v`"]);

    // The model is opened even if the source cannot be.
    let text_model = ["source.uri=gone.parquet", "encode.feature=text", "encode.column=n", "encode.model=gone.onnx"];
    let both = "to do: mend source.uri, source.filter or the files; mend what the line `model` says";
    let said = ends_with_line(&doctor(dir.path(), &text_model), 5, both);
    assert_says(&said, &["no such file: `gone.parquet`", "gone.onnx"]);

    let tokenizer = path("data/models/gloss-encoder/model.onnx").display().to_string();
    let tokenizer =
        [&format!("encode.model={tokenizer}"), "encode.feature=text", "encode.column=n", "encode.tokenizer=p.toml"];
    let said = ends_with_line(&doctor(dir.path(), &tokenizer), 6, "to do: mend what the line `model` says");
    assert_says(&said, &["tokenizer `p.toml`"]);

    let said = ends_with_line(&doctor(dir.path(), &["encode.column=n"]), 5, "to do: mend what the line `source` says");
    assert_says(&said, &["column `n`"]);

    let few = doctor(dir.path(), &["walk.batch_size=500"]);
    let said = ends_with_line(&few, 3, "to do: mend what the line `source` says");
    assert_says(&said, &["has 200 rows", "walk.batch_size"]);

    let gone = prosampler(dir.path(), &["doctor", "gone.toml"]);
    ends_with_line(&gone, 5, "to do: name a pipeline file that can be read");
    if cfg!(target_os = "linux") {
        let said = doctor(dir.path(), &["store.cache_dir=/proc/cache"]);
        let remedy = "to do: let store.cache_dir be a folder that can be written to";
        assert_says(&ends_with_line(&said, 8, remedy), &["cannot write in `/proc`"]);
    }
}

#[test]
fn a_machine_without_the_library_is_told_how_to_get_it() {
    let dir = pipeline("");
    let output = command(dir.path()).arg("doctor").env("ORT_DYLIB_PATH", "/no/lib.so").output().unwrap();
    let remedy = "to do: install ONNX Runtime 1.24 or later, for example by: pip install onnxruntime";
    let said = ends_with_line(&output, 6, remedy);
    assert_says(&said, &["ORT_DYLIB_PATH: `/no/lib.so`, which is no file"]);
}
