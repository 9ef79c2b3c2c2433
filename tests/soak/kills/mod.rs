//! Runs that are killed at any time and started again in the same way give together the uninterrupted run.

mod command;
mod trainer;

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rand::{RngExt, rngs::ChaCha8Rng};

use crate::outcome::Tally;
use crate::part::{self, Part};

/// Five rounds have 43 kills.
pub const PART: Part = Part { name: "kills", share: 30, goal: 120, slice: 2, round };

fn round(seed: u64, number: u64) -> Tally {
    if number % 5 == 1 { command::round(seed, number) } else { trainer::round(seed, number) }
}

#[test]
fn a_killed_run_goes_on_with_the_same_command_and_the_same_mini_batches() {
    part::slice(&PART);
}

/// Kills a run that takes about `whole` at a random moment, its start included. Returns its status if it ended by
/// itself.
fn kill(process: &mut Child, whole: Duration, random: &mut ChaCha8Rng) -> Option<ExitStatus> {
    let latest = whole.mul_f64([0.1, 0.4, 1.0][random.random_range(0..3)]);
    let until = Instant::now() + latest.mul_f64(random.random_range(0.0..1.0));
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= until {
            process.kill().unwrap();
            process.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
