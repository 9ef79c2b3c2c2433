//! What `prosampler run` writes for programs: lines of JSON, Parquet, and an Arrow stream in a pipe.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::arrow::compute::concat_batches;
use prosampler::arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use prosampler::arrow::ipc::reader::StreamReader;
use serde_json::Value;

use crate::support::command::{SAMPLES, command, ends_with, pipeline, prosampler, text};
use crate::support::{lists, path};

/// The lines that a run has printed as JSON, the last one apart.
fn lines(output: &Output) -> (Vec<Value>, Value) {
    let printed = text(&output.stdout);
    let mut lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    assert!(lines.iter().all(|line| line["type"] == "mini_batch"), "{printed}");
    assert_eq!(summary["type"], "summary");
    (lines, summary)
}

fn read_stream(bytes: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(bytes, None).unwrap().map(Result::unwrap).collect()
}

fn read_parquet(file: &Path) -> RecordBatch {
    let file = fs::File::open(file).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// The same rows of the same types; Parquet adds metadata of its own to the schema.
#[track_caller]
fn assert_same(a: &RecordBatch, b: &RecordBatch) {
    let types = |batch: &RecordBatch| {
        batch.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>()
    };
    assert_eq!(types(a), types(b));
    assert_eq!(a.columns(), b.columns());
}

/// The names of the files in a folder.
fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn json_says_of_each_mini_batch_what_the_file_of_mini_batches_holds() {
    let dir = pipeline("");
    let set = ["--set", "walk.negatives=2", "--set", "refresh.every_steps=4", "--set", "refresh.swap_after_steps=2"];
    let output = prosampler(dir.path(), &[&["run", "p.toml", "--json", "-o", "out.arrows"], &set[..]].concat());
    ends_with(&output, 0, &[]);
    assert!(!text(&output.stderr).contains("mini-batches of"), "{}", text(&output.stderr));
    let (lines, summary) = lines(&output);
    let file = read_stream(&fs::read(dir.path().join("out.arrows")).unwrap());
    assert_eq!((lines.len(), file.len()), (13, 13));
    let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let all = concat_batches(&file[0].schema(), &file).unwrap();
    let numbers = all["n"].as_primitive::<UInt32Type>().values();
    let id_of: HashMap<_, _> = lists(&all, "v").iter().map(|v| bits(v)).zip(numbers.iter().copied()).collect();
    assert_eq!(id_of.len(), SAMPLES);
    let mut means = Vec::new();
    let mut moves = 0;
    for (line, rows) in lines.iter().zip(&file) {
        let ids = rows["sample_id"].as_primitive::<UInt32Type>().values().to_vec();
        assert_eq!(line["ids"], serde_json::json!(ids));
        assert_eq!(line["samples"], ids.len());
        for name in ["step", "epoch", "model_version", "graph_version", "staleness"] {
            assert_eq!(line[name], rows[name].as_primitive::<UInt64Type>().value(0), "{name}");
        }
        let similarity = rows["similarity"].as_primitive::<Float32Type>().value(0);
        assert_eq!(line["similarity"].as_f64().unwrap() as f32, similarity);
        // The vectors are in the rows, so the similarity follows from its definition.
        let expected = mean_cosine(&lists(rows, "v"));
        assert!((f64::from(similarity) - expected).abs() < 1e-5, "{similarity} {expected}");
        means.push(f64::from(similarity));

        // The columns of negatives hold vectors, and n is the number of a row.
        let negatives = [lists(rows, "negative_1"), lists(rows, "negative_2")];
        for (row, ids) in line["negatives"].as_array().unwrap().iter().enumerate() {
            let expected = negatives.each_ref().map(|negatives| id_of[&bits(&negatives[row])]);
            assert_eq!(*ids, serde_json::json!(expected));
        }
        assert_eq!(line["is_warm_up"], false);
        assert!(line["wait"].as_f64().unwrap() >= 0.0);
        assert_eq!(line["digest"].as_str().unwrap().len(), 16);
        moves += line["counts"]["moves"].as_u64().unwrap();
    }
    assert_eq!(summary["ending"], "done");
    assert_eq!((&summary["mini_batches"], &summary["samples"]), (&13.into(), &SAMPLES.into()));
    assert_eq!((&summary["delivered"], &summary["data_set_samples"]), (&13.into(), &SAMPLES.into()));
    let mean = means.iter().sum::<f64>() / means.len() as f64;
    assert!((summary["similarity"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!(summary["uniform_similarity"].as_f64().unwrap() < mean);
    assert_eq!(summary["counts"]["moves"], moves);
    let graphs = summary["graph_versions"].as_object().unwrap();
    assert_eq!(graphs.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 13);
    assert!(graphs.len() > 1 && summary["refreshes"]["published"].as_u64() > Some(0), "{summary}");
    assert_eq!((&summary["label"], &summary["shared"]), (&Value::Null, &Value::Null));
}

/// The mean cosine over all pairs of vectors.
fn mean_cosine(vectors: &[Vec<f32>]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let mut sum = 0.0;
    let mut pairs = 0;
    for (i, a) in vectors.iter().enumerate() {
        for b in &vectors[..i] {
            sum += dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            pairs += 1;
        }
    }
    sum / f64::from(pairs)
}

/// A run that ends within its warm-up has no embeddings, and so no similarity, version or staleness.
#[test]
fn what_is_not_known_is_null() {
    let dir = pipeline("walk.warm_up = { epochs = 1 }\nrefresh.first = 'after_warm_up'");
    let output = prosampler(dir.path(), &["run", "p.toml", "--json", "--quiet"]);
    ends_with(&output, 0, &[]);
    let (lines, summary) = lines(&output);
    assert_eq!(lines.len(), 13);
    for line in &lines {
        for name in ["similarity", "staleness", "model_version", "graph_version"] {
            assert_eq!(line[name], Value::Null, "{name}");
        }
        assert_eq!(line["is_warm_up"], true);
    }
    for name in ["similarity", "uniform_similarity", "staleness", "label", "shared", "uniform_shared"] {
        assert_eq!(summary[name], Value::Null, "{name}");
    }
    assert_eq!((&summary["warm_up"], &summary["graph_versions"]), (&13.into(), &serde_json::json!({})));
    // A run of a single mini-batch has waited for no other.
    let output = prosampler(dir.path(), &["run", "p.toml", "--json", "--quiet", "--set", "walk.batch_size=200"]);
    let (_, summary) = self::lines(&output);
    assert_eq!((&summary["median_wait"], &summary["longest_wait"]), (&Value::Null, &Value::Null));
    assert!(summary["first_wait"].is_number());
}

/// A run that was complete before has a summary, too.
#[test]
fn a_run_without_mini_batches_has_a_line_of_json() {
    let dir = pipeline("");
    let arguments = ["run", "p.toml", "--json", "--state", "s.json", "--set", "checkpoint.dir=c"];
    ends_with(&prosampler(dir.path(), &arguments), 0, &[]);
    let again = prosampler(dir.path(), &arguments);
    ends_with(&again, 0, &["no mini-batch in this run"]);
    let (lines, summary) = lines(&again);
    assert_eq!(lines.len(), 0);
    assert_eq!((&summary["mini_batches"], &summary["delivered"]), (&0.into(), &13.into()));
    assert_eq!((&summary["first_wait"], &summary["similarity"]), (&Value::Null, &Value::Null));
}

/// docs/command.md lists the fields that are printed, no fewer and no more.
#[test]
fn the_fields_of_json_are_documented() {
    let dir = pipeline("");
    let (lines, summary) = lines(&prosampler(dir.path(), &["run", "p.toml", "--json"]));
    let page = fs::read_to_string(path("docs/command.md")).unwrap();
    for (title, object) in [("\n### Mini-batches\n", &lines[0]), ("\n### Summary\n", &summary)] {
        let section = page.split(title).nth(1).unwrap().split("\n#").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.flat_map(|row| row.split(" |").next().unwrap().split(", ").map(|name| name.trim_matches('`')));
        let documented: BTreeSet<_> = names.map(str::to_owned).collect();
        let printed: BTreeSet<_> = object.as_object().unwrap().keys().cloned().collect();
        assert_eq!(documented, printed);
    }
}

#[test]
fn parquet_holds_what_an_arrow_stream_holds() {
    let dir = pipeline("");
    let before = names(dir.path());
    for name in ["out.arrows", "out.parquet", "OUT.PARQUET"] {
        ends_with(&prosampler(dir.path(), &["run", "p.toml", "-o", name]), 0, &[]);
    }
    let stream = read_stream(&fs::read(dir.path().join("out.arrows")).unwrap());
    let stream = concat_batches(&stream[0].schema(), &stream).unwrap();
    assert_same(&read_parquet(&dir.path().join("out.parquet")), &stream);
    assert_same(&read_parquet(&dir.path().join("OUT.PARQUET")), &stream);
    let added: Vec<_> = names(dir.path()).difference(&before).cloned().collect();
    assert_eq!(added, ["OUT.PARQUET", "out.arrows", "out.parquet"], "nothing else is left");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("out.parquet"), mode("out.arrows"), "others may read both");
    }
}

/// Whoever finds the file can read it: it is the one of the run before until the new one is complete.
#[cfg(unix)]
#[test]
fn a_parquet_file_is_there_only_when_it_is_complete() {
    let dir = pipeline("");
    let file = dir.path().join("out.parquet");
    let arguments = ["run", "p.toml", "--json", "--step-ms", "300", "-o", "out.parquet"];
    let interrupted = || {
        let mut child = command(dir.path());
        let mut child = child.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut first).unwrap();
        let meanwhile = fs::read(&file).ok();
        // SAFETY: a plain system call, on our own child.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
        ends_with(&child.wait_with_output().unwrap(), 130, &[]);
        (meanwhile, (first + &rest).lines().filter(|line| line.contains("\"mini_batch\"")).count())
    };
    let (meanwhile, mini_batches) = interrupted();
    assert_eq!(meanwhile, None);
    assert_eq!(read_parquet(&file).num_rows(), 16 * mini_batches);
    fs::write(&file, "of an earlier run").unwrap();
    assert_eq!(interrupted().0.unwrap(), b"of an earlier run");
    assert!(read_parquet(&file).num_rows() > 0);
}

/// A run that fails leaves what was there, and nothing beside it.
#[cfg(target_os = "linux")]
#[test]
fn a_parquet_file_that_cannot_be_written_leaves_the_one_before_it() {
    let dir = pipeline("");
    fs::write(dir.path().join("out.parquet"), "of an earlier run").unwrap();
    let before = names(dir.path());
    // The negatives make mini-batches several times as large as the rows.
    let arguments = "run p.toml -o out.parquet --set walk.negatives=8";
    let limited = format!("ulimit -f 40; exec {} {arguments}", env!("CARGO_BIN_EXE_prosampler"));
    let output = std::process::Command::new("sh").current_dir(dir.path()).args(["-c", &limited]).output().unwrap();
    ends_with(&output, 8, &["out.parquet", "File too large"]);
    assert_eq!(fs::read(dir.path().join("out.parquet")).unwrap(), b"of an earlier run");
    assert_eq!(names(dir.path()), before);
    ends_with(&prosampler(dir.path(), &["run", "p.toml", "-o", "out.parquet"]), 0, &[]);

    std::os::unix::fs::symlink("/dev/null", dir.path().join("device.parquet")).unwrap();
    let output = prosampler(dir.path(), &["run", "p.toml", "-o", "device.parquet"]);
    ends_with(&output, 2, &["--output", "device.parquet", "is a pipe or a device"]);
}

#[test]
fn a_pipe_gets_the_stream_and_standard_error_the_summary() {
    let dir = pipeline("");
    ends_with(&prosampler(dir.path(), &["run", "p.toml", "-o", "out.arrows"]), 0, &[]);
    let file = fs::read(dir.path().join("out.arrows")).unwrap();
    for name in ["-", "/dev/stdout"] {
        let output = prosampler(dir.path(), &["run", "p.toml", "--output", name]);
        ends_with(&output, 0, &["13 mini-batches of 16", "mean in-batch similarity"]);
        assert!(output.stdout == file, "{name}");
    }
    assert!(!dir.path().join("-").exists());
    // The two cannot share standard output, which is said before anything is read.
    let both = ["run", "p.toml", "--json", "--output", "-", "--set", "source.uri=gone.parquet"];
    let output = prosampler(dir.path(), &both);
    ends_with(&output, 2, &["--json", "--output -"]);
    assert!(output.stdout.is_empty());
}

/// Whoever forgets the pipe sees a sentence and no bytes.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_no_arrow_stream() {
    use std::os::fd::FromRawFd;
    use std::ptr::{null, null_mut};

    let dir = pipeline("");
    let mut ends = [0; 2];
    let [ours, terminal] = &mut ends;
    // SAFETY: the call writes two descriptors, and no name.
    assert_eq!(unsafe { libc::openpty(ours, terminal, null_mut(), null(), null()) }, 0);
    // SAFETY: nobody else owns them.
    let [_ours, terminal] = ends.map(|descriptor| unsafe { fs::File::from_raw_fd(descriptor) });
    let output = command(dir.path()).args(["run", "p.toml", "-o", "-"]).stdout(terminal).output().unwrap();
    ends_with(&output, 2, &["--output -: is a terminal", "name a file"]);
}

#[test]
fn a_quiet_run_prints_errors_alone() {
    // The warning that this causes is not printed either.
    let dir = pipeline("graph = { candidates = 300, neighbors = 250 }");
    let text_of = fs::read_to_string(dir.path().join("p.toml")).unwrap();
    fs::write(dir.path().join("p.toml"), text_of.replace("graph = { candidates = 40, neighbors = 8 }\n", "")).unwrap();
    let loud = prosampler(dir.path(), &["run", "p.toml"]);
    ends_with(&loud, 0, &["WARN", "reading"]);
    let quiet = prosampler(dir.path(), &["run", "p.toml", "--quiet"]);
    ends_with(&quiet, 0, &[]);
    assert_eq!((text(&quiet.stdout), text(&quiet.stderr)), (String::new(), String::new()));
    let json = prosampler(dir.path(), &["run", "p.toml", "--quiet", "--json"]);
    assert_eq!((lines(&json).0.len(), text(&json.stderr)), (13, String::new()));
    let piped = prosampler(dir.path(), &["run", "p.toml", "-q", "-o", "-"]);
    assert_eq!((read_stream(&piped.stdout).len(), text(&piped.stderr)), (13, String::new()));
    let failed = prosampler(dir.path(), &["run", "p.toml", "-q", "--set", "source.uri=gone.parquet"]);
    ends_with(&failed, 5, &[]);
    assert!(failed.stdout.is_empty());
    let said = text(&failed.stderr);
    assert!(said.starts_with("error: no such file") && said.lines().count() == 1, "{said}");
}

/// A log file shows that a long run goes on.
#[test]
fn progress_in_a_file_is_plain_lines() {
    let dir = pipeline("");
    let output = prosampler(dir.path(), &["run", "p.toml", "--step-ms", "1000"]);
    ends_with(&output, 0, &[]);
    let said = text(&output.stderr);
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("streaming")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains(" of 13 mini-batches after 1"), "{said}");
    assert!(!said.contains('\r') && !said.contains('\u{1b}'), "{said}");
}
