//! What checksums cost: while a cache is built, when it is opened and checked, and while rows are gathered.

use std::fs;
use std::hash::Hasher;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use prosampler::config::{Advice, StoreConfig, Verify};
use prosampler::store::Store;
use twox_hash::XxHash3_64;

use super::{build, gather, median, pages};

const ROUNDS: usize = 5;

/// The cache is there and in memory.
pub fn run(folder: &Path) -> Vec<String> {
    let cache = build::cache(folder);
    pages::load(&build::cached_file(&cache));
    let bytes = fs::metadata(build::cached_file(&cache)).expect("cached file").len() as f64;
    let store = |verify| {
        let config = StoreConfig { cache_dir: Some(cache.clone()), advice: Advice::Normal, verify };
        let begun = Instant::now();
        let store = build::open_with(folder, config);
        (begun.elapsed().as_secs_f64(), store)
    };
    let [mut never, mut first_use, mut open] = <[Vec<f64>; 3]>::default();
    let [mut plain, mut checked] = <[Vec<f64>; 2]>::default();
    let (mut building, mut summing) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u64 {
        let (seconds, unchecked) = store(Verify::Never);
        never.push(seconds);
        let (seconds, at_first_use) = store(Verify::FirstUse);
        first_use.push(seconds);
        open.push(store(Verify::Open).0);
        // Each row once, so that all is checked, and all pages are there.
        let warm = |store: &Store| {
            for item in store.record_batches() {
                black_box(item.expect("sound rows"));
            }
        };
        warm(&unchecked);
        warm(&at_first_use);
        gather::gather(&unchecked, 400, 100 + round);
        gather::gather(&at_first_use, 400, 100 + round);
        plain.push(gather::gather(&unchecked, 200, round));
        checked.push(gather::gather(&at_first_use, 200, round));

        let written = fs::read(build::cached_file(&cache)).expect("cached file");
        let begun = Instant::now();
        let mut sum = XxHash3_64::new();
        // In pieces, as a writer passes them on.
        written.chunks(1 << 20).for_each(|piece| sum.write(piece));
        black_box(sum.finish());
        summing.push(begun.elapsed().as_secs_f64());
        drop(written);
    }
    for _ in 0..3 {
        fs::remove_dir_all(&cache).expect("a cache");
        pages::load(&build::parquet(folder));
        let begun = Instant::now();
        build::open(folder, &cache, Advice::Auto);
        building.push(begun.elapsed().as_secs_f64());
    }
    let [never, first_use, open, plain, checked] = [never, first_use, open, plain, checked].map(median);
    let (building, summing) = (median(building), median(summing));
    println!("checksums, {:.1} GB in memory", bytes / 1e9);
    println!("  opened, never checked / at first use / now     {never:.3} / {first_use:.3} / {open:.3} s");
    println!("  checked on one thread                          {:.1} GB/s", bytes / 1e9 / (open - never).max(1e-9));
    println!("  added up by itself / built                      {summing:.2} / {building:.2} s: at most this share");
    vec![
        format!("figure store.checksum_cost {:.2} percent", 100.0 * summing / building),
        format!("figure store.checksum_cost_of_gather {:.2} percent", 100.0 * (checked / plain - 1.0)),
        format!("figure store.verify {:.2} GB/s", bytes / 1e9 / (open - never).max(1e-9)),
    ]
}
