//! Graph building against its peers, two threads each, in one run. `make bench-graph` sets the peers up.
//!
//! `cargo bench --bench graph -- [SECTION…] [--all] [--peers TEXT] [--rows N]`: without sections those that take
//! minutes, with `--all` the slow sections and the slow peers too; `--peers` leaves out the kNN libraries whose names
//! lack the text; `--rows` cuts the data, to see that everything works. Times exclude reading, writing, compiling and
//! starting Python. A peer and ours take turns and medians are compared; what takes half a minute or more runs once.

mod data;
mod drift;
mod kernel;
mod knn;
mod measure;
mod peak;
mod peers;
mod refine;
mod sampled;

use std::path::PathBuf;

use prosampler::ComputePool;

use self::peers::Peers;

const THREADS: usize = 2;
const SEED: u64 = 7;

type Section = fn(&mut Bench);

/// Name, whether it takes more than minutes, and what it does.
const SECTIONS: [(&str, bool, Section); 7] = [
    ("peak", false, peak::run),
    ("kernel", false, kernel::run),
    ("sampled", false, sampled::run),
    ("knn", false, knn::sentences),
    ("refine", false, refine::sentences),
    ("million", true, knn::million),
    ("refine_million", true, refine::million),
];

struct Bench {
    pool: ComputePool,
    folder: PathBuf,
    peers: Peers,
    /// The slow peers too.
    all: bool,
    /// What the names of kNN libraries must have in them.
    only: String,
    rows: Option<usize>,
    /// Printed at the end.
    figures: Vec<String>,
}

impl Bench {
    fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(format!("figure graph.{name} {value:.3} {unit}"));
    }
}

fn main() {
    let Some(folder) = std::env::var_os("PROSAMPLER_BENCH").map(PathBuf::from) else {
        println!("graph: peers are not set up; run `make bench-graph`");
        return;
    };
    let (mut all, mut only, mut rows, mut names) = (false, String::new(), None, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--all" => all = true,
            "--peers" => only = words.next().expect("--peers takes a text"),
            "--rows" => rows = Some(words.next().and_then(|n| n.parse().ok()).expect("--rows takes a number")),
            name if SECTIONS.iter().any(|section| section.0 == name) => names.push(word),
            name => panic!("no section {name}; there are {:?}", SECTIONS.map(|section| section.0)),
        }
    }
    let (pool, peers) = (ComputePool::new(THREADS).expect("pool"), Peers::start(&folder));
    let mut bench = Bench { pool, folder, peers, all, only, rows, figures: Vec::new() };
    for (name, slow, run) in SECTIONS {
        if names.iter().any(|n| n == name) || names.is_empty() && (all || !slow) {
            println!("\n{name}");
            run(&mut bench);
        }
    }
    println!();
    bench.figures.iter().for_each(|figure| println!("{figure}"));
}
