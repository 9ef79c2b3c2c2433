//! `prosampler run` works as a user types it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use prosampler::SampleId;
use prosampler::arrow::array::AsArray;
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::arrow::ipc::reader::StreamReader;
use prosampler::config::StoreConfig;
use prosampler::source::FileSource;
use prosampler::store::Store;
use tempfile::TempDir;

use crate::support::{path, write_parquet};

const SAMPLES: u32 = 1000;

/// A pipeline over the first definitions, in a folder of its own.
fn pipeline() -> TempDir {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rows = runtime.block_on(async {
        let source = FileSource::open(path("data/wordnet/glosses.parquet").display().to_string()).await.unwrap();
        let columns = ["label".to_owned(), "definition".to_owned()];
        let store = Store::build(&source, &columns, &StoreConfig::default(), &mut |_| {}).await.unwrap();
        store.gather(&(0..SAMPLES).map(SampleId).collect::<Vec<_>>()).unwrap()
    });
    write_parquet(&dir.path().join("rows.parquet"), &rows, 300);
    let model = path("data/models/gloss-encoder");
    let text = format!(
        "source.uri = 'rows.parquet'\nencode = {{ model = '{0}/model.onnx', column = 'definition' }}\n\
         graph = {{ candidates = 100, neighbors = 20 }}\nwalk.batch_size = 64\nreport.label = 'label'\n",
        model.display()
    );
    fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

fn prosampler(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prosampler")).current_dir(dir).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ranks that cannot share embeddings are told so.
#[test]
fn ranks_without_a_shared_folder_are_warned() {
    let dir = pipeline();
    let warned = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let output = prosampler(dir.path(), &["run", "p.toml"].into_iter().chain(settings).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr).contains("every rank embeds all samples by itself")
    };
    let (rank, cache) = ("stream.world_size=2", "store.cache_dir=cache");
    assert!(warned(&[rank]));
    assert!(warned(&[rank, cache, "encode.cache_limit=0"]));
    assert!(!warned(&[rank, cache]));
    assert!(!warned(&[]));
}

/// After Ctrl-C the same command goes on, and the two together give the mini-batches of an uninterrupted run.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_with_the_same_command() {
    let dir = pipeline();
    let ids = |name: &str| -> Vec<u32> {
        let file = fs::File::open(dir.path().join(name)).unwrap();
        let batches = StreamReader::try_new(file, None).unwrap().map(Result::unwrap);
        batches.flat_map(|batch| batch.column(0).as_primitive::<UInt32Type>().values().to_vec()).collect()
    };
    let whole = prosampler(dir.path(), &["run", "p.toml", "--output", "whole.arrows"]);
    assert!(whole.status.success(), "{}", text(&whole.stderr));

    let run = |output| ["run", "p.toml", "--state", "run.json", "--step-ms", "300", "--output", output];
    let needs = prosampler(dir.path(), &run("none.arrows"));
    assert!(text(&needs.stderr).contains("checkpoint.dir: is required with --state"), "{}", text(&needs.stderr));

    let with_dir = |output| [&run(output)[..], &["--set", "checkpoint.dir=checkpoints"]].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prosampler"))
        .current_dir(dir.path())
        .args(with_dir("first.arrows"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Once the state is there, the run is under way.
    while !dir.path().join("run.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // SAFETY: a plain system call, on our own child.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let first = child.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(130));
    assert!(text(&first.stdout).contains("interrupted after"), "{}", text(&first.stdout));
    let second = prosampler(dir.path(), &with_dir("second.arrows"));
    assert!(second.status.success(), "{}", text(&second.stderr));
    let (first, second) = (ids("first.arrows"), ids("second.arrows"));
    assert!(!first.is_empty() && !second.is_empty());
    assert_eq!([first, second].concat(), ids("whole.arrows"));

    let third = prosampler(dir.path(), &with_dir("third.arrows"));
    assert!(
        text(&third.stderr).contains("no mini-batch in this run; 16 before it, the whole run"),
        "{}",
        text(&third.stderr)
    );
}

#[test]
fn a_run_streams_every_sample_and_ends_with_a_summary() {
    let dir = pipeline();
    let output = prosampler(dir.path(), &["run", "p.toml", "--output", "out.arrows"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in [
        "16 mini-batches of 64 out of 1,000 samples",
        "time to the first mini-batch",
        "mean in-batch similarity",
        "`label`",
    ] {
        assert!(said.contains(part), "`{part}` is missing in {said}");
    }
    let stages = text(&output.stderr);
    for stage in ["reading", "embedding", "graph"] {
        assert!(stages.contains(&format!("{stage:<12} 1,000 samples in")), "{stages}");
    }
    let mut ids = Vec::new();
    for batch in StreamReader::try_new(fs::File::open(dir.path().join("out.arrows")).unwrap(), None).unwrap() {
        let batch = batch.unwrap();
        ids.extend_from_slice(batch["sample_id"].as_primitive::<UInt32Type>().values());
        assert!(batch.column_by_name("definition").is_some());
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..SAMPLES).collect::<Vec<_>>());
}

#[test]
fn settings_and_models_can_be_given_on_the_command_line() {
    let dir = pipeline();
    let model = path("tests/data/states.onnx").display().to_string();
    let tokenizer = path("data/models/gloss-encoder/tokenizer.json").display().to_string();
    let set = ["--set", "walk.batch_size=100", "--set", "walk.sampler=uniform"];
    let arguments = [&["run", "p.toml", "--model", &model, "--tokenizer", &tokenizer], &set[..]].concat();
    let output = prosampler(dir.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("10 mini-batches of 100"), "{}", text(&output.stdout));
}

#[test]
fn what_goes_wrong_is_said_on_stderr() {
    let dir = pipeline();
    let fails = |status: i32, arguments: &[&str], parts: &[&str]| {
        let output = prosampler(dir.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains("error: "), "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is missing in {said}"));
    };
    fails(5, &["run", "q.toml"], &["no such file: `q.toml`", "pipelines/text.toml"]);
    fails(4, &["run", "p.toml", "--set", "graph.neighbours=5"], &["did you mean `neighbors`?"]);
    fails(
        6,
        &["run", "p.toml", "--set", "encode.runtime=nowhere.so"],
        &["looked for", "nowhere.so", "pip install onnxruntime"],
    );
    fails(6, &["run", "p.toml", "--set", "encode.runtime=rows.parquet"], &["cannot load ONNX Runtime", "version 1.24"]);
    fails(8, &["run", "p.toml", "--output", "no/where.arrows"], &["cannot create `no/where.arrows`"]);
}

/// The tokenizers library panics where a template names a token that the file does not have.
#[test]
fn a_tokenizer_whose_template_names_a_missing_token_is_an_error_that_names_the_file() {
    let dir = pipeline();
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&fs::read(path("data/models/gloss-encoder/tokenizer.json")).unwrap()).unwrap();
    let tokens = tokenizer["post_processor"]["special_tokens"].as_object_mut().unwrap();
    tokens.remove("[SEP]").expect("the template has this token");
    fs::write(dir.path().join("template.json"), tokenizer.to_string()).unwrap();
    let output = prosampler(dir.path(), &["run", "p.toml", "--tokenizer", "template.json"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for part in ["error: ", "tokenizer `template.json`"] {
        assert!(said.contains(part), "`{part}` is missing in {said}");
    }
}

#[test]
fn a_missing_library_error_lists_where_it_was_looked_for() {
    let dir = pipeline();
    let output = Command::new(env!("CARGO_BIN_EXE_prosampler"))
        .current_dir(dir.path())
        .args(["run", "p.toml"])
        .env("ORT_DYLIB_PATH", "/no/lib.so")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("ORT_DYLIB_PATH: `/no/lib.so`, which is no file"), "{said}");
    assert!(said.contains("make setup"), "{said}");
}
