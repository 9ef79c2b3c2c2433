//! Random sequences of events in a run are compared with a simple model of what must come of them.

mod account;
mod calls;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::RngExt;

use self::world::World;
use crate::outcome::{Outcome, Tally};
use crate::part::{self, Part};
use crate::support::{random, runtime};

pub const PART: Part = Part { name: "state machine", share: 10, goal: 500, slice: 6, round };

/// What a trainer does, or what happens to it.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Take(u8),
    TakeToTheEndOfTheEpoch,
    Push(u8),
    NewModel,
    NewFile,
    /// The state is kept.
    Keep,
    /// All processes end; so many others go on from the state that was kept last, or begin.
    Kill(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u8..12).prop_map(Op::Take),
        2 => Just(Op::TakeToTheEndOfTheEpoch),
        3 => any::<u8>().prop_map(Op::Push),
        1 => Just(Op::NewModel),
        1 => Just(Op::NewFile),
        4 => Just(Op::Keep),
        3 => prop::sample::select(vec![1, 2, 3, 4]).prop_map(Op::Kill),
    ]
}

#[test]
fn whatever_happens_a_run_is_the_one_that_its_account_says() {
    part::slice(&PART);
}

/// Runs a sequence of either kind, and makes it shorter if it fails.
fn round(seed: u64, number: u64) -> Tally {
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let bytes: [u8; 32] = random(seed, "machine", number).random();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let steps = runner.run(&prop::collection::vec(op(), 4..24), |sequence| {
        runtime().block_on(World::live(&sequence)).map_err(TestCaseError::fail)
    });
    let calls = runner.run(&prop::collection::vec(calls::call(), 4..40), |sequence| {
        runtime().block_on(calls::live(&sequence)).map_err(TestCaseError::fail)
    });
    let repeat = format!("PROSAMPLER_SOAK_SEED={seed}, round {number}");
    let mut tally = Tally::default();
    for (kind, fault) in
        [("sequences", steps.err().map(|e| e.to_string())), ("calls", calls.err().map(|e| e.to_string()))]
    {
        tally.add(Tally::of(kind, fault.map_or(Outcome::Right, Outcome::Fault), &repeat));
    }
    tally
}
