//! Runs that are watched (feature `metrics`).

#[allow(dead_code, unused_imports, reason = "what the tests in `it` need")]
#[path = "../it/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures::StreamExt;
use prosampler::config::{EncodeConfig, GuardsConfig, MetricsConfig, OnBadSample, PipelineConfig};
use prosampler::{MiniBatch, MiniBatchStream, Pipeline, PipelineBuilder};
use serde_json::Value;

use crate::support::refresh::until;
use crate::support::{TestEncoder, assert_says, graph_config, path, source, walk_config};

const SAMPLES: usize = 500;

/// A pipeline over samples in clusters that is watched at a free port.
fn watched(encoder: TestEncoder, guards: GuardsConfig) -> PipelineBuilder {
    at("127.0.0.1:0".parse().unwrap(), encoder).guards(guards)
}

fn at(address: SocketAddr, encoder: TestEncoder) -> PipelineBuilder {
    Pipeline::builder()
        .source(source(SAMPLES))
        .encoder(encoder)
        .graph(graph_config(50, 10))
        .walk(walk_config(20))
        .metrics(MetricsConfig { address: Some(address) })
}

/// What a path answers: its head and its body.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (head.to_owned(), body.to_owned())
}

fn status(address: SocketAddr) -> Value {
    serde_json::from_str(&get(address, "/status").1).unwrap()
}

/// What `/metrics` answers, by name and label.
fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    let (head, body) = get(address, "/metrics");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, n)| (name.into(), n.parse().unwrap())).collect()
}

async fn take(stream: &mut MiniBatchStream, count: usize) -> Vec<MiniBatch> {
    stream.take(count).map(Result::unwrap).collect().await
}

/// Everything that is told, against the mini-batches and counts that the trainer has.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_the_trainer_sees() {
    let guards = GuardsConfig { max_similarity: Some(0.9), ..GuardsConfig::default() };
    let encoder = TestEncoder::new(SAMPLES).skipping(|n| n == 7);
    let encode = EncodeConfig { on_bad_sample: OnBadSample::Skip, ..EncodeConfig::default() };
    let mut stream = watched(encoder.clone(), guards).encode(encode).start().await.unwrap();
    let address = stream.metrics_address().unwrap();
    let before = status(address);
    assert_eq!(before["run"]["mini_batches"], 0);
    assert_eq!(before["run"]["similarity"], Value::Null);

    let mut mini_batches = take(&mut stream, 10).await;
    encoder.train();
    stream.handle().refresh_now().await.unwrap();
    mini_batches.extend(take(&mut stream, 8).await);
    let handle = stream.handle();
    let told = status(address);
    let run = &told["run"];
    let last = mini_batches.last().unwrap();
    let counts = stream.counts();
    assert_eq!(run["data_set_samples"], SAMPLES);
    assert_eq!(run["skipped"], 1);
    assert_eq!((&run["mini_batches"], &run["delivered"]), (&18.into(), &18.into()));
    assert_eq!(run["samples"], mini_batches.iter().map(|of| of.ids.len()).sum::<usize>());
    assert_eq!(run["similarity"].as_f64().map(|s| s as f32), last.similarity);
    assert_eq!(run["staleness"].as_u64(), last.staleness);
    assert_eq!(run["graph_version"].as_u64(), last.graph_version.map(|version| version.0));
    assert_eq!(run["model_version"].as_u64(), last.model_version.map(|version| version.0));
    assert_eq!(run["counts"], serde_json::to_value(counts.walks).unwrap());
    assert!(counts.walks.refused_similar > 0, "the guard has nothing to refuse");
    assert_eq!(run["refreshes"], serde_json::to_value(handle.counts()).unwrap());
    // A parser of JSON may miss the last bit.
    let is_near = |told: &Value, number: f64| (told.as_f64().unwrap() - number).abs() <= 1e-12 * number;
    assert!(is_near(&run["trainer_wait"], counts.trainer_wait.as_secs_f64()));
    let took = handle.seconds();
    assert!(took.encode > 0.0 && took.graph > 0.0);
    assert!(is_near(&run["refresh_seconds"]["graph"], took.graph));
    let history = &run["history"];
    for (i, mini_batch) in mini_batches.iter().enumerate() {
        assert_eq!(history["step"][i].as_u64(), Some(mini_batch.step));
        assert_eq!(history["similarity"][i].as_f64().map(|s| s as f32), mini_batch.similarity);
        assert_eq!(history["staleness"][i].as_u64(), mini_batch.staleness);
    }
    assert_eq!(history["step"].as_array().unwrap().len(), 18);

    // Places are filled in the background until all are taken.
    until("all places are taken", || metrics(address)["prosampler_ready"] == 4.0).await;
    let told = metrics(address);
    let expected = [
        ("prosampler_mini_batches_total", 18.0),
        ("prosampler_samples_total", run["samples"].as_f64().unwrap()),
        ("prosampler_similarity", f64::from(last.similarity.unwrap())),
        ("prosampler_staleness", last.staleness.unwrap() as f64),
        ("prosampler_graph_version", 2.0),
        ("prosampler_model_version", 2.0),
        ("prosampler_prefetch", 4.0),
        ("prosampler_refused_total{guard=\"similar\"}", counts.walks.refused_similar as f64),
        ("prosampler_walks_total{event=\"moves\"}", counts.walks.moves as f64),
        ("prosampler_refreshes_total{ending=\"published\"}", 1.0),
        ("prosampler_refreshes_total{ending=\"failed\"}", 0.0),
        ("prosampler_refresh_seconds_total{stage=\"graph\"}", took.graph),
        ("prosampler_skipped_samples", 1.0),
        ("prosampler_data_set_samples", SAMPLES as f64),
    ];
    for (name, value) in expected {
        assert_eq!(told.get(name), Some(&value), "{name} of {told:?}");
    }
}

/// The page of docs that lists names has all of them and no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_names_are_those_of_the_docs() {
    let mut stream = watched(TestEncoder::new(SAMPLES), GuardsConfig::default()).start().await.unwrap();
    take(&mut stream, 2).await;
    let told = metrics(stream.metrics_address().unwrap());
    let mut names: BTreeSet<_> = told.keys().map(|name| name.split('{').next().unwrap().to_owned()).collect();
    // Told only while something is made.
    names.insert("prosampler_progress_ratio".into());
    let docs = std::fs::read_to_string(path("docs/metrics.md")).unwrap();
    let rows = docs.lines().filter(|line| line.starts_with("| `prosampler_"));
    let cells = rows.map(|line| line.split('|').nth(1).unwrap());
    let listed = cells.flat_map(|cell| cell.split('`').filter(|word| word.starts_with("prosampler_")));
    assert_eq!(names, listed.map(str::to_owned).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_watched_while_it_embeds() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = Arc::new(Barrier::new(2));
    let waits = gate.clone();
    let encoder = TestEncoder::new(SAMPLES).before_each_call(move |call| {
        if call == 1 {
            waits.wait();
        }
    });
    let starting = tokio::spawn(at(port, encoder).start());
    until("it listens", || TcpStream::connect(port).is_ok()).await;
    until("it embeds", || status(port)["progress"]["stage"] == "embedding").await;
    let told = status(port);
    assert_eq!((&told["run"], &told["progress"]["total"]), (&Value::Null, &SAMPLES.into()));
    assert_eq!(metrics(port).get("prosampler_progress_ratio{stage=\"embedding\"}"), Some(&0.0));
    gate.wait();
    let stream = starting.await.unwrap().unwrap();
    assert_eq!(status(port)["run"]["data_set_samples"], SAMPLES);
    drop(stream);
    until("it listens no more", || TcpStream::connect(port).is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = at(address, TestEncoder::new(SAMPLES)).start().await.unwrap_err().to_string();
    assert_says(&error, &[&address.to_string(), "metrics.address", "a free port"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_started_again_has_its_address() {
    let mut address = "127.0.0.1:0".parse().unwrap();
    for _ in 0..20 {
        let stream = at(address, TestEncoder::new(SAMPLES)).start().await.unwrap();
        address = stream.metrics_address().unwrap();
    }
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let error = |setting: &str| PipelineConfig::from_settings(&[setting.to_owned()]).unwrap_err().to_string();
    assert_says(&error("metrics.address=9100"), &["metrics.address"]);
    assert_says(&error("metrics.address='localhost'"), &["`localhost` is no address with a port", "127.0.0.1:9100"]);
    let settings = ["metrics.address='127.0.0.1:65535'", "stream.world_size=4", "stream.rank=2"].map(str::to_owned);
    let error = PipelineConfig::from_settings(&settings).unwrap_err().to_string();
    assert_says(&error, &["metrics.address", "leaves rank 2 without a port"]);
}

/// The page and all that it asks for come from the run itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_other_host() {
    let stream = watched(TestEncoder::new(SAMPLES), GuardsConfig::default()).start().await.unwrap();
    let address = stream.metrics_address().unwrap();
    let (head, page) = get(address, "/");
    assert!(head.contains("text/html"), "{head}");
    assert!(!page.contains("://"), "{page}");
    let files = ["src=\"", "href=\""].iter().flat_map(|name| page.split(name).skip(1));
    let files: BTreeSet<_> = files.map(|rest| rest.split('"').next().unwrap()).filter(|f| *f != "data:,").collect();
    assert_eq!(files, BTreeSet::from(["live.js", "metrics", "status", "style.css", "uplot.css", "uplot.js"]));
    for file in files {
        assert!(!get(address, &format!("/{file}")).1.is_empty());
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_command_says_where_to_look() {
    let dir = support::command::pipeline("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |metrics: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prosampler"));
        command.current_dir(dir.path()).args(["run", "p.toml", "--metrics", metrics]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = run(&address);
    assert_eq!(status, Some(8), "{said}");
    assert_says(&said, &[&format!("http://{address}/ shows how the run goes"), "a free port"]);
    let (status, said) = run("9100");
    assert_eq!(status, Some(2), "{said}");
    assert_says(&said, &["write an address with a port, such as 127.0.0.1:9100"]);
    let (status, said) = run("127.0.0.1:0");
    assert_eq!(status, Some(0), "{said}");
}
