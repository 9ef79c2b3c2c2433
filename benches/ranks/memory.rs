//! What memory a further rank takes on a host, for a million vectors of 384 numbers.
//!
//! A page that several processes have mapped counts in the proportional set size (PSS) of each by its share, so the
//! sum over the ranks is what all of them take. Nothing is in the cache folder when the ranks start.

use std::fs;
use std::path::Path;

use futures::TryStreamExt;
use prosampler::config::{ComputeConfig, StoreConfig, StreamConfig};
use prosampler::{FileSource, MiniBatchStream, Pipeline, Result};
use tokio::runtime::Runtime;

use super::encoder::NumberEncoder;
use super::process::{Process, rank_words, wait_for_line};
use super::{Bench, data};

const DIMENSION: usize = 384;
const WORLD_SIZES: [usize; 3] = [1, 2, 4];
/// Enough to have touched most pages of a graph that is mapped.
const MINI_BATCHES: usize = 1000;

pub fn run(bench: &mut Bench) {
    let rows = bench.rows(1_000_000, 100_000);
    let file = data::numbers(&bench.folder(), rows);
    let cache = bench.folder().join("numbers");
    println!("memory: MB, {rows} vectors of {DIMENSION} numbers, after {MINI_BATCHES} mini-batches");
    println!("  {:<8}{:<8}{:>9}{:>9}{:>9}{:>9}", "ranks", "rank", "PSS", "private", "RSS", "peak");
    let sums = WORLD_SIZES.map(|world_size| {
        data::remove(&cache);
        measure(&file, &cache, world_size)
    });
    data::remove(&cache);
    let share = |further: f64, world_size: f64| 100.0 * (further - sums[0]) / (world_size - 1.0) / sums[0];
    println!("  each of three further ranks takes {:.1} % of the first", share(sums[2], 4.0));
    bench.figure("ranks.memory_share", share(sums[1], 2.0), "percent");
}

/// The sum of PSS over so many ranks, all of which are alive meanwhile.
fn measure(file: &Path, cache: &Path, world_size: usize) -> f64 {
    let start = |rank| Process::rank("memory", file, cache, rank, world_size);
    let mut ranks: Vec<_> = (0..world_size).map(start).collect();
    ranks.iter_mut().for_each(|rank| assert_eq!(rank.line(), "ready"));
    ranks.iter_mut().for_each(|rank| rank.tell("measure"));
    let mut sum = 0.0;
    for (number, rank) in ranks.iter_mut().enumerate() {
        let [pss, private, rss, peak] = rank.numbers();
        println!("  {world_size:<8}{number:<8}{pss:>9.0}{private:>9.0}{rss:>9.0}{peak:>9.0}");
        sum += pss;
    }
    println!("  {world_size:<8}{:<8}{sum:>9.0}", "sum");
    sum
}

/// A rank, which prints its PSS, private memory, RSS and most RSS in MB when it is told to.
pub fn child(words: &[String]) {
    let (file, cache, rank, world_size) = rank_words(words);
    let runtime = Runtime::new().expect("runtime");
    let stream = runtime.block_on(take_some(file, cache, rank, world_size)).expect("mini-batches");
    println!("ready");
    wait_for_line();
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let private = megabytes(&rollup, "Private_Clean:") + megabytes(&rollup, "Private_Dirty:");
    let [pss, rss] = ["Pss:", "Rss:"].map(|name| megabytes(&rollup, name));
    println!("{pss} {private} {rss} {}", megabytes(&status, "VmHWM:"));
    // All ranks are measured before the first ends.
    wait_for_line();
    drop(stream);
}

async fn take_some(file: &str, cache: &Path, rank: usize, world_size: usize) -> Result<MiniBatchStream> {
    let mut stream = Pipeline::builder()
        .source(FileSource::open(file).await?)
        .store(StoreConfig { cache_dir: Some(cache.into()), ..StoreConfig::default() })
        .encoder(NumberEncoder::new(DIMENSION))
        .stream(StreamConfig { rank, world_size, epochs: u64::MAX / 1_000_000, ..StreamConfig::default() })
        .compute(ComputeConfig { threads: 1 })
        .start()
        .await?;
    for _ in 0..MINI_BATCHES {
        stream.try_next().await?.expect("no end");
    }
    Ok(stream)
}

/// A number of kB in what the system says, in MB.
fn megabytes(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("its line");
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("kB");
    kilobytes * 1024.0 / 1e6
}
