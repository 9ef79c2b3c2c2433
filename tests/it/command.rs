//! The command's exit statuses, how it takes signals and closed pipes, and which files it never overwrites.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use prosampler::arrow::array::{ArrayRef, FixedSizeListArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::Float32Type;
use tempfile::TempDir;

use crate::support::{assert_says, path, vectors, write_parquet};

const SAMPLES: usize = 200;

/// A folder with vectors and a pipeline file over them, to which `more` is added.
fn pipeline(more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..SAMPLES as u32));
    // All numbers are above zero, so that all similarities are.
    let vectors = vectors(SAMPLES, 8, 10, 3);
    let vectors = vectors.chunks(8).map(|vector| Some(vector.iter().map(|x| Some(x.abs())).collect::<Vec<_>>()));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 8));
    let rows = RecordBatch::try_from_iter([("n", numbers), ("v", vectors)]).unwrap();
    write_parquet(&dir.path().join("rows.parquet"), &rows, 100);
    let text = format!(
        "source.uri = 'rows.parquet'\nencode = {{ feature = 'vector', column = 'v' }}\n\
         graph = {{ candidates = 40, neighbors = 8 }}\nwalk.batch_size = 16\n{more}\n"
    );
    fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prosampler"));
    command.current_dir(dir);
    command
}

fn prosampler(dir: &Path, arguments: &[&str]) -> Output {
    command(dir).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn ends_with(output: &Output, status: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_says(&said, parts);
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn no_mini_batch_at_all_is_a_failure_with_a_status_of_its_own() {
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("", &["walk.batch_size=500"], &["has 200 rows", "walk.batch_size"]),
        ("", &["guards.max_similarity=-1"], &["of 200 samples", "guards.max_similarity (refused"]),
        ("", &["guards.max_similarity=0", "walk.drop_last=true"], &["guards.max_similarity", "walk.drop_last"]),
        ("", &["guards.max_relative_to_positive=0.01"], &["guards.max_relative_to_positive"]),
        ("", &["guards.duplicate_similarity=-1"], &["guards.duplicate_similarity (refused"]),
        ("", &["guards.max_similarity=-1", "stream.world_size=4"], &["stream.world_size"]),
    ];
    for (more, set, says) in cases {
        let dir = pipeline(more);
        let set = set.iter().flat_map(|set| ["--set", set]);
        let arguments: Vec<_> = ["run", "p.toml"].into_iter().chain(set).collect();
        let output = prosampler(dir.path(), &arguments);
        let status = if says == ["guards.max_relative_to_positive"] { 1 } else { 3 };
        ends_with(&output, status, says);
        assert!(!text(&output.stdout).contains("mini-batches of"), "{}", text(&output.stdout));
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = pipeline("");
    for arguments in [&["run", "p.toml"][..], &["inspect", "rows.parquet"]] {
        let mut child =
            command(dir.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The pipe is closed before a line is read.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        ends_with(&output, 141, &[]);
        assert!(!text(&output.stderr).contains("error"), "{}", text(&output.stderr));
    }
    // If standard error is closed, the run goes on.
    let mut child = command(dir.path());
    let mut child = child.args(["run", "p.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    ends_with(&output, 0, &[]);
    assert!(text(&output.stdout).contains("13 mini-batches of 16"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_place() {
    let dir = pipeline("");
    let full = || Stdio::from(fs::File::create("/dev/full").unwrap());
    let output = command(dir.path()).args(["run", "p.toml"]).stdout(full()).output().unwrap();
    ends_with(&output, 1, &["cannot write to `standard output`", "No space left"]);
    let output = prosampler(dir.path(), &["run", "p.toml", "-o", "/dev/full"]);
    ends_with(&output, 1, &["cannot write `/dev/full`", "No space left"]);
    let output = command(dir.path()).args(["run", "p.toml"]).stderr(full()).output().unwrap();
    ends_with(&output, 0, &[]);

    let limited = format!("ulimit -f 4; exec {} run p.toml --set store.cache_dir=c", env!("CARGO_BIN_EXE_prosampler"));
    let output = Command::new("sh").current_dir(dir.path()).args(["-c", &limited]).output().unwrap();
    ends_with(&output, 1, &["File too large", "c/"]);
}

/// The output is checked before anything is read or embedded: this model does not exist, and no error names it.
#[test]
fn the_output_is_checked_first() {
    let dir = pipeline("");
    let cases: [(&str, &[&str]); 4] = [
        ("no/where.arrows", &["cannot create `no/where.arrows`", "there is no folder `no`"]),
        (".", &["cannot create `.`"]),
        ("-", &["cannot create `-`", "/dev/stdout"]),
        ("p.toml/x", &["cannot create `p.toml/x`", "there is no folder `p.toml`"]),
    ];
    for (name, says) in cases {
        let output = prosampler(dir.path(), &["run", "p.toml", "-o", name, "--set", "source.uri=gone.parquet"]);
        ends_with(&output, 1, says);
    }
    let output = prosampler(dir.path(), &["run", "p.toml", "-o", "new.arrows", "--set", "source.uri=gone.parquet"]);
    ends_with(&output, 1, &["no such file: `gone.parquet`"]);
    assert!(!dir.path().join("new.arrows").exists(), "nothing is left of a run that did not begin");
    fs::write(dir.path().join("old.arrows"), "of an earlier run").unwrap();
    prosampler(dir.path(), &["run", "p.toml", "-o", "old.arrows", "--set", "source.uri=gone.parquet"]);
    assert_eq!(fs::read(dir.path().join("old.arrows")).unwrap(), b"of an earlier run");
    let output = prosampler(dir.path(), &["run", "p.toml", "--state", "no/s.json", "--set", "checkpoint.dir=c"]);
    ends_with(&output, 1, &["cannot write `no/s.json`"]);
}

#[test]
fn the_output_never_overwrites_what_the_run_reads() {
    let dir = pipeline("");
    let file = |name: &str| dir.path().join(name);
    fs::create_dir(file("data")).unwrap();
    fs::copy(file("rows.parquet"), file("data/rows.parquet")).unwrap();
    fs::create_dir(file("model")).unwrap();
    for name in ["scaled.onnx", "scaled.onnx_data"] {
        fs::copy(path("tests/data/external").join(name), file("model").join(name)).unwrap();
    }
    fs::write(file("model/tokenizer.json"), "{}").unwrap();
    fs::hard_link(file("rows.parquet"), file("other name")).unwrap();
    let contents = || {
        let names = ["rows.parquet", "p.toml", "model/scaled.onnx", "model/scaled.onnx_data", "model/tokenizer.json"];
        names.map(|name| fs::read(file(name)).unwrap())
    };
    let before = contents();
    let cases: [(&str, &[&str], &str); 10] = [
        ("rows.parquet", &[], "source.uri"),
        ("./data/../rows.parquet", &[], "source.uri"),
        ("other name", &[], "source.uri"),
        ("data/new.arrows", &["source.uri=data"], "source.uri"),
        ("data/new.parquet", &["source.uri=data/*.parquet"], "source.uri"),
        ("p.toml", &[], "a file of the run itself"),
        ("model/scaled.onnx", &["encode.model=model/scaled.onnx"], "a file of the model"),
        ("model/scaled.onnx_data", &["encode.model=model/scaled.onnx"], "a file of the model"),
        ("model/tokenizer.json", &["encode.model=model/scaled.onnx"], "a file of the model"),
        ("data/x.arrows", &["checkpoint.dir=data"], "checkpoint.dir"),
    ];
    for (name, set, says) in cases {
        let set = set.iter().flat_map(|set| ["--set", set]);
        let arguments: Vec<_> = ["run", "p.toml", "-o", name].into_iter().chain(set).collect();
        ends_with(&prosampler(dir.path(), &arguments), 1, &["--output", name, says, "name another file"]);
        assert!(contents() == before, "{name}");
    }
    assert_eq!(fs::read_dir(file("data")).unwrap().count(), 1, "no file was left there");
    // A file beside the data with a name of its own may be written.
    let output = prosampler(dir.path(), &["run", "p.toml", "-o", "data/_new.arrows", "--set", "source.uri=data"]);
    ends_with(&output, 0, &[]);
}

#[cfg(unix)]
#[test]
fn signals_end_a_run_in_order_and_show_in_its_status() {
    for (signal, status) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let dir = pipeline("");
        let arguments = ["run", "p.toml", "--state", "s.json", "--set", "checkpoint.dir=c", "--step-ms", "300"];
        let child = command(dir.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Once the state is there, the run is under way.
        while !dir.path().join("s.json").exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // SAFETY: a plain system call, on our own child.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let output = child.wait_with_output().unwrap();
        ends_with(&output, status, &[]);
        assert!(text(&output.stdout).contains("interrupted after"), "{}", text(&output.stdout));
        let rest = prosampler(dir.path(), &[&arguments[..7], &["0"]].concat());
        ends_with(&rest, 0, &[]);
        // A job queue that starts the command once more must learn that the run is complete.
        let again = prosampler(dir.path(), &[&arguments[..7], &["0"]].concat());
        ends_with(&again, 0, &["no mini-batch in this run; 13 before it, the whole run"]);
    }
}

/// Schedulers and containers leave environment variables out, and some terminals have no width.
#[test]
fn the_command_works_in_unusual_environments() {
    let dir = pipeline("");
    let runs = |change: &dyn Fn(&mut Command)| {
        let mut command = command(dir.path());
        command.args(["run", "p.toml"]);
        change(&mut command);
        let output = command.output().unwrap();
        ends_with(&output, 0, &[]);
        assert!(text(&output.stdout).contains("13 mini-batches of 16"));
        text(&output.stderr)
    };
    runs(&|command| {
        command.env_clear();
    });
    runs(&|command| {
        command.env_remove("HOME").env("TERM", "dumb").env("LANG", "C").env("LC_ALL", "C");
    });
    let said = runs(&|command| {
        command.env("RUST_LOG", "warn").args(["--set", "graph.candidates=300", "--set", "graph.neighbors=250"]);
    });
    assert_says(&said, &["WARN"]);
    assert!(!said.contains('\u{1b}'), "colors in a file: {said}");
    let said = runs(&|command| {
        command.env("RUST_LOG", "prosampler=loud");
    });
    assert_says(&said, &["RUST_LOG is not understood"]);
}

#[cfg(target_os = "linux")]
#[test]
fn paths_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = pipeline("");
    let odd = PathBuf::from(OsStr::from_bytes(b"odd \xff.toml"));
    fs::copy(dir.path().join("p.toml"), dir.path().join(&odd)).unwrap();
    let out = OsStr::from_bytes(b"out \xfe.arrows");
    let output = command(dir.path()).arg("run").arg(&odd).arg("-o").arg(out).output().unwrap();
    ends_with(&output, 0, &[]);
    assert!(dir.path().join(out).is_file());
    let output = command(dir.path()).arg("inspect").arg(OsStr::from_bytes(b"\xff.parquet")).output().unwrap();
    ends_with(&output, 2, &["UTF-8"]);
}

#[test]
fn a_file_that_is_not_a_pipeline_is_named() {
    let dir = pipeline("");
    ends_with(&prosampler(dir.path(), &["run", "."]), 1, &["`.`", "pipeline file"]);
    ends_with(&prosampler(dir.path(), &["run", "rows.parquet"]), 1, &["rows.parquet", "is no text"]);
    ends_with(&prosampler(dir.path(), &["run", "gone.toml"]), 1, &["no such file: `gone.toml`"]);
    ends_with(&prosampler(dir.path(), &["run"]), 2, &["PIPELINE"]);
}

/// `--help` and docs/command.md say the same.
#[test]
fn exit_statuses_are_documented() {
    let dir = pipeline("");
    let help = text(&prosampler(dir.path(), &["run", "--help"]).stdout);
    let page = fs::read_to_string(path("docs/command.md")).unwrap();
    for status in [0, 1, 2, 3, 130, 141, 143] {
        assert!(help.contains(&format!("\n  {status:<5}")), "{status}: {help}");
        assert!(page.contains(&format!("| {status} |")), "{status}");
    }
}

/// A pseudo-terminal would be needed to see colors at all; a pipe and NO_COLOR must have none.
#[test]
fn log_lines_in_a_pipe_have_no_colors() {
    let dir = pipeline("");
    for no_color in [None, Some("1")] {
        let mut command = command(dir.path());
        command.args(["run", "p.toml", "-v"]).env_remove("NO_COLOR");
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        let log = text(&command.output().unwrap().stderr);
        assert!(log.contains("INFO") && !log.contains('\u{1b}'), "{log}");
    }
}
