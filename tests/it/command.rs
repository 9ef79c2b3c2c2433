//! The command's exit statuses, how it takes signals and closed pipes, and which files it never overwrites.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::command::{command, ends_with, pipeline, prosampler, text};
use crate::support::{assert_says, path};

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
        let status = if says == ["guards.max_relative_to_positive"] { 4 } else { 3 };
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
    ends_with(&output, 8, &["cannot write to `standard output`", "No space left"]);
    let output = prosampler(dir.path(), &["run", "p.toml", "-o", "/dev/full"]);
    ends_with(&output, 8, &["cannot write `/dev/full`", "No space left"]);
    let output = command(dir.path()).args(["run", "p.toml"]).stderr(full()).output().unwrap();
    ends_with(&output, 0, &[]);

    let limited = format!("ulimit -f 4; exec {} run p.toml --set store.cache_dir=c", env!("CARGO_BIN_EXE_prosampler"));
    let output = Command::new("sh").current_dir(dir.path()).args(["-c", &limited]).output().unwrap();
    ends_with(&output, 8, &["File too large", "c/"]);
}

/// The output is checked before anything is read or embedded: this model does not exist, and no error names it.
#[test]
fn the_output_is_checked_first() {
    let dir = pipeline("");
    let cases: [(&str, &[&str]); 4] = [
        ("no/where.arrows", &["cannot create `no/where.arrows`", "there is no folder `no`"]),
        ("no/where.parquet", &["cannot create `no/where.parquet`", "there is no folder `no`"]),
        (".", &["cannot create `.`"]),
        ("p.toml/x", &["cannot create `p.toml/x`", "there is no folder `p.toml`"]),
    ];
    for (name, says) in cases {
        let output = prosampler(dir.path(), &["run", "p.toml", "-o", name, "--set", "source.uri=gone.parquet"]);
        ends_with(&output, 8, says);
    }
    for name in ["new.arrows", "new.parquet"] {
        let output = prosampler(dir.path(), &["run", "p.toml", "-o", name, "--set", "source.uri=gone.parquet"]);
        ends_with(&output, 5, &["no such file: `gone.parquet`"]);
        assert!(!dir.path().join(name).exists(), "nothing is left of a run that did not begin");
    }
    fs::write(dir.path().join("old.arrows"), "of an earlier run").unwrap();
    prosampler(dir.path(), &["run", "p.toml", "-o", "old.arrows", "--set", "source.uri=gone.parquet"]);
    assert_eq!(fs::read(dir.path().join("old.arrows")).unwrap(), b"of an earlier run");
    let output = prosampler(dir.path(), &["run", "p.toml", "--state", "no/s.json", "--set", "checkpoint.dir=c"]);
    ends_with(&output, 8, &["cannot write `no/s.json`"]);
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
        ends_with(&prosampler(dir.path(), &arguments), 2, &["--output", name, says, "name another file"]);
        assert!(contents() == before, "{name}");
    }
    assert_eq!(fs::read_dir(file("data")).unwrap().count(), 1, "no file was left there");
    // A file beside the data with a name of its own may be written.
    let output = prosampler(dir.path(), &["run", "p.toml", "-o", "data/_new.arrows", "--set", "source.uri=data"]);
    ends_with(&output, 0, &[]);
}

/// The first run that somebody ends early should be the last one that cannot be continued.
#[cfg(unix)]
#[test]
fn a_run_without_a_state_says_how_to_start_one_that_can_be_continued() {
    for (more, added) in [("", " --set checkpoint.dir=checkpoints\n"), ("checkpoint.dir = 'c'", " run.json\n")] {
        let dir = pipeline(more);
        let arguments = ["run", "p.toml", "--json", "--step-ms", "300"];
        let mut child =
            command(dir.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Once there is a line, the run is under way.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        // SAFETY: a plain system call, on our own child.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
        let last = lines.map(Result::unwrap).last().unwrap();
        assert!(last.contains(r#""type":"summary","ending":"interrupted""#), "{last}");
        let output = child.wait_with_output().unwrap();
        ends_with(&output, 130, &["cannot be continued", "run p.toml --json --step-ms 300 --state run.json", added]);
    }
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
        ends_with(&output, status, &["to continue, type\n"]);
        assert!(text(&output.stdout).contains("interrupted after"), "{}", text(&output.stdout));
        // What is told to type continues the run.
        let said = text(&output.stderr);
        let told = said.split_once("to continue, type\n").unwrap().1.lines().next().unwrap();
        let rest = Command::new("sh").current_dir(dir.path()).args(["-c", told]).output().unwrap();
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

/// A script can tell what is to be mended without reading the error.
#[test]
fn each_cause_has_a_status() {
    let dir = pipeline("");
    fs::write(dir.path().join("damaged.json"), "{").unwrap();
    let state: &[&str] = &["--set", "checkpoint.dir=c", "--state"];
    let cases: [(i32, &[&str], &str); 11] = [
        (2, &["--json", "-o", "-"], "--output"),
        (2, &["--quiet", "-v"], "--verbose"),
        (3, &["--set", "walk.batch_size=500"], "walk.batch_size"),
        (4, &["--set", "graph.neighbours=5"], "did you mean `neighbors`?"),
        (4, &["--set", "source.filter=n <"], "filter"),
        (4, &["--state", "s.json"], "checkpoint.dir"),
        (5, &["--set", "source.uri=gone.parquet"], "gone.parquet"),
        (5, &["--column", "w"], "column `w`"),
        (6, &["--set", "encode.feature=text", "--set", "encode.column=n", "--model", "rows.parquet"], "rows.parquet"),
        (7, &[state, &["damaged.json"]].concat(), "damaged.json"),
        (8, &["--output", "no/where.arrows"], "no/where.arrows"),
    ];
    for (status, arguments, says) in cases {
        ends_with(&prosampler(dir.path(), &[&["run", "p.toml"], arguments].concat()), status, &[says]);
    }
}

#[test]
fn a_file_that_is_not_a_pipeline_is_named() {
    let dir = pipeline("");
    ends_with(&prosampler(dir.path(), &["run", "."]), 4, &["`.`", "pipeline file"]);
    ends_with(&prosampler(dir.path(), &["run", "rows.parquet"]), 4, &["rows.parquet", "is no text"]);
    ends_with(&prosampler(dir.path(), &["run", "gone.toml"]), 5, &["no such file: `gone.toml`"]);
    ends_with(&prosampler(dir.path(), &["run"]), 2, &["PIPELINE"]);
}

/// `--help` and docs/command.md say the same.
#[test]
fn exit_statuses_are_documented() {
    let dir = pipeline("");
    let help = text(&prosampler(dir.path(), &["run", "--help"]).stdout);
    let page = fs::read_to_string(path("docs/command.md")).unwrap();
    for status in [0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 141, 143] {
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
