//! Seconds to the first mini-batch for one rank and for two, each a process with one thread.
//!
//! The ranks share a cache folder that has their rows and no embeddings. The encoder is this project's own for texts,
//! the graph the paper's. Beside seconds there is the processor time of the rank that takes most: if it is much less,
//! the machine was busy with other work, and the ranks could not run side by side.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::TryStreamExt;
use prosampler::config::{ComputeConfig, EncodeConfig, StoreConfig, StreamConfig};
use prosampler::store::Store;
use prosampler::{FileSource, Pipeline, Result, Stage};
use tokio::runtime::Runtime;

use super::process::{Process, rank_words};
use super::{Bench, data, median};

const ROUNDS: usize = 3;
const WORLD_SIZES: [usize; 2] = [1, 2];
const COLUMN: &str = "definition";

pub fn run(bench: &mut Bench) {
    let rows = bench.rows(data::TEXTS, 32_768).min(data::TEXTS);
    let file = data::texts(&bench.folder(), rows);
    let cache = bench.folder().join("texts");
    println!("speedup: seconds to the first mini-batch, {rows} texts, one thread a rank");
    let mut seconds = WORLD_SIZES.map(|_| Vec::new());
    let mut processor = WORLD_SIZES.map(|_| Vec::new());
    for _ in 0..bench.rounds(ROUNDS) {
        for (place, &world_size) in WORLD_SIZES.iter().enumerate() {
            store_rows(&file, &cache);
            let start = first_mini_batch(&file, &cache, world_size);
            seconds[place].push(start.seconds);
            processor[place].push(start.processor_seconds);
        }
    }
    data::remove(&cache);
    let [seconds, processor] = [seconds, processor].map(|values| {
        let [one, two] = values.map(median);
        one / two
    });
    println!("  by processor time {processor:.2} times as fast");
    bench.figure("ranks.speedup", seconds, "ratio");
}

/// Leaves nothing in the cache folder but the rows.
fn store_rows(file: &Path, cache: &Path) {
    data::remove(cache);
    let config = StoreConfig { cache_dir: Some(cache.into()), ..StoreConfig::default() };
    let store = async {
        let source = FileSource::open(file.to_str().expect("a path in UTF-8")).await?;
        Store::build(&source, &[COLUMN.into()], &config, &mut |_| {}).await
    };
    Runtime::new().expect("runtime").block_on(store).expect("store");
}

/// Starts so many ranks, and waits until all of them have a mini-batch.
fn first_mini_batch(file: &Path, cache: &Path, world_size: usize) -> Start {
    let begun = Instant::now();
    let start = |rank| Process::rank("speedup", file, cache, rank, world_size);
    let mut ranks: Vec<_> = (0..world_size).map(start).collect();
    let said: Vec<[f64; 2]> = ranks.iter_mut().map(Process::numbers).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let most = |place: usize| said.iter().map(|numbers| numbers[place]).fold(0.0, f64::max);
    let (embedded, processor_seconds) = (most(0), most(1));
    println!(
        "  W = {world_size}   {seconds:>6.1} s, {processor_seconds:.1} s of processor time, \
         all samples embedded after {embedded:.1} s"
    );
    Start { seconds, processor_seconds }
}

/// What the slowest rank needs.
struct Start {
    /// From the start of its process to its first mini-batch.
    seconds: f64,
    processor_seconds: f64,
}

/// A rank, which prints after how many seconds all samples were embedded, and its processor time up to the first
/// mini-batch.
pub fn child(words: &[String]) {
    let begun = Instant::now();
    let (file, cache, rank, world_size) = rank_words(words);
    let embedded = Arc::new(OnceLock::new());
    let noted = embedded.clone();
    let first = async {
        let encode = EncodeConfig {
            model: Some("data/models/gloss-encoder/model.onnx".into()),
            column: Some(COLUMN.into()),
            max_tokens: 64,
            ..EncodeConfig::default()
        };
        let mut stream = Pipeline::builder()
            .source(FileSource::open(file).await?)
            .columns([COLUMN])
            .store(StoreConfig { cache_dir: Some(cache.into()), ..StoreConfig::default() })
            .encode(encode)
            .stream(StreamConfig { rank, world_size, ..StreamConfig::default() })
            .compute(ComputeConfig { threads: 1 })
            .on_progress(move |progress| {
                if progress.stage == Stage::Graph {
                    noted.get_or_init(|| begun.elapsed());
                }
            })
            .start()
            .await?;
        stream.try_next().await?.expect("a mini-batch");
        println!("{} {}", embedded.get().expect("a graph").as_secs_f64(), processor_seconds());
        Ok(())
    };
    let first: Result<()> = Runtime::new().expect("runtime").block_on(first);
    first.expect("a mini-batch");
}

/// The processor time of this process.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    // The program's name, in parentheses, may hold spaces. Ticks in user mode and in the kernel are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks"));
    ticks.sum::<f64>() / TICKS_A_SECOND
}

/// What Linux tells programs in, on all architectures of today.
const TICKS_A_SECOND: f64 = 100.0;
