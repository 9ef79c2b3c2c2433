//! Seconds to the first mini-batch for one rank and for two, each a process with one thread.
//!
//! The ranks share a cache folder that has their rows and no embeddings. The encoder is this project's own for texts,
//! the graph the paper's.

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
    let rows = bench.rows(117_659, 32_768);
    let file = data::texts(&bench.folder(), rows);
    let cache = bench.folder().join("texts");
    println!("speedup: seconds to the first mini-batch, {rows} texts, one thread a rank");
    let mut seconds = WORLD_SIZES.map(|_| Vec::new());
    for _ in 0..bench.rounds(ROUNDS) {
        for (world_size, seconds) in WORLD_SIZES.into_iter().zip(&mut seconds) {
            store_rows(&file, &cache);
            seconds.push(first_mini_batch(&file, &cache, world_size));
        }
    }
    data::remove(&cache);
    let [one, two] = seconds.map(median);
    bench.figure("ranks.speedup", one / two, "ratio");
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

/// Seconds from the start of so many ranks until all of them have a mini-batch.
fn first_mini_batch(file: &Path, cache: &Path, world_size: usize) -> f64 {
    let begun = Instant::now();
    let start = |rank| Process::rank("speedup", file, cache, rank, world_size);
    let mut ranks: Vec<_> = (0..world_size).map(start).collect();
    let embedded: Vec<[f64; 1]> = ranks.iter_mut().map(Process::numbers).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let embedded = embedded.iter().map(|[seconds]| *seconds).fold(0.0, f64::max);
    println!("  W = {world_size}   {seconds:>6.1} s, all samples embedded after {embedded:.1} s");
    seconds
}

/// A rank, which prints after how many seconds all samples were embedded, once it has a mini-batch.
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
        println!("{}", embedded.get().expect("a graph").as_secs_f64());
        Ok(())
    };
    let first: Result<()> = Runtime::new().expect("runtime").block_on(first);
    first.expect("a mini-batch");
}
