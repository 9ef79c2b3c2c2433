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
    assert!(numbers[0] > 1.2 * numbers[1], "{output}");
}
