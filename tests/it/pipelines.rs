//! Every shipped pipeline, from Parquet to mini-batches, with a real encoder and real data.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use prosampler::arrow::array::{Array, AsArray};
use prosampler::config::GraphOver;
use prosampler::report::Observer;
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineConfig, SampleId};
use serde_json::Value;

use crate::support::path;

/// The pipeline, without its cache, and with these other settings.
fn config(name: &str, more: &[&str]) -> PipelineConfig {
    let more: Vec<_> = more.iter().map(ToString::to_string).collect();
    let mut config = PipelineConfig::from_file_with(path("pipelines").join(name), &more).unwrap();
    config.store.cache_dir = None;
    config
}

async fn run(config: &PipelineConfig) -> (MiniBatchStream, Vec<MiniBatch>) {
    let mut stream = Pipeline::from_config(config.clone()).start().await.unwrap();
    let mut mini_batches = Vec::new();
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        mini_batches.push(mini_batch);
    }
    (stream, mini_batches)
}

/// Mini-batches are harder than uniform ones by this factor at least, and have every sample once.
fn is_hard(config: &PipelineConfig, stream: &MiniBatchStream, mini_batches: &[MiniBatch], factor: f64) {
    let mut observer = Observer::new(stream.samples(), &config.walk, config.seed, config.report.label.as_deref());
    let mut seen = HashSet::new();
    for mini_batch in mini_batches {
        observer.observe(mini_batch).unwrap();
        assert!(mini_batch.ids.iter().all(|id| seen.insert(*id)), "a sample came twice");
    }
    let summary = observer.summary(stream.snapshot().as_deref());
    println!("{summary}");
    let unplaced = stream.counts().unplaced as usize;
    assert_eq!(seen.len() + unplaced, stream.samples());
    assert!(unplaced * 50 < stream.samples(), "{unplaced} samples had no place");
    let (walked, uniform) = (summary.walked.mean_similarity(), summary.uniform.mean_similarity());
    assert!(walked > factor * uniform, "{walked} against {uniform}");
}

/// What onnxruntime in Python gives for some rows, by the value of a column; it was rounded to six places.
fn equals_python(stream: &MiniBatchStream, model: &str, key: &str, values: &HashMap<String, SampleId>) {
    let text = std::fs::read_to_string(path("data/models").join(model).join("reference.json")).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for entry in &entries {
        let Some(&id) = values.get(entry[key].as_str().unwrap()) else { continue };
        let expected = entry["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32);
        for (x, y) in stream.snapshot().unwrap().embeddings.get(id).iter().zip(expected) {
            assert!((x - y).abs() < 1e-5, "{model}, {}: {x} {y}", entry[key]);
        }
        compared += 1;
    }
    assert!(compared >= 3, "{compared} of {} were found", entries.len());
}

/// The samples by a string column.
fn by_column(mini_batches: &[MiniBatch], column: &str) -> HashMap<String, SampleId> {
    let mut all = HashMap::new();
    for mini_batch in mini_batches {
        let values = mini_batch.rows[column].as_string::<i32>();
        all.extend(values.iter().zip(&mini_batch.ids).map(|(value, id)| (value.unwrap().to_owned(), *id)));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn images() {
    let config = config("images.toml", &[]);
    let (stream, mini_batches) = run(&config).await;
    is_hard(&config, &stream, &mini_batches, 1.15);
    equals_python(&stream, "fashion-encoder", "id", &by_column(&mini_batches, "id"));
    let table = stream.snapshot().unwrap().embeddings.clone();
    for mini_batch in &mini_batches[..5] {
        for (i, &a) in mini_batch.ids.iter().enumerate() {
            let copies = mini_batch.ids[..i].iter().filter(|&&b| table.similarity_of(a, b) >= 0.995).count();
            assert_eq!(copies, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn molecules() {
    let config = config("molecules.toml", &[]);
    let (stream, mini_batches) = run(&config).await;
    is_hard(&config, &stream, &mini_batches, 1.2);
    equals_python(&stream, "molecule-encoder", "id", &by_column(&mini_batches, "id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs() {
    let config = config("pairs.toml", &["pairs.graph_over=anchors", "walk.drop_last=true"]);
    assert_eq!(config.pairs.graph_over, GraphOver::Anchors);
    let (stream, mini_batches) = run(&config).await;
    assert!(!mini_batches.is_empty());
    equals_python(&stream, "verse-encoder", "text", &by_column(&mini_batches, "anchor"));
    let table = stream.snapshot().unwrap().embeddings.clone();
    for mini_batch in &mini_batches {
        let positives = mini_batch.rows["positive"].as_string::<i32>();
        let distinct: HashSet<_> = positives.iter().flatten().collect();
        assert_eq!(distinct.len(), mini_batch.ids.len(), "two rows share their positive");
        for (i, &a) in mini_batch.ids.iter().enumerate() {
            let own = table.pair_similarity(a).unwrap();
            for &b in &mini_batch.ids[..i] {
                let bound = 0.95 * own.min(table.pair_similarity(b).unwrap());
                assert!(bound <= 0.0 || table.similarity_of(a, b) < bound);
            }
        }
        for column in ["negative_1", "negative_2"] {
            let negatives = mini_batch.rows[column].as_string::<i32>();
            assert!(negatives.null_count() * 10 < negatives.len(), "{} nulls", negatives.null_count());
            for (negative, positive) in negatives.iter().zip(positives) {
                assert_ne!(negative, positive);
            }
        }
    }
}

/// A part of each source, so that it takes seconds: each comes with its prefix and its share of every mini-batch.
#[tokio::test(flavor = "multi_thread")]
async fn mixture() {
    let mut config = config("mixture.toml", &["walk.batch_size=32", "stream.epochs=2"]);
    for (source, filter) in
        config.sources.iter_mut().zip(["label = 'noun.animal'", "label = 'verb.motion'", "book <= 'Exodus'"])
    {
        source.filter = Some(filter.into());
    }
    let (stream, mini_batches) = run(&config).await;
    // A heavier last source makes the second epoch longer: its rows are not the first to be used up.
    let of_epoch = |epoch| mini_batches.iter().filter(|mini_batch| mini_batch.epoch == epoch).count() as u64;
    assert_eq!(of_epoch(1), stream.mini_batches_per_epoch());
    assert!(of_epoch(0) > 100 && of_epoch(0) < of_epoch(1), "{} and {}", of_epoch(0), of_epoch(1));
    let mut owed = [0.0; 3];
    for mini_batch in &mini_batches {
        let weights = config.sources.iter().map(|source| source.weight.unwrap().at(mini_batch.step, mini_batch.epoch));
        let weights: Vec<_> = weights.collect();
        let counts = mini_batch.sources();
        if mini_batch.step == of_epoch(0) {
            owed = [0.0; 3];
        }
        for (place, source) in config.sources.iter().enumerate() {
            let count = counts.get(source.name.as_str()).copied().unwrap_or(0);
            owed[place] += 32.0 * weights[place] / weights.iter().sum::<f64>() - count as f64;
            assert!(owed[place].abs() < 1.0 + 1e-6, "{} at step {}", source.name, mini_batch.step);
        }
        let anchors = mini_batch.rows["anchor"].as_string::<i64>();
        let sources = mini_batch.rows["source"].as_string::<i32>();
        for (anchor, source) in anchors.iter().zip(sources) {
            let source = source.unwrap();
            let prefix = match source {
                "nouns" => "define the noun: ",
                "verbs" => "define the verb: ",
                _ => "in other words: ",
            };
            assert!(anchor.unwrap().starts_with(prefix), "{anchor:?} of {source}");
        }
    }
    let snapshot = stream.snapshot().unwrap();
    let similarity = |m: &MiniBatch| snapshot.embeddings.mean_similarity(&m.ids);
    println!("in-batch similarity {}", mini_batches.iter().map(similarity).sum::<f32>() / mini_batches.len() as f32);
}

/// Over one book, so that the test is short.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_crosswise() {
    let more = ["pairs.graph_over=cross", "pairs.within=1", "source.filter=\"book = 'Gen'\"", "walk.drop_last=true"];
    let config = config("pairs.toml", &more);
    assert_eq!(config.pairs.graph_over, GraphOver::Cross);
    let (stream, mini_batches) = run(&config).await;
    let table = stream.snapshot().unwrap().embeddings.clone();
    assert_eq!((table.dimension(), stream.inconsistent()), (256, table.inconsistent()));
    println!("{} of {} pairs are left out", table.inconsistent(), table.len());
    assert!(table.inconsistent() > 0 && table.inconsistent() * 50 < table.len());
    let (mut seen, mut walked, mut uniform) = (HashSet::new(), 0.0, 0.0);
    for mini_batch in &mini_batches {
        let ids = &mini_batch.ids;
        assert!(ids.iter().all(|&id| seen.insert(id) && !table.is_inconsistent(id)));
        walked += f64::from(mini_batch.similarity.unwrap());
        let others: Vec<_> = (0..ids.len()).map(|i| SampleId::new((i * 7919) % table.len())).collect();
        uniform += f64::from(table.mean_similarity(&others));
        for (i, &a) in ids.iter().enumerate() {
            // With itself a sample is as similar as its pair.
            assert!((table.similarity_of(a, a) - table.pair_similarity(a).unwrap()).abs() < 1e-3);
            for &b in &ids[..i] {
                let bound = 0.95 * table.pair_similarity(a).unwrap().min(table.pair_similarity(b).unwrap());
                assert!(bound <= 0.0 || table.similarity_of(a, b) < bound);
            }
        }
    }
    assert!(walked > 1.1 * uniform, "{walked} and {uniform}");
}

#[tokio::test(flavor = "multi_thread")]
async fn precomputed() {
    let config = config("precomputed.toml", &[]);
    let (stream, mini_batches) = run(&config).await;
    is_hard(&config, &stream, &mini_batches, 1.15);
    // The vectors are those of the image pipeline's encoder, in f16.
    let text = std::fs::read_to_string(path("data/models/fashion-encoder/reference.json")).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    let ids = by_column(&mini_batches, "id");
    for entry in &entries {
        let kept = stream.snapshot().unwrap().embeddings.get(ids[entry["id"].as_str().unwrap()]).into_owned();
        let expected = entry["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32);
        assert!(kept.iter().zip(expected).all(|(x, y)| (x - y).abs() < 2e-3));
    }
}
