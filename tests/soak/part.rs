//! Runs the parts in turns until all have reached their goals or the time is over, and notes where each was left.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::outcome::Tally;
use crate::support::{path, variable};

pub struct Part {
    pub name: &'static str,
    /// Its share of the time, relative to the other parts' shares.
    pub share: u32,
    /// The rounds of the whole run.
    pub goal: u64,
    /// The rounds when it runs among the other tests.
    pub slice: u64,
    /// Runs a round, given the run's seed and the round's number.
    pub round: fn(seed: u64, number: u64) -> Tally,
}

/// What has been done of a part.
#[derive(Default, Serialize, Deserialize)]
struct Done {
    part: String,
    rounds: u64,
    seconds: f64,
    tally: Tally,
}

/// Runs the first rounds of a part, which must all succeed.
pub fn slice(part: &Part) {
    let mut tally = Tally::default();
    for number in 0..part.slice {
        tally.add((part.round)(seed(), number));
    }
    println!("{}, seed {}\n{tally}", part.name, seed());
    tally.must_be_well();
}

/// Goes on with the run of this seed, for as long as `PROSAMPLER_SOAK_SECONDS` says.
pub fn whole(parts: &[&Part]) {
    let (seed, seconds) = (seed(), variable("PROSAMPLER_SOAK_SECONDS").unwrap_or(600));
    let file = path(&format!("target/soak/{seed}.json"));
    let mut done = begun(&file, parts);
    println!("seed {seed}, {seconds} s; {}", file.display());
    let (started, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut told = Instant::now();
    while started.elapsed() < limit {
        // The part that is furthest behind its share of the time comes next.
        let open = parts.iter().zip(&mut done).filter(|(part, done)| done.rounds < part.goal);
        let behind = |(part, done): &(&&Part, &mut Done)| done.seconds / f64::from(part.share);
        let Some((part, done_of_it)) = open.min_by(|a, b| behind(a).total_cmp(&behind(b))) else { break };
        let begun = Instant::now();
        let tally = (part.round)(seed, done_of_it.rounds);
        tally.faults().for_each(|fault| println!("FAULT {} round {}: {fault}", part.name, done_of_it.rounds));
        done_of_it.tally.add(tally);
        done_of_it.rounds += 1;
        done_of_it.seconds += begun.elapsed().as_secs_f64();
        keep(&file, &done);
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            let rounds: Vec<_> = parts.iter().zip(&done).map(|(p, d)| format!("{} {}", p.name, d.rounds)).collect();
            println!("{:>6} s: rounds of {}", started.elapsed().as_secs(), rounds.join(", "));
        }
    }
    let mut all = Tally::default();
    for (part, done) in parts.iter().zip(done) {
        println!("\n{}: {} of {} rounds, {:.0} s\n{}", part.name, done.rounds, part.goal, done.seconds, done.tally);
        all.add(done.tally);
    }
    all.must_be_well();
}

/// How far each part was, as the file of this run says.
fn begun(file: &PathBuf, parts: &[&Part]) -> Vec<Done> {
    let mut found: Vec<Done> = fs::read(file).map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default();
    let take = |part: &&Part| match found.iter().position(|done| done.part == part.name) {
        Some(place) => found.swap_remove(place),
        None => Done { part: part.name.to_owned(), ..Done::default() },
    };
    parts.iter().map(take).collect()
}

fn keep(file: &PathBuf, done: &[Done]) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap()).unwrap();
    new.write_all(&serde_json::to_vec_pretty(done).unwrap()).unwrap();
    new.persist(file).unwrap();
}

fn seed() -> u64 {
    variable("PROSAMPLER_SOAK_SEED").unwrap_or(1)
}
