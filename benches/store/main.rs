//! Building a store and gathering mini-batches from it, against Parquet, Hugging Face datasets, Lance and MosaicML
//! Streaming on the same rows: an integer, a text of about 200 B and incompressible binary of 3 kB; B = 512. Run it by
//! `make bench-store`, which sets the peers up; `ARGS="--rows N"` takes fewer rows than a million, `ARGS=--checksums`
//! asks only what checksums cost, over the data of an earlier run.
//!
//! All take turns in rounds. A table gives median rates, the figures at the end medians of each round's ratio.

mod build;
mod checksums;
mod gather;
mod limit;
mod pages;
mod peers;

/// Rows of a mini-batch.
const BATCH_SIZE: usize = 512;

fn main() {
    if !cfg!(target_os = "linux") {
        println!("store: not on this system; it empties the page cache by Linux's means");
        return;
    }
    let (mut rows, mut checksums_alone) = (1_000_000, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--rows" => rows = words.next().and_then(|n| n.parse().ok()).expect("--rows takes a number"),
            "--checksums" => checksums_alone = true,
            "--limited" => return limit::child(std::path::Path::new(&words.next().expect("a folder"))),
            _ => panic!("{word}? there are --rows N and --checksums"),
        }
    }
    let Some(scratch) = std::env::var_os("PROSAMPLER_BENCH").map(std::path::PathBuf::from) else {
        println!("store: peers are not set up; run `make bench-store`");
        return;
    };
    let folder = scratch.join("store").join(rows.to_string());
    if checksums_alone {
        build::open(&folder, &build::cache(&folder), prosampler::config::Advice::Normal);
        checksums::run(&folder).iter().for_each(|figure| println!("{figure}"));
        return;
    }
    let mut peers = peers::Peers::start(&scratch, &folder, rows);
    println!("{rows} rows; rows/s, median and range of the rounds");
    let mut figures = build::run(&folder);
    figures.extend(gather::warm(&folder, &mut peers));
    figures.extend(gather::cold(&folder));
    drop(peers);
    figures.extend(checksums::run(&folder));
    figures.extend(limit::run(&folder));
    println!();
    figures.iter().for_each(|figure| println!("{figure}"));
}

/// Rows a second of one system, a number a round.
#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn push(&mut self, rows: usize, seconds: f64) {
        self.0.push(rows as f64 / seconds);
    }

    fn print(&self, name: &str) {
        let [low, high] = [f64::min, f64::max].map(|f| self.0.iter().copied().reduce(f).expect("a round"));
        println!("{name:<44} {:>10.0}   {low:.0} to {high:.0}", median(self.0.clone()));
    }

    /// The median over rounds of how many times as fast as the other's these are, as a figure.
    fn figure(&self, name: &str, other: &Self) -> String {
        let ratio = median(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect());
        format!("figure store.{name} {ratio:.2} ratio")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
