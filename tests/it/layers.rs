//! A stage imports only stages to its left, and the leaves; so does a room within a stage.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::path;

const LEAVES: [&str; 12] = [
    "arrow_file",
    "claim",
    "compute",
    "config",
    "error",
    "machine",
    "memory",
    "panics",
    "progress",
    "sample",
    "simd",
    "telemetry",
];
const STAGES: [&str; 15] = [
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
    "metrics",
    "pipeline",
    "serve",
    "report",
    "tune",
];

/// The files and folders of these stages, each of which imports only those to its left.
const ROOMS: [(&str, &[&str]); 2] = [
    (
        "graph",
        &[
            "params",
            "tails",
            "proximity_graph",
            "file",
            "statistics",
            "kernel",
            "topk",
            "sampled",
            "knn",
            "oracle",
            "device",
            "hnsw",
            "merged",
            "build",
            "backend",
        ],
    ),
    (
        "walk",
        &[
            "counts",
            "draw",
            "lists",
            "weights",
            "strata",
            "lengths",
            "dials",
            "feedback",
            "remaining",
            "epoch_strata",
            "balance",
            "skipped",
            "guards",
            "filling",
            "parts",
            "reverse",
            "path",
            "must_draw",
            "negatives",
            "knn",
            "random_walk",
            "partition",
            "plan",
            "epoch_sampler",
            "epoch_begin",
            "epoch_plan",
        ],
    ),
];

/// Types that a stage's `mod.rs` exports, and the rooms that they are in.
const EXPORTS: [(&str, &str); 3] = [("ProximityGraph", "proximity_graph"), ("Device", "device"), ("Groups", "guards")];

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
fn rooms_import_only_to_the_left() {
    for (stage, rooms) in ROOMS {
        let root = path(&format!("src/{stage}"));
        let mut count = 0;
        for file in files(stage) {
            let inside: Vec<_> = file.strip_prefix(&root).unwrap().iter().map(|name| name.to_str().unwrap()).collect();
            let room = inside[0].trim_end_matches(".rs");
            if room == "mod" {
                continue;
            }
            let position = rooms.iter().position(|name| *name == room);
            let position = position.unwrap_or_else(|| panic!("{room} of {stage} has no position in the order"));
            for name in imports_within(&file, stage, inside.len() == 1 || inside[1..] == ["mod.rs"]) {
                count += 1;
                let export = EXPORTS.iter().find(|(export, _)| *export == name);
                let other = export.map_or(&*name, |(_, room)| room);
                let allowed = rooms[..=position].contains(&other);
                assert!(allowed, "{} imports {name} of {stage}, which is not to its left", file.display());
            }
        }
        assert!(count > rooms.len(), "found {count} imports within {stage}: does this test still look?");
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
        ["claim", "machine", "memory", "panics", "progress", "sample", "simd"].contains(&stage) || !imports.is_empty(),
        "found no imports in {stage}: does this test still look?"
    );
    imports
}

/// The rooms of its own stage that a file names in its code. For a `room_root`, `super` is the stage.
fn imports_within(file: &Path, stage: &str, room_root: bool) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let code = code.split("#[cfg(test)]\nmod").next().unwrap();
    let absolute = format!("crate::{stage}::");
    let above = if room_root { "super::" } else { "super::super::" };
    let mut names = Vec::new();
    for prefix in [&*absolute, above] {
        for (at, _) in code.match_indices(prefix) {
            let imported = &code[at + prefix.len()..];
            match imported.strip_prefix('{') {
                None => names.push(identifier(imported)),
                Some(list) => names.extend(list[..list.find("};").unwrap()].split(',').map(identifier)),
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
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

#[test]
fn rooms_of_source_have_no_circle() {
    let mut left = source_imports();
    let count: usize = left.iter().map(|(_, imported)| imported.len()).sum();
    assert!(count > left.len(), "found {count} imports in source: does this test still look?");
    // A module that imports none of those that are left cannot be part of a circle.
    loop {
        let modules: Vec<_> = left.iter().map(|(module, _)| module.clone()).collect();
        left.retain(|(_, imported)| imported.iter().any(|other| modules.contains(other)));
        if left.len() == modules.len() {
            break;
        }
    }
    assert!(left.is_empty(), "these modules of source import each other: {left:#?}");
}

/// The names that lead to a module from `source`, which itself has none.
type Module = Vec<String>;

/// Each module of `source` with those that it imports.
fn source_imports() -> Vec<(Module, Vec<Module>)> {
    let root = path("src/source");
    let module_of = |file: &Path| -> Module {
        let relative = file.strip_prefix(&root).unwrap().with_extension("");
        let names = relative.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| name != "mod").collect()
    };
    let files = files("source");
    let modules: Vec<_> = files.iter().map(|file| module_of(file)).collect();
    let imports_of = |file: &PathBuf| {
        let module = module_of(file);
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let mut imported = Vec::new();
        for item in items(&module, code) {
            // An item lies in the module that most of its path names.
            let holder = (0..=item.len()).rev().map(|length| item[..length].to_vec()).find(|m| modules.contains(m));
            imported.extend(holder.filter(|holder| *holder != module));
        }
        (module, imported)
    };
    files.iter().map(imports_of).collect()
}

/// What the code of a module names in `source`, each as a path from there.
fn items(module: &[String], code: &str) -> Vec<Vec<String>> {
    let parent = &module[..module.len().saturating_sub(1)];
    let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut items = Vec::new();
    for (prefix, base) in [("super::", parent), ("self::", module), ("crate::source::", &[])] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let group = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let paths = group.map_or(vec![rest], |(group, _)| group.split(',').collect());
            for path in paths {
                let path = path.trim_start();
                let end = path.find(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).unwrap_or(path.len());
                let names = path[..end].split("::").map(str::to_owned);
                items.push(base.iter().cloned().chain(names).collect());
            }
        }
    }
    items
}
