//! A stage imports only stages to its left, and leaves.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::path;

const LEAVES: [&str; 10] =
    ["arrow_file", "compute", "config", "error", "memory", "panics", "progress", "sample", "simd", "telemetry"];
const STAGES: [&str; 12] = [
    "source",
    "store",
    "embeddings",
    "encode",
    "graph",
    "device",
    "walk",
    "checkpoint",
    "refresh",
    "stream",
    "pipeline",
    "report",
];

#[test]
fn stages_import_only_to_the_left() {
    for (position, stage) in STAGES.iter().enumerate() {
        for (file, name) in imports(stage) {
            let allowed = LEAVES.contains(&name.as_str()) || STAGES[..=position].contains(&name.as_str());
            assert!(allowed, "{} imports crate::{name}, which is not to its left", file.display());
        }
    }
    for leaf in LEAVES {
        for (file, name) in imports(leaf) {
            assert!(LEAVES.contains(&name.as_str()), "{} is a leaf and imports crate::{name}", file.display());
        }
    }
}

#[test]
fn graph_and_walk_are_pure() {
    for stage in ["graph", "walk"] {
        for file in files(stage) {
            let text = fs::read_to_string(&file).unwrap();
            for foreign in ["tokio", "ort::", "parquet", "std::fs", "std::time"] {
                assert!(!text.contains(foreign), "{} knows {foreign}", file.display());
            }
        }
    }
}

/// The modules of this crate that a stage names in its code.
fn imports(stage: &str) -> Vec<(PathBuf, String)> {
    let mut imports = Vec::new();
    for file in files(stage) {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let name: String = line[at + 7..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !name.is_empty() {
                    imports.push((file.clone(), name));
                }
            }
        }
    }
    assert!(
        ["memory", "panics", "progress", "sample", "simd"].contains(&stage) || !imports.is_empty(),
        "found no imports in {stage}: does this test still look?"
    );
    imports
}

fn files(stage: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => collect(&path, files),
                Some(extension) if extension == "rs" => files.push(path),
                _ => {}
            }
        }
    }
    let single = path(&format!("src/{stage}.rs"));
    if single.is_file() {
        return vec![single];
    }
    let mut files = Vec::new();
    collect(&path(&format!("src/{stage}")), &mut files);
    files
}
