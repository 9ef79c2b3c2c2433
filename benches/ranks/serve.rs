//! Rows a second over Arrow Flight, against in process, and against how others read the same rows: B = 256, a number
//! and 3 kB of binary a row, nobody trains between mini-batches.
//!
//! Each takes a number of mini-batches in its turn, round by round. The peers draw rows at random too, MosaicML
//! Streaming from its own shards, and PyTorch's `DataLoader` from a memory-mapped Arrow file.

use std::ffi::OsStr;
use std::path::Path;
use std::thread;
use std::time::Instant;

use futures::{Stream, TryStreamExt};
use prosampler::config::{StoreConfig, StreamConfig, WalkConfig};
use prosampler::serve::{RemoteOptions, RemoteStream, ServeOptions, Server};
use prosampler::{FileSource, MiniBatch, Pipeline, PipelineBuilder, Result};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::encoder::NumberEncoder;
use super::process::{Process, wait_for_line};
use super::{Bench, data, median, peers};

const BATCH_SIZE: usize = 256;
const DIMENSION: usize = 16;
const ROUNDS: usize = 5;

/// Name, the peers' name for it, its figure, and its mini-batches, fewer where they take long.
const PEERS: [(&str, &str, &str, usize); 4] = [
    ("pyarrow, DoGet", "pyarrow", "serve.vs_pyarrow", 1000),
    ("MosaicML Streaming, 2 workers", "mosaicml", "serve.vs_mosaicml", 100),
    ("torch DataLoader, 2 workers, row by row", "torch-rows", "serve.vs_torch_rows", 100),
    ("torch DataLoader, 2 workers, rows joined", "torch", "serve.vs_torch", 200),
];

/// Mini-batches of a round, over Flight and in process.
const MINI_BATCHES: usize = 1000;

pub fn run(bench: &mut Bench) {
    // Only whole mini-batches.
    let rows = bench.rows(400 * BATCH_SIZE, 80 * BATCH_SIZE) / BATCH_SIZE * BATCH_SIZE;
    let folder = bench.folder();
    let file = data::binaries(&folder, rows);
    let cache = folder.join("binaries");
    println!("serve: rows/s, {rows} rows of 3 kB, {BATCH_SIZE} a mini-batch");

    // A run gives its mini-batches to one client, so pyarrow has a server of its own.
    let [(_ours, uri), (_theirs, their_uri)] = [(); 2].map(|()| serve(&file, &cache));
    let runtime = Runtime::new().expect("runtime");
    let local = runtime.block_on(async { pipeline(&file, &cache).await?.start().await });
    let mut local = local.expect("a pipeline");
    let mut remote = runtime.block_on(RemoteStream::connect(&uri, RemoteOptions::default())).expect("a server");
    let mut others = PEERS.map(|(_, peer, ..)| peers::start(&bench.scratch, peer, &file, &their_uri));

    let mut in_process = Rates::default();
    let mut over_flight = Rates::default();
    let mut theirs = PEERS.map(|_| Rates::default());
    let share = if bench.quick { 5 } else { 1 };
    for _ in 0..bench.rounds(ROUNDS) {
        let mini_batches = MINI_BATCHES / share;
        in_process.push(mini_batches, runtime.block_on(take(&mut local, mini_batches)));
        over_flight.push(mini_batches, runtime.block_on(take(&mut remote, mini_batches)));
        for ((other, rates), (.., mini_batches)) in others.iter_mut().zip(&mut theirs).zip(PEERS) {
            let mini_batches = mini_batches / share;
            if let Ok(process) = other {
                rates.push(mini_batches, peers::take(process, mini_batches));
            }
        }
    }
    in_process.print("in process");
    over_flight.print("over Flight");
    bench.figure("serve.vs_in_process", over_flight.ratio(&in_process), "ratio");
    for ((other, rates), (name, _, figure, _)) in others.iter().zip(&theirs).zip(PEERS) {
        match other {
            Ok(_) => {
                rates.print(name);
                bench.figure(figure, over_flight.ratio(rates), "ratio");
            }
            Err(reason) => println!("  {name}: left out, {reason}"),
        }
    }
    data::remove(&cache);
}

/// A server in its own process, and its uri.
fn serve(file: &Path, cache: &Path) -> (Process, String) {
    let mut process = Process::part("serve", [file, cache].map(AsRef::<OsStr>::as_ref));
    let uri = process.line();
    (process, uri)
}

/// A server, which prints its uri and ends with its standard input.
pub fn child(words: &[String]) {
    let [file, cache] = words else { panic!("a server has two arguments and not {words:?}") };
    let (end, ended) = oneshot::channel::<()>();
    thread::spawn(|| {
        wait_for_line();
        drop(end);
    });
    let serve = async {
        let source = FileSource::open(file).await?;
        let cache = cache.clone();
        let mut options = ServeOptions::default();
        options.address.set_port(0);
        let server = Server::start(move || pipeline_of(source.clone(), Path::new(&cache)), options).await?;
        println!("http://{}", server.address());
        server.run(async { drop(ended.await) }).await
    };
    Runtime::new().expect("runtime").block_on(serve).expect("a server");
}

async fn pipeline(file: &Path, cache: &Path) -> Result<PipelineBuilder> {
    let source = FileSource::open(file.to_str().expect("a path in UTF-8")).await?;
    Ok(pipeline_of(source, cache))
}

fn pipeline_of(source: FileSource, cache: &Path) -> PipelineBuilder {
    Pipeline::builder()
        .source(source)
        .store(StoreConfig { cache_dir: Some(cache.into()), ..StoreConfig::default() })
        .encoder(NumberEncoder::new(DIMENSION))
        .walk(WalkConfig { batch_size: BATCH_SIZE, ..WalkConfig::default() })
        .stream(StreamConfig { epochs: u64::MAX / 1_000_000, ..StreamConfig::default() })
}

/// Seconds for so many mini-batches.
async fn take(stream: &mut (impl Stream<Item = Result<MiniBatch>> + Unpin), mini_batches: usize) -> f64 {
    let begun = Instant::now();
    for _ in 0..mini_batches {
        let mini_batch = stream.try_next().await.expect("a mini-batch").expect("no end");
        assert_eq!(mini_batch.rows.num_rows(), BATCH_SIZE);
    }
    begun.elapsed().as_secs_f64()
}

/// Rows a second, a number a round.
#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn push(&mut self, mini_batches: usize, seconds: f64) {
        self.0.push((mini_batches * BATCH_SIZE) as f64 / seconds);
    }

    fn print(&self, name: &str) {
        let [low, high] = [f64::min, f64::max].map(|f| self.0.iter().copied().reduce(f).expect("a round"));
        println!("  {name:<42} {:>10.0}   {low:.0} to {high:.0}", median(self.0.clone()));
    }

    /// The median over rounds of how many times as fast as the other's these are.
    fn ratio(&self, other: &Self) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}
