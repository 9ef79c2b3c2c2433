//! Embedding speed on one model and the same texts, two threads each: ours, raw `Session::run` over the same batches,
//! Python onnxruntime and sentence-transformers. Run it by `make bench-encode`, which sets the peers up.
//!
//! Criterion measures each on its own; the figures come from rounds in which all four take turns.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ort::session::Session;
use ort::value::Tensor;
use prosampler::ComputePool;
use prosampler::arrow::array::{ArrayRef, RecordBatch, StringArray};
use prosampler::config::EncodeConfig;
use prosampler::encode::{Encoder, OnnxEncoder, runtime::Runtime};
use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

const THREADS: usize = 2;
const BATCH_ROWS: usize = 8;
const ROUNDS: usize = 9;

fn main() {
    let Some(folder) = std::env::var_os("PROSAMPLER_BENCH").map(PathBuf::from) else {
        println!("encode: peers are not set up; run `make bench-encode`");
        return;
    };
    let texts: Vec<String> =
        serde_json::from_slice(&std::fs::read(folder.join("texts.json")).expect("texts.json")).expect("texts");
    let config = EncodeConfig {
        model: Some(folder.join("model.onnx")),
        column: Some("text".into()),
        max_tokens: 128,
        sessions: THREADS,
        batch_rows: BATCH_ROWS,
        batch_tokens: 1 << 20,
        ..EncodeConfig::default()
    };
    let pool = ComputePool::new(THREADS).expect("pool");
    let ours = Ours::new(&config, &texts);
    let raw = Raw::new(&config, &texts);
    let mut peers = Peers::start(&folder);

    let vectors = ours.vectors(&pool);
    for (i, (a, b)) in vectors.iter().zip(peers.run("sentence-transformers").1).enumerate() {
        assert!((a - b).abs() < 1e-4, "component {i} is {a} here and {b} in sentence-transformers");
    }

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(texts.len() as u64));
    group.bench_function("prosampler", |b| b.iter(|| ours.run(&pool)));
    group.bench_function("session_run", |b| b.iter(|| raw.run(&pool)));
    for peer in ["onnxruntime", "sentence-transformers"] {
        let mut passes = |n: u64| (0..n).map(|_| peers.run(peer).0).sum::<Duration>();
        group.bench_function(peer, |b| b.iter_custom(&mut passes));
    }
    group.finish();

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        times[0].push(ours.run(&pool));
        times[1].push(raw.run(&pool));
        times[2].push(peers.run("onnxruntime").0);
        times[3].push(peers.run("sentence-transformers").0);
    }
    let median = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64()
    });
    let rate = |seconds: f64| texts.len() as f64 / seconds;
    println!("figure encode.samples_per_second {:.0} samples/s", rate(median[0]));
    println!("figure encode.vs_session_run {:.3} ratio", median[1] / median[0]);
    println!("figure encode.vs_python_onnxruntime {:.2} ratio", median[2] / median[0]);
    println!("figure encode.vs_sentence_transformers {:.2} ratio", median[3] / median[0]);
}

/// From texts to vectors, as the pipeline does it.
struct Ours {
    encoder: OnnxEncoder,
    rows: RecordBatch,
}

impl Ours {
    fn new(config: &EncodeConfig, texts: &[String]) -> Self {
        let encoder = OnnxEncoder::open(config).expect("encoder");
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        Self { encoder, rows: RecordBatch::try_from_iter([("text", column)]).expect("rows") }
    }

    fn run(&self, pool: &ComputePool) -> Duration {
        let begun = Instant::now();
        self.vectors(pool);
        begun.elapsed()
    }

    fn vectors(&self, pool: &ComputePool) -> Vec<f32> {
        let mut vectors = vec![0f32; self.rows.num_rows() * self.encoder.dimension()];
        pool.install(|| self.encoder.encode(&self.rows, &mut vectors)).expect("vectors");
        for vector in vectors.chunks_exact_mut(self.encoder.dimension()) {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vectors
    }
}

/// Nothing but `Session::run`, over the same batches, tokenised beforehand.
struct Raw {
    sessions: Vec<Mutex<Session>>,
    batches: Vec<(usize, Vec<i64>, Vec<i64>)>,
}

impl Raw {
    fn new(config: &EncodeConfig, texts: &[String]) -> Self {
        let model = config.model.as_ref().expect("model");
        let mut tokenizer = Tokenizer::from_file(model.with_file_name("tokenizer.json")).expect("tokenizer");
        let truncation = TruncationParams { max_length: config.max_tokens, ..TruncationParams::default() };
        tokenizer.with_padding(None).with_truncation(Some(truncation)).expect("truncation");
        let ids = |text: &String| -> Vec<i64> {
            tokenizer.encode_fast(text.as_str(), true).expect("tokens").get_ids().iter().map(|&i| i.into()).collect()
        };
        let mut tokens: Vec<_> = texts.iter().map(ids).collect();
        tokens.sort_by_key(|t| std::cmp::Reverse(t.len()));
        let batch = |batch: &[Vec<i64>]| {
            let longest = batch[0].len();
            let pad = |mut row: Vec<i64>| {
                row.resize(longest, 0);
                row
            };
            let mask = batch.iter().flat_map(|row| pad(vec![1; row.len()])).collect();
            (longest, batch.iter().flat_map(|row| pad(row.clone())).collect(), mask)
        };
        let runtime = Runtime::load(None).expect("ONNX Runtime");
        let session = || -> ort::Result<Session> {
            Session::builder(runtime.environment())?
                .with_intra_threads(1)?
                .with_intra_op_spinning(false)?
                .with_memory_pattern(false)?
                .commit_from_file(model)
        };
        Self {
            sessions: (0..THREADS).map(|_| Mutex::new(session().expect("session"))).collect(),
            batches: tokens.chunks(config.batch_rows).map(batch).collect(),
        }
    }

    fn run(&self, pool: &ComputePool) -> Duration {
        let begun = Instant::now();
        pool.install(|| {
            self.batches.par_iter().with_max_len(1).for_each(|(longest, ids, mask)| {
                let worker = rayon::current_thread_index().unwrap_or(0);
                let mut session = self.sessions[worker].lock().expect("session");
                let tensor = |values: &Vec<i64>| {
                    Tensor::from_array(([values.len() / longest, *longest], values.clone())).expect("tensor")
                };
                let types = tensor(&vec![0; ids.len()]);
                let inputs = ort::inputs![
                    "input_ids" => tensor(ids), "attention_mask" => tensor(mask), "token_type_ids" => types
                ];
                session.run(inputs).expect("run");
            });
        });
        begun.elapsed()
    }
}

/// A Python process that embeds when told to.
struct Peers {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peers {
    fn start(folder: &PathBuf) -> Self {
        let mut child = Command::new(folder.join("venv/bin/python"))
            .args(["benches/peers/encode.py", "serve"])
            .arg(folder)
            .env("PROSAMPLER_BENCH_THREADS", THREADS.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let stdin = child.stdin.take().expect("stdin");
        let mut peers = Self { stdin, stdout: BufReader::new(child.stdout.take().expect("stdout")), child };
        assert_eq!(peers.line(), "ready");
        peers
    }

    fn run(&mut self, peer: &str) -> (Duration, Vec<f32>) {
        writeln!(self.stdin, "{peer}").expect("peer");
        let answer: Value = serde_json::from_str(&self.line()).expect("answer");
        let first = answer["first"].as_array().expect("first").iter().map(|x| x.as_f64().expect("number") as f32);
        (Duration::from_secs_f64(answer["seconds"].as_f64().expect("seconds")), first.collect())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("line");
        assert!(!line.is_empty(), "the peers died");
        line.trim().to_owned()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
