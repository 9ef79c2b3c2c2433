//! How long a trainer waits for its next mini-batch, while nothing else goes on and during a full refresh: a newer
//! model embeds N = 100,000 samples of d = 384 and the paper's graph is built (M = 1,000, K = 32), on two threads.
//! Prefetch 4, B = 256, 20 ms a step.
//!
//! The trainer sleeps through its step, as one does that waits for a GPU, or computes on one core, as one does on a
//! CPU. Idle stretches and refreshes take turns; the figures are those of the trainer that sleeps. Halfway through each
//! step it also receives from a plain channel that a task without work keeps full: what the scheduler alone takes.
//!
//! First, how fast mini-batches come where nobody trains: walked, gathered and passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::StreamExt;
use prosampler::arrow::array::{AsArray, RecordBatch, StringArray, UInt32Array};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{ComputeConfig, GraphConfig, StreamConfig, WalkConfig};
use prosampler::encode::Encoder;
use prosampler::source::MemorySource;
use prosampler::{MiniBatchStream, Pipeline, Result};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use tokio::sync::mpsc::Receiver;

const SAMPLES: usize = 100_000;
const DIMENSION: usize = 384;
const STEP: Duration = Duration::from_millis(20);
const PREFETCH: usize = 4;
const ROUNDS: usize = 3;
const EPOCHS: usize = 9;

#[tokio::main]
async fn main() -> Result<()> {
    let texts =
        StringArray::from_iter_values((0..SAMPLES).map(|i| format!("{i} {}", "a text of some length ".repeat(8))));
    let numbers = UInt32Array::from_iter_values(0..SAMPLES as u32);
    let rows =
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("text", Arc::new(texts) as _)]).expect("rows");
    let mut stream = Pipeline::builder()
        .source(MemorySource::new(vec![rows])?)
        .encoder(Model { columns: vec!["n".into()], version: 0, newest: Arc::default() })
        .graph(GraphConfig { candidates: 1000.into(), neighbors: Some(32), ..GraphConfig::default() })
        .walk(WalkConfig { batch_size: 256, ..WalkConfig::default() })
        .stream(StreamConfig { prefetch: PREFETCH, epochs: u64::MAX / 1_000_000, ..StreamConfig::default() })
        .compute(ComputeConfig { threads: 2 })
        .start()
        .await?;

    let mut rates = Vec::new();
    for _ in 0..EPOCHS {
        let begun = Instant::now();
        let mut samples = 0;
        while samples < SAMPLES {
            samples += stream.next().await.expect("no end")?.ids.len();
        }
        rates.push(samples as f64 / begun.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let rate = rates[EPOCHS / 2];
    println!("as fast as they come: {rate:.0} samples/s, {:.0} to {:.0}", rates[0], rates[EPOCHS - 1]);

    let (full, mut plain) = tokio::sync::mpsc::channel(PREFETCH);
    tokio::spawn(async move { while full.send(()).await.is_ok() {} });
    let mut figures = None;
    for (trainer, step) in [("computes", Step::Computes), ("sleeps", Step::Sleeps)] {
        let (mut idle, mut busy, mut seconds) = (Waits::default(), Waits::default(), Vec::new());
        for _ in 0..ROUNDS {
            train(&mut stream, &mut plain, step, &mut idle, |steps| steps < 250).await;
            let handle = stream.handle();
            let refresh = tokio::spawn(async move { handle.refresh_now().await });
            train(&mut stream, &mut plain, step, &mut busy, |_| !refresh.is_finished()).await;
            seconds.push(refresh.await.expect("a refresh")?.seconds.total());
        }
        seconds.sort_by(f64::total_cmp);
        println!("a trainer that {trainer}; a refresh takes {:.1} s", seconds[ROUNDS / 2]);
        for (name, waits) in [
            ("idle", &mut idle.stream),
            ("during a refresh", &mut busy.stream),
            ("plain channel, idle", &mut idle.plain),
            ("plain channel, during", &mut busy.plain),
        ] {
            waits.sort_unstable();
            println!(
                "  {name:<22}{:>6} steps   p50 {:>7.3} ms   p99 {:>7.3} ms   longest {:>7.3} ms   over 5 ms {}",
                waits.len(),
                ms(at(waits, 0.5)),
                ms(at(waits, 0.99)),
                ms(at(waits, 1.0)),
                waits.iter().filter(|wait| **wait > Duration::from_millis(5)).count(),
            );
        }
        figures = Some((idle, busy));
    }
    if let Some((idle, busy)) = figures {
        let p99 = |waits: &[Duration]| ms(at(waits, 0.99));
        println!("figure refresh.next_p99.vs_idle {:.2} ratio", p99(&busy.stream) / p99(&idle.stream));
        println!("figure refresh.next_p99.beyond_scheduler_ms {:.3} ms", p99(&busy.stream) - p99(&busy.plain));
        println!("figure refresh.longest_wait_ms {:.3} ms", ms(at(&busy.stream, 1.0)));
        println!("figure pipeline.samples_per_second {rate:.0} samples/s");
    }
    Ok(())
}

/// Sorted or not.
#[derive(Default)]
struct Waits {
    stream: Vec<Duration>,
    plain: Vec<Duration>,
}

#[derive(Clone, Copy)]
enum Step {
    Sleeps,
    Computes,
}

/// Takes mini-batches for as long as `go_on` says, and notes the wait for each.
async fn train(
    stream: &mut MiniBatchStream,
    plain: &mut Receiver<()>,
    step: Step,
    waits: &mut Waits,
    go_on: impl Fn(usize) -> bool,
) {
    let mut steps = 0;
    while go_on(steps) {
        let asked = Instant::now();
        let mini_batch = stream.next().await;
        waits.stream.push(asked.elapsed());
        mini_batch.expect("no end").expect("a mini-batch");
        steps += 1;
        step.half().await;
        let asked = Instant::now();
        plain.recv().await.expect("no end");
        waits.plain.push(asked.elapsed());
        step.half().await;
    }
}

impl Step {
    async fn half(self) {
        match self {
            Self::Sleeps => tokio::time::sleep(STEP / 2).await,
            Self::Computes => tokio::task::block_in_place(|| {
                let begun = Instant::now();
                while begun.elapsed() < STEP / 2 {
                    std::hint::spin_loop();
                }
            }),
        }
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Vectors in clusters, at some cost; and always a newer model.
struct Model {
    columns: Vec<String>,
    version: u64,
    newest: Arc<AtomicU64>,
}

impl Encoder for Model {
    fn name(&self) -> &str {
        "model"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let version = self.newest.fetch_add(1, Relaxed) + 1;
        Ok(Some(Arc::new(Self { columns: self.columns.clone(), version, newest: self.newest.clone() })))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
        numbers.par_iter().zip(vectors.par_chunks_exact_mut(DIMENSION)).for_each(|(&n, vector)| {
            let mut center = ChaCha8Rng::seed_from_u64(u64::from(n % 500));
            let mut own = ChaCha8Rng::seed_from_u64((u64::from(n) << 20) + self.version);
            // A model's time for a short text, or a part of it.
            for _ in 0..20 {
                vector.iter_mut().for_each(|x| *x = 0.5 * *x + own.random_range(-1.0..1.0f32));
            }
            vector.iter_mut().for_each(|x| *x += center.random_range(-1.0..1.0f32));
        });
        Ok(())
    }
}
