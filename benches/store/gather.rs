//! Uniformly random mini-batches, warm and cold, on one thread.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use prosampler::SampleId;
use prosampler::config::Advice;
use prosampler::store::Store;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::peers::Peers;
use super::{BATCH_SIZE, Rates, build, pages};

const ROUNDS: usize = 9;

/// Of a round.
const MINI_BATCHES: usize = 200;

/// Name, the peers' name for it, its figure and its mini-batches, fewer where they take long.
const PEERS: [(&str, &str, Option<&str>, usize); 4] = [
    ("HF datasets, arrow, rows copied together", "hf", Some("vs_hf"), MINI_BATCHES),
    ("HF datasets, arrow, slices of the file", "hf-slices", None, MINI_BATCHES),
    ("Lance, take", "lance", Some("vs_lance"), 20),
    ("MosaicML Streaming", "mosaicml", Some("vs_mosaicml"), 20),
];

/// All files are in memory, and so are the page tables of what is mapped.
pub fn warm(folder: &Path, peers: &mut Peers) -> Vec<String> {
    let store = build::open(folder, &build::cache(folder), Advice::Normal);
    pages::load(folder);
    gather(&store, 10 * MINI_BATCHES, 0);
    for (_, peer, _, mini_batches) in PEERS {
        peers.run(peer, 10 * mini_batches, 0);
    }

    let mut ours = Rates::default();
    let mut theirs = PEERS.map(|_| Rates::default());
    for seed in 1..=ROUNDS as u64 {
        ours.push(MINI_BATCHES * BATCH_SIZE, gather(&store, MINI_BATCHES, seed));
        for ((_, peer, _, mini_batches), rates) in PEERS.iter().zip(&mut theirs) {
            rates.push(mini_batches * BATCH_SIZE, peers.run(peer, *mini_batches, seed));
        }
    }
    println!("warm");
    ours.print("  prosampler, gather");
    let mut figures = Vec::new();
    for ((name, _, figure, _), rates) in PEERS.iter().zip(&theirs) {
        rates.print(&format!("  {name}"));
        figures.extend(figure.map(|figure| ours.figure(&format!("gather_warm.{figure}"), rates)));
    }
    figures
}

/// Nothing of the file is in memory when a mini-batch begins, which is how nearly every mini-batch finds data many
/// times as large as memory. Read-ahead soon has a small file in memory whole, so the page cache is emptied each time.
pub fn cold(folder: &Path) -> Vec<String> {
    const ROUNDS: usize = 5;
    const MINI_BATCHES: u64 = 3;
    let cache = build::cache(folder);
    let stores = [Advice::Random, Advice::Normal].map(|advice| build::open(folder, &cache, advice));
    let file = build::cached_file(&cache);
    let mut rates = <[Rates; 2]>::default();
    for round in 0..ROUNDS as u64 {
        for (store, rates) in stores.iter().zip(&mut rates) {
            let cold = |seed| {
                pages::evict(&file);
                gather(store, 1, seed)
            };
            let seconds = (0..MINI_BATCHES).map(|i| cold(round * MINI_BATCHES + i)).sum();
            rates.push(MINI_BATCHES as usize * BATCH_SIZE, seconds);
        }
    }
    println!("cold");
    rates[0].print("  prosampler, advice = random");
    rates[1].print("  prosampler, advice = normal");
    vec![rates[0].figure("gather_cold.vs_default_advice", &rates[1])]
}

/// Seconds for so many mini-batches.
pub fn gather(store: &Store, mini_batches: usize, seed: u64) -> f64 {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let rows = store.len();
    let mut id = || SampleId::new(generator.random_range(0..rows));
    let drawn: Vec<Vec<_>> = (0..mini_batches).map(|_| (0..BATCH_SIZE).map(|_| id()).collect()).collect();
    let begun = Instant::now();
    for ids in &drawn {
        black_box(store.gather(ids).expect("mini-batch"));
    }
    begun.elapsed().as_secs_f64()
}
