//! One thing has one word: settings and counters are called the same in Rust, in pipeline files, on the command line,
//! in Python and in the documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::path;

#[test]
fn every_setting_that_a_text_names_exists() {
    let keys = settings();
    for key in ["graph.candidates", "refresh.swap_after_steps", "walk.batch_size", "encode.on_bad_sample"] {
        assert!(keys.contains(key), "{key} is not among the settings that were found: does this test still look?");
    }
    let sections: BTreeSet<_> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let mut named = 0;
    for file in texts() {
        let text = read(&file);
        for token in in_backticks(&text).into_iter().chain(after_set(&text)) {
            let Some((section, key)) = token.split_once('.') else { continue };
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let is_setting = sections.contains(section) && !key.is_empty() && key.chars().all(is_word);
            if is_setting && !FILE_ENDINGS.contains(&key) {
                assert!(keys.contains(&token), "{} names `{token}`, which is not a setting", file.display());
                named += 1;
            }
        }
    }
    assert!(named > 50, "only {named} settings are named: does this test still look?");
}

#[test]
fn the_dials_of_the_readme_are_settings() {
    let keys = settings();
    let readme = read(&path("README.md"));
    let table = readme.split("## The dials").nth(1).expect("the section").split("\n## ").next().expect("its text");
    let dials: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(dials.len() > 15, "{dials:?}");
    for dial in dials {
        let name = in_backticks(dial).remove(0);
        let is_there = match name.strip_suffix('*') {
            Some(section) => keys.iter().any(|key| key.starts_with(section)),
            None => keys.contains(&name),
        };
        assert!(is_there, "the README has a dial `{name}`, which is not a setting");
    }
}

/// Names that settings had before are found nowhere but where the error names their successors, and in the changelog.
#[test]
fn earlier_names_of_settings_are_gone() {
    for file in texts().into_iter().filter(|file| !file.starts_with(path("src/config"))) {
        let text = read(&file);
        for earlier in ["swap_at_step", "skip_below", "refresh.budget", "refresh.overtaken"] {
            assert!(!text.contains(earlier), "{} has `{earlier}`", file.display());
        }
    }
}

/// The command's summary, the README's example of it and Python's dict count refreshes by the names of Rust's fields.
#[test]
fn refreshes_are_counted_in_the_same_words() {
    let fields = public_fields("RefreshCounts");
    assert!(fields.len() >= 4, "{fields:?}");
    let command = all_of("src/cli");
    let python = all_of("python/src");
    let readme = read(&path("README.md"));
    let line = readme.lines().find(|line| line.starts_with("refreshes ")).expect("the line of refreshes");
    for field in &fields {
        assert!(command.contains(&format!("}} {field}")), "the summary lacks {field}");
        assert!(python.contains(&format!("\"{field}\"")), "Python's counts lack {field}");
        assert!(line.contains(field.as_str()), "the README's example lacks {field}: {line}");
    }
}

/// The summary says how walks went in the words of the fields, with spaces and hyphens for underscores.
#[test]
fn walks_are_counted_in_the_same_words() {
    let fields = public_fields("WalkCounts");
    let summary = all_of("src/report").replace([' ', '-'], "_");
    let readme = read(&path("README.md")).replace([' ', '-'], "_");
    for field in ["moves", "restarts", "new_starts", "uniform_top_ups"] {
        assert!(fields.iter().any(|found| found == field), "WalkCounts has no {field}");
        assert!(summary.contains(&format!("{{}}_{field}")), "the summary lacks {field}");
        assert!(readme.contains(&format!("_{field}")), "the README's example lacks {field}");
    }
    // The README's run has none of these.
    assert!(fields.iter().any(|found| found == "uniform_draws") && summary.contains("{}_uniform_draws"));
    for refused in fields.iter().filter_map(|field| field.strip_prefix("refused_")).filter(|word| *word != "distinct") {
        assert!(summary.contains(&format!("_{refused}")), "the summary lacks what is refused as {refused}");
    }
}

/// The summary counts what a source has tolerated by the names of Rust's fields, with spaces for underscores.
#[test]
fn what_a_source_tolerates_is_counted_in_the_same_words() {
    let fields = public_fields("SourceCounts");
    assert!(fields.len() >= 3, "{fields:?}");
    let summary = read(&path("src/cli/summary.rs"));
    for field in fields.iter().map(|field| field.replace('_', " ")) {
        assert!(summary.contains(&format!("}} {field}")), "the summary lacks {field}");
    }
}

/// What Python's classes have beside Rust's structs is called the same.
#[test]
fn attributes_in_python_are_fields_in_rust() {
    let stub = read(&path("python/prosampler/_prosampler.pyi"));
    for (name, beside) in [("Refreshed", &[][..]), ("MiniBatch", &["column_names", "mask", "sources"][..])] {
        let fields = public_fields(name);
        let class = stub.split(&format!("class {name}:")).nth(1).expect("the class");
        let class = class.split("\nclass ").next().expect("its text");
        let attributes: Vec<_> = class.split("@property\n").skip(1).map(attribute).collect();
        assert!(attributes.len() > 5, "{attributes:?}");
        for attribute in attributes.iter().filter(|attribute| !beside.contains(attribute)) {
            assert!(fields.iter().any(|field| field == attribute), "{name}.{attribute} is no field in Rust");
        }
    }
}

/// The name in `def name(self) …`.
fn attribute(definition: &str) -> &str {
    let name = definition.trim_start().strip_prefix("def ").expect("a definition");
    name.split('(').next().expect("its name")
}

/// All settings, as `section.key`.
fn settings() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (section, kind) in fields("PipelineConfig").into_iter().filter(|(_, kind)| kind.ends_with("Config")) {
        keys.extend(public_fields(&kind).into_iter().map(|key| format!("{section}.{key}")));
    }
    keys
}

fn public_fields(name: &str) -> Vec<String> {
    fields(name).into_iter().map(|(field, _)| field).collect()
}

/// The public fields of a struct of this crate with their types, as its text has them.
fn fields(name: &str) -> Vec<(String, String)> {
    let start = format!("pub struct {name} {{\n");
    let files = files("src", &["rs"]);
    let texts = files.iter().map(|file| read(file));
    let text = texts.into_iter().find(|text| text.contains(&start)).unwrap_or_else(|| panic!("no struct {name}"));
    let body = text.split(&start).nth(1).expect("its fields").split("\n}").next().expect("its end").to_owned();
    let field = |line: &str| {
        let (field, kind) = line.trim().strip_prefix("pub ")?.split_once(": ")?;
        Some((field.to_owned(), kind.trim_end_matches(',').to_owned()))
    };
    body.lines().filter_map(field).collect()
}

/// Whatever stands between two backticks in a line.
fn in_backticks(text: &str) -> Vec<String> {
    let tokens = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    tokens.map(str::to_owned).collect()
}

/// What a message says to set, as in "set encode.max_tokens to 128".
fn after_set(text: &str) -> Vec<String> {
    let is_part = |c: &char| c.is_ascii_alphanumeric() || "._".contains(*c);
    let tokens = text.split(" set ").skip(1).map(|rest| rest.chars().take_while(is_part).collect::<String>());
    tokens.map(|token| token.trim_end_matches('.').to_owned()).collect()
}

/// The texts that name settings.
fn texts() -> Vec<PathBuf> {
    let mut all = vec![path("README.md"), path("ARCHITECTURE.md")];
    all.extend(files("docs", &["md"]));
    all.extend(files("src", &["rs"]));
    all.extend(files("python/src", &["rs"]));
    all.extend(files("python/prosampler", &["py", "pyi"]));
    all.extend(files("pipelines", &["toml"]));
    all
}

fn all_of(folder: &str) -> String {
    files(folder, &["rs"]).iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The files with these endings in a folder of the repository.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    fn collect(folder: &Path, endings: &[&str], files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|ending| ending.to_str()) {
                _ if path.is_dir() => collect(&path, endings, files),
                Some(ending) if endings.contains(&ending) => files.push(path),
                _ => {}
            }
        }
    }
    let mut files = Vec::new();
    collect(&path(folder), endings, &mut files);
    files.sort();
    files
}

/// What makes a word in backticks a file and not a setting.
const FILE_ENDINGS: [&str; 6] = ["rs", "py", "md", "toml", "onnx", "arrow"];
