//! The examples run as they stand. `cargo test` and `cargo nextest run` have built them beside this test.

use std::path::PathBuf;
use std::process::Command;

use crate::support::path;

fn run(example: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.ancestors().nth(2).unwrap().join("examples");
    let binary = folder.join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is missing: run the tests of the whole package", binary.display());
    let output = Command::new(binary).current_dir(path("")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn minimal() {
    let output = run("minimal");
    let steps: Vec<_> = output.lines().map(|l| l.split(':').next().unwrap()).collect();
    assert_eq!(steps, ["step 0", "step 100", "step 200", "step 300", "step 400"]);
    assert!(output.lines().all(|l| l.contains("256 rows, mean similarity 0.")), "{output}");
}

#[test]
fn custom_encoder() {
    let output = run("custom_encoder");
    let line = output.lines().find(|l| l.starts_with("mean in-batch similarity")).unwrap();
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(numbers[0] > 1.15 * numbers[1], "{output}");
}

#[test]
fn hot_reload() {
    let output = run("hot_reload");
    let before = output.lines().position(|l| l.contains("a newer model is there")).unwrap();
    let lines: Vec<Vec<_>> = output.lines().map(|l| l.split_whitespace().collect()).collect();
    let versions = |line: &Vec<&str>| (line.len() == 7).then(|| (line[1].to_owned(), line[2].to_owned()));
    let [first, last] = [lines[..before].iter().find_map(versions), lines[before..].iter().rev().find_map(versions)];
    assert_eq!((first, last), (Some(("1".into(), "1".into())), Some(("2".into(), "2".into()))), "{output}");
}

#[test]
fn opentelemetry() {
    let output = run("opentelemetry");
    let spans: Vec<_> = output.split("Span #").skip(1).collect();
    let field = |span: &str, name: &str| {
        // What its scope and its events have is further in.
        let line =
            span.lines().find_map(|line| line.strip_prefix('\t')?.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let named = |name: &str| spans.iter().filter(|span| field(span, "Name") == name).collect::<Vec<_>>();
    assert_eq!((named("store").len(), named("encode").len()), (1, 1), "{output}");
    // Each refresh of the 78 mini-batches builds a graph within it, as the start does without.
    let refreshes: Vec<_> = named("refresh").iter().map(|span| field(span, "SpanId")).collect();
    let parents: Vec<_> = named("graph").iter().map(|span| field(span, "ParentSpanId")).collect();
    assert!(!refreshes.is_empty());
    for refresh in &refreshes {
        assert!(parents.contains(refresh), "{output}");
    }
    // On a busy machine the span of the last refresh may still be open when the run has ended.
    assert!([1, 2].contains(&(parents.len() - refreshes.len())), "{output}");
}
