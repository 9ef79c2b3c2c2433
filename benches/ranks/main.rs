//! What ranks share and what serving costs: how much sooner two processes have their first mini-batch than one, what
//! memory a further process takes, and rows a second over Arrow Flight against in process, pyarrow, MosaicML Streaming
//! and PyTorch's `DataLoader`. Run it by `make bench-ranks`, which sets the peers up.
//!
//! `cargo bench --features serve --bench ranks -- [PART…] [--quick] [--rows N]`: without parts all of them; `--quick`
//! takes few rows and one round, to see that everything works; `--rows` takes so many rows in each part.
//!
//! Every rank and every server is a process of its own: this program, called with `--child`.

mod data;
mod encoder;
mod memory;
mod peers;
mod process;
mod serve;
mod speedup;

use std::path::PathBuf;

type Part = fn(&mut Bench);

const PARTS: [(&str, Part); 3] = [("speedup", speedup::run), ("memory", memory::run), ("serve", serve::run)];

/// What all parts work with.
struct Bench {
    /// The data, the caches and the peers' Python.
    scratch: PathBuf,
    /// Few rows and one round.
    quick: bool,
    rows: Option<usize>,
    /// Printed at the end.
    figures: Vec<String>,
}

impl Bench {
    /// The rows of a part, which are `few` in a quick run.
    fn rows(&self, all: usize, few: usize) -> usize {
        self.rows.unwrap_or(if self.quick { few } else { all })
    }

    fn rounds(&self, rounds: usize) -> usize {
        if self.quick { 1 } else { rounds }
    }

    /// The folder of everything that this benchmark writes.
    fn folder(&self) -> PathBuf {
        self.scratch.join("ranks")
    }

    fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(format!("figure {name} {value:.2} {unit}"));
    }
}

fn main() {
    if !cfg!(target_os = "linux") {
        println!("ranks: not on this system; it reads /proc");
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, part, rest @ ..] = &words[..]
        && first == process::CHILD
    {
        return child(part, rest);
    }
    let Some(scratch) = std::env::var_os("PROSAMPLER_BENCH").map(PathBuf::from) else {
        println!("ranks: peers are not set up; run `make bench-ranks`");
        return;
    };
    let mut bench = Bench { scratch, quick: false, rows: None, figures: Vec::new() };
    let mut names = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--quick" => bench.quick = true,
            "--rows" => bench.rows = Some(words.next().and_then(|n| n.parse().ok()).expect("--rows takes a number")),
            name if PARTS.iter().any(|part| part.0 == name) => names.push(word),
            name => panic!("{name}? there are {:?}, --quick and --rows N", PARTS.map(|part| part.0)),
        }
    }
    for (name, run) in PARTS {
        if names.is_empty() || names.iter().any(|n| n == name) {
            run(&mut bench);
            println!();
        }
    }
    bench.figures.iter().for_each(|figure| println!("{figure}"));
}

/// What a process of a part does.
fn child(part: &str, words: &[String]) {
    match part {
        "speedup" => speedup::child(words),
        "memory" => memory::child(words),
        "serve" => serve::child(words),
        _ => panic!("no part {part}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
