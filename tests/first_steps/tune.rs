//! What `prosampler tune` recommends is the hardest setting below the bound, and its file runs.

use std::fs;

use prosampler::PipelineConfig;
use prosampler::config::Candidates;
use serde_json::Value;
use tempfile::TempDir;

use crate::{dot, ends_with, path, prosampler, rows, vectors, write_arrow};

const LEN: usize = 1000;

/// A folder with rows around many centers, and a pipeline file with comments.
fn folder() -> TempDir {
    labelled(100)
}

/// The same with so many labels.
fn labelled(labels: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let rows = rows(&vectors(LEN, 16, 100, 0.4), labels);
    write_arrow(&dir, &rows);
    let text = "# Where rows are.\nsource.uri = 'rows.arrow'\nreport.label = 'label'\n\n[encode]\nfeature = 'vector'\n\
                column = 'vector'\n\n[graph]\n# M of mine.\ncandidates = 20\nneighbors = 8\n\n[walk]\nbatch_size = 20\n";
    fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

fn tuned(dir: &TempDir, more: &[&str]) -> Value {
    let arguments: Vec<_> = ["tune", "p.toml", "--json"].iter().chain(more).copied().collect();
    let (out, _) = ends_with(&prosampler(dir.path(), &arguments), 0);
    serde_json::from_str(&out).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn the_hardest_below_the_bound_is_recommended() {
    for (labels, bound) in [(100, "0.5"), (100, "0.02"), (100, "0.004"), (2, "0.5")] {
        let dir = labelled(labels);
        let tuning = tuned(&dir, &["--max-false", bound]);
        let uniform = number(&tuning["uniform"]["same_label"]);
        let tried = tuning["tried"].as_array().unwrap();
        let is_eligible = |tried: &Value| {
            let same = number(&tried["hardness"]["same_label"]);
            let is_much = same > 0.2 && (same - uniform) / (1.0 - uniform) > 0.05;
            number(&tried["hardness"]["likely_false"]) <= bound.parse().unwrap() && !is_much
        };
        let similarity = |tried: &Value| number(&tried["hardness"]["mean_similarity"]);
        let hardest = tried.iter().filter(|tried| is_eligible(tried)).map(similarity).fold(f64::MIN, f64::max);
        match tuning["recommended"].as_u64() {
            Some(index) => assert_eq!(similarity(&tried[index as usize]), hardest, "--max-false {bound}"),
            None => assert!(!tried.iter().any(is_eligible), "--max-false {bound}"),
        }
        if labels == 2 {
            assert!(tried.iter().any(is_eligible) && !tried.iter().all(is_eligible), "the labels decide nothing");
        }
    }
}

#[test]
fn the_estimate_of_uniform_mini_batches_is_that_of_all_pairs() {
    let tuning = tuned(&folder(), &[]);
    let vectors = vectors(LEN, 16, 100, 0.4);
    let nearest = |a: usize| (0..LEN).filter(|&b| b != a).map(|b| dot(&vectors[a], &vectors[b])).fold(-1.0, f64::max);
    let mut to_nearest: Vec<f64> = (0..LEN).map(nearest).collect();
    to_nearest.sort_by(f64::total_cmp);
    let bound = to_nearest[LEN / 2];
    let pairs = (0..LEN).flat_map(|a| (0..a).map(move |b| (a, b)));
    let above = pairs.filter(|&(a, b)| dot(&vectors[a], &vectors[b]) > bound).count();
    let expected = above as f64 / (LEN * (LEN - 1) / 2) as f64;
    // Of 64 mini-batches with 380 pairs each, four standard errors.
    let error = 4.0 * (expected / (64.0 * 190.0)).sqrt();
    let found = number(&tuning["uniform"]["likely_false"]);
    assert!((found - expected).abs() < error, "{found}, expected {expected} ± {error}");
    // Rows of one center are near each other, and have the same label.
    assert!(number(&tuning["rank_correlation"]) > 0.8, "{}", tuning["rank_correlation"]);
}

/// By all pairs of settings.
#[test]
fn the_frontier_has_what_no_other_setting_beats() {
    assert!(length_of_frontier(&tuned(&folder(), &[])) > 1);
    length_of_frontier(&tuned(&labelled(2), &["--max-false", "0.5"]));
}

/// Checks the frontier, and gives the number of settings on it.
fn length_of_frontier(tuning: &Value) -> usize {
    let place = |tried: &Value| {
        let of = &tried["hardness"];
        (number(&of["mean_similarity"]), number(&of["likely_false"]))
    };
    let all = tuning["tried"].as_array().unwrap();
    let tried: Vec<_> = all.iter().map(place).collect();
    let shares_labels = |index: usize| all[index]["shares_labels"].as_bool().unwrap();
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 >= b.0 && a.1 <= b.1 && a != b;
    let few: Vec<usize> = (0..tried.len()).filter(|&index| !shares_labels(index)).collect();
    let unbeaten = |&index: &usize| !few.iter().any(|&other| beats(tried[other], tried[index]));
    let mut expected: Vec<_> = few.iter().copied().filter(unbeaten).map(|index| tried[index]).collect();
    expected.sort_by(|a, b| a.0.total_cmp(&b.0));
    expected.dedup();
    let frontier = tuning["frontier"].as_array().unwrap().iter().map(|index| tried[index.as_u64().unwrap() as usize]);
    assert_eq!(frontier.collect::<Vec<_>>(), expected);
    let recommended = tuning["recommended"].as_u64().expect("a recommendation") as usize;
    assert!(expected.contains(&tried[recommended]), "what is recommended is not on the frontier");
    expected.len()
}

#[test]
fn its_file_keeps_comments_and_runs() {
    let dir = folder();
    let (out, said) = ends_with(
        &prosampler(dir.path(), &["tune", "p.toml", "--max-false", "0.9", "--set", "report.label='text'"]),
        0,
    );
    assert!(out.contains("<- recommended") && out.contains("the present settings"), "{out}");
    assert!(said.contains("p.tuned.toml has the recommended settings"), "{said}");
    assert!(said.contains("p.tuned.html shows the settings that were tried"), "{said}");
    let page = fs::read_to_string(dir.path().join("p.tuned.html")).unwrap();
    for shown in ["<svg", "recommended", "plain shuffle", "graph.candidates = ", "All settings"] {
        assert!(page.contains(shown), "{shown} is missing");
    }
    assert!(!page.contains("https://") && !page.contains("<script"), "the page asks for something");
    let text = fs::read_to_string(dir.path().join("p.tuned.toml")).unwrap();
    for kept in
        ["# Where rows are.", "# M of mine.", "batch_size = 20", "# From `prosampler tune`: in-batch similarity"]
    {
        assert!(text.contains(kept), "{text}");
    }
    let config = PipelineConfig::from_file(dir.path().join("p.tuned.toml")).unwrap();
    assert_eq!(config.graph.candidates, Candidates::Share(1.0));
    assert_eq!(config.walk.batch_size, 20);
    ends_with(&prosampler(dir.path(), &["run", "p.tuned.toml"]), 0);

    // A second call does not overwrite it.
    let (_, said) = ends_with(&prosampler(dir.path(), &["tune", "p.toml"]), 8);
    assert!(said.contains("p.tuned.toml") && said.contains("--out"), "{said}");
}

#[test]
fn m_keeps_its_share_of_a_sample() {
    let tuning = tuned(&folder(), &["--samples", "400"]);
    assert_eq!((&tuning["samples"], &tuning["total"]), (&Value::from(400), &Value::from(LEN)));
    // 20 of 1,000 are 8 of 400, which is K: neighbors are random, and mini-batches hardly harder than uniform ones.
    let [present, uniform] =
        [&tuning["tried"][0]["hardness"], &tuning["uniform"]].map(|of| number(&of["mean_similarity"]));
    let hardest = number(&tuning["tried"].as_array().unwrap().last().unwrap()["hardness"]["mean_similarity"]);
    assert!(present - uniform < 0.25 * (hardest - uniform), "{uniform} {present} {hardest}");
}

/// The guide is the model itself, so that it judges as the model does, by its own embeddings.
#[test]
fn a_guide_judges_by_its_own_embeddings() {
    let pipeline = path("pipelines/images.toml").display().to_string();
    let model = path("data/models/fashion-encoder/model.onnx").display().to_string();
    let tuned = |more: &[&str]| -> Value {
        let arguments = ["tune", &pipeline, "--json", "--samples", "600", "--set", "encode.cache_limit=0"];
        let arguments: Vec<_> = arguments.iter().chain(more).copied().collect();
        let (out, _) = ends_with(&prosampler(&path(""), &arguments), 0);
        serde_json::from_str(&out).unwrap()
    };
    assert_eq!(tuned(&[]), tuned(&["--guide", &model]));

    let (_, said) = ends_with(&prosampler(folder().path(), &["tune", "p.toml", "--guide", "missing.onnx"]), 4);
    assert!(said.contains("encode.feature") && said.contains("guide"), "{said}");
}
