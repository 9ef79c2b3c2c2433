//! What `prosampler report` says is what the mini-batches of the same run are, counted by hand.

use std::collections::HashSet;
use std::fs;

use futures::TryStreamExt;
use prosampler::encode::ColumnEncoder;
use prosampler::report::{Report, Seen};
use prosampler::source::MemorySource;
use prosampler::{Pipeline, PipelineConfig, SampleId};
use serde_json::Value;
use tempfile::TempDir;

use crate::{HOSTILE, dot, ends_with, path, prosampler, rows, vectors, write_arrow};

const LEN: usize = 600;
const LABELS: usize = 5;

fn config() -> PipelineConfig {
    let mut config = PipelineConfig::default();
    config.graph.candidates = 100.into();
    config.graph.neighbors = Some(8);
    config.walk.batch_size = 30;
    config.report.label = Some("label".into());
    config.seed = 3;
    config
}

/// A run's mini-batches, and its report.
async fn reported(vectors: &[Vec<f32>]) -> (Vec<Vec<SampleId>>, Report) {
    let rows = rows(vectors, LABELS);
    let config = config();
    let builder = Pipeline::from_config(config.clone())
        .encoder(ColumnEncoder::new(&rows.schema(), "vector").unwrap())
        .source(MemorySource::new(vec![rows]).unwrap());
    let mut stream = builder.start().await.unwrap();
    let (mut mini_batches, mut seen) = (Vec::new(), Seen::default());
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        seen.add(&mini_batch, stream.snapshot());
        mini_batches.push(mini_batch.ids);
    }
    (mini_batches, Report::new(&config, &seen).unwrap())
}

#[tokio::test]
async fn counts_are_those_of_all_pairs() {
    let vectors = vectors(LEN, 16, 40, 0.15);
    let (mini_batches, report) = reported(&vectors).await;
    let of = |a: SampleId, b: SampleId| dot(&vectors[a.index()], &vectors[b.index()]);

    // Half of all samples are as similar as this to their nearest; fewer than 1,000 are all looked at.
    let nearest = |a: usize| (0..LEN).filter(|&b| b != a).map(|b| dot(&vectors[a], &vectors[b])).fold(-1.0, f64::max);
    let mut to_nearest: Vec<f64> = (0..LEN).map(nearest).collect();
    to_nearest.sort_by(f64::total_cmp);
    let bound = to_nearest[LEN / 2];
    assert!(report.estimate.contains(&format!("({bound:.3})")), "{} and {bound}", report.estimate);

    let (mut pairs, mut above, mut copies, mut same) = (0u64, 0, 0, 0.0);
    let mut worst: Vec<(f64, u32, u32)> = Vec::new();
    for ids in &mini_batches {
        let mut of_one_label = 0;
        for (i, &a) in ids.iter().enumerate() {
            for (j, &b) in ids.iter().enumerate().filter(|&(j, _)| j != i) {
                pairs += 1;
                // Rounding decides about the sample at the median itself, and its nearest.
                above += u64::from(of(a, b) > bound + 1e-6);
                copies += u64::from(of(a, b) >= 0.999);
                of_one_label += u64::from(a.0 as usize % LABELS == b.0 as usize % LABELS);
                if i < j {
                    worst.push((of(a, b), a.0.min(b.0), a.0.max(b.0)));
                }
            }
        }
        same += of_one_label as f64 / (ids.len() * (ids.len() - 1)) as f64 / mini_batches.len() as f64;
    }
    assert_eq!((report.audit.pairs, report.audit.near_copies), (pairs, copies));
    assert!(report.audit.likely_false.abs_diff(above) <= 2, "{} and {above}", report.audit.likely_false);
    assert!(above > 0);
    let run = &report.hardness[0];
    assert!((run.same_label.unwrap() - same).abs() < 1e-9);
    for (similarity, ids) in run.similarity.iter().zip(&mini_batches) {
        let all = ids.iter().enumerate().flat_map(|(i, &a)| ids[..i].iter().map(move |&b| (a, b)));
        let similarities: Vec<f64> = all.map(|(a, b)| of(a, b)).collect();
        let mean = similarities.iter().sum::<f64>() / similarities.len() as f64;
        assert!((f64::from(*similarity) - mean).abs() < 1e-5);
    }

    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    let expected: Vec<_> = worst[..10].iter().map(|&(_, a, b)| (a, b)).collect();
    let found: Vec<_> = report.audit.worst[..10].iter().map(|pair| (pair.a, pair.b)).collect();
    assert_eq!(found, expected);

    // A walk is harder than a shuffle, and nearest first is there, too.
    let names: Vec<_> = report.hardness.iter().map(|hardness| hardness.sampler.as_str()).collect();
    assert_eq!(names, ["random_walk", "knn", "uniform"]);
    assert!(run.mean_similarity > report.hardness[2].mean_similarity + 0.05);
    assert!(run.pairs.shares.iter().sum::<f64>() > 0.999);
}

#[tokio::test]
async fn the_graph_and_the_examples_are_those_of_the_run() {
    let (mini_batches, report) = reported(&vectors(LEN, 16, 40, 0.15)).await;
    assert_eq!(report.graph.in_degrees.iter().sum::<usize>(), LEN);
    assert_eq!(report.graph.hubs[0].in_degree as usize, report.graph.statistics.in_degree_max);
    assert!(report.graph.hubs.windows(2).all(|two| two[0].in_degree >= two[1].in_degree));
    // A sixth of all others are drawn as candidates, so about as many of the nearest are found.
    assert!((report.graph.recall - 100.0 / 599.0).abs() < 0.04, "{}", report.graph.recall);

    let similarity = &report.hardness[0].similarity;
    let hardest = report.examples.iter().find(|example| example.why == "hardest").unwrap();
    assert_eq!(hardest.similarity, similarity.iter().copied().fold(f32::MIN, f32::max));
    for example in &report.examples {
        let ids: Vec<u32> = mini_batches[example.step as usize].iter().take(12).map(|id| id.0).collect();
        assert_eq!(example.ids, ids);
    }
    let named: HashSet<u32> = report.examples.iter().flat_map(|example| example.ids.iter().copied()).collect();
    for id in named {
        assert_eq!(report.samples[&id].label, Some(format!("class {}", id as usize % LABELS)));
        let text = if id == 7 { HOSTILE.to_owned() } else { format!("text number {id}") };
        assert_eq!(report.samples[&id].texts, [text]);
    }
}

/// A folder with rows and a pipeline file over them, with a checkpoint folder that reports must leave alone.
fn folder(len: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let rows = rows(&vectors(len, 16, 10, 0.3), LABELS);
    write_arrow(&dir, &rows);
    let text = "# Mine.\nsource.uri = 'rows.arrow'\nreport.label = 'label'\ncheckpoint.dir = 'kept'\n\
                [encode]\nfeature = 'vector'\ncolumn = 'vector'\n[walk]\nbatch_size = 8\nwarm_up = { epochs = 1 }\n";
    fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

#[test]
fn the_page_needs_nothing_else_and_shows_data_as_text() {
    let dir = folder(24);
    let (out, said) = ends_with(&prosampler(dir.path(), &["report", "p.toml", "--set", "stream.epochs=1"]), 0);
    assert_eq!(out, "");
    assert!(said.contains("report.html"), "{said}");
    assert!(!dir.path().join("kept").exists(), "a report keeps no checkpoint");
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    // Each of so few samples is shown somewhere, the hostile one too.
    assert!(page.contains("&lt;script&gt;alert('owned')&lt;/script&gt; &amp; &quot;quotes&quot;"), "escaped");
    assert!(!page.contains("<script"), "no molecules, no script");
    for outside in ["src=\"http", "href=", "@import", "url("] {
        let known = page.matches("clip-path=\"url(#plot-").count();
        let found = page.matches(outside).count();
        assert_eq!(found, if outside == "url(" { known } else { 0 }, "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
    assert!(page.contains("# Mine.") && page.contains("stream.epochs=1"), "settings are shown as they were given");
}

#[test]
fn json_has_the_numbers_of_the_page() {
    let dir = folder(200);
    let (out, _) = ends_with(&prosampler(dir.path(), &["report", "p.toml", "--json"]), 0);
    assert!(!dir.path().join("report.html").exists());
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["data"]["samples"], 200);
    assert_eq!(json["audit"]["warm_up"], 0, "a report is of mini-batches after the warm-up");
    assert_eq!(json["hardness"][0]["similarity"].as_array().unwrap().len(), 25);
    assert!(json["course"]["stages"].as_array().unwrap().len() >= 2);
}

#[test]
fn molecules_are_drawn_by_the_script_that_the_page_brings() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("report.html").display().to_string();
    let arguments = ["report", "pipelines/molecules.toml", "--mini-batches", "5", "--out", &out];
    ends_with(&prosampler(&path(""), &arguments), 0);
    let page = fs::read_to_string(out).unwrap();
    assert!(page.contains("data-smiles=\"") && page.contains("SmiDrawer.apply("));
}

#[test]
fn images_are_in_the_page() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("report.html").display().to_string();
    let arguments = ["report", "pipelines/images.toml", "--mini-batches", "5", "--out", &out];
    ends_with(&prosampler(&path(""), &arguments), 0);
    let page = fs::read_to_string(out).unwrap();
    assert!(page.matches("data:image/png;base64,iVBOR").count() >= 12);
}
