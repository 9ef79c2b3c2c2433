//! Tables of any columns, written with any options and damaged with any edits, read back by the source and the store.
//!
//! `make fuzz SECONDS=600` runs it. A failing case is made smaller before it is reported, unless it ends the process.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::RngExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::{self, Target};
use crate::inputs::data::DataFile;
use crate::outcome::{Outcome, Tally};
use crate::part::{self, Part};
use crate::support::{random, runtime};
use crate::tables::{self, IpcOptions, KINDS, Kind, ParquetOptions};

pub const PART: Part = Part { name: "fuzz", share: 10, goal: 500, slice: 2, round };

/// A file, and the damage that is done to it.
#[derive(Clone, Debug)]
struct Case {
    kinds: Vec<Kind>,
    rows: usize,
    nulls: bool,
    /// The seed of the values.
    values: u64,
    options: Options,
    /// The damage. If there is none, the table itself must be read.
    damage: Option<u64>,
    stored: bool,
}

#[derive(Clone, Debug)]
enum Options {
    Parquet(ParquetOptions),
    Ipc(IpcOptions),
}

fn cases() -> impl Strategy<Value = Case> {
    let parquet =
        (0u8..6, any::<[bool; 4]>(), 1usize..60, 1usize..90).prop_map(|(codec, bits, page_rows, group_rows)| {
            let [newer, dictionary, special_encodings, indexed] = bits;
            ParquetOptions { codec, newer, dictionary, special_encodings, indexed, page_rows, group_rows }
        });
    let ipc = (any::<bool>(), 0u8..3, 1usize..90).prop_map(|(file, codec, batch_rows)| IpcOptions {
        file,
        codec,
        batch_rows,
    });
    let options = prop_oneof![parquet.prop_map(Options::Parquet), ipc.prop_map(Options::Ipc)];
    let kinds = prop::collection::vec(select(KINDS.to_vec()), 1..5);
    let damage = prop::option::weighted(0.9, any::<u64>());
    let table = (kinds, 1usize..150, any::<bool>(), any::<u64>());
    (table, options, damage, any::<bool>()).prop_map(|((kinds, rows, nulls, values), options, damage, stored)| Case {
        kinds,
        rows,
        nulls,
        values,
        options,
        damage,
        stored,
    })
}

pub struct Fuzz {
    runtime: Runtime,
    dir: TempDir,
}

impl Target for Fuzz {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let bytes: [u8; 32] = random(seed, "fuzz", number).random();
        let config = Config { cases: 1, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let last = RefCell::new(Outcome::Right);
        let result = runner.run(&cases(), |case| match self.judge(&case) {
            Outcome::Fault(fault) => Err(TestCaseError::fail(fault)),
            outcome => {
                last.replace(outcome);
                Ok(())
            }
        });
        result.map_or_else(|error| Outcome::Fault(error.to_string().replace('\n', " ")), |()| last.into_inner())
    }
}

impl Fuzz {
    pub fn new() -> Self {
        Self { runtime: runtime(), dir: TempDir::new().unwrap() }
    }

    fn judge(&self, case: &Case) -> Outcome {
        let table = tables::table(&case.kinds, case.rows, case.nulls, &mut random(case.values, "values", 0));
        let bytes = match &case.options {
            Options::Parquet(options) => tables::parquet(&table, options),
            Options::Ipc(options) => tables::ipc(&table, options),
        };
        let file = DataFile::new(bytes, &self.runtime, &self.dir);
        match case.damage {
            None if file.holds(&table) => Outcome::Right,
            None => Outcome::Fault("what was written is not what is read".to_owned()),
            Some(damage) => {
                let mutant = file.damaged(file.bytes(), &mut random(damage, "damage", 0));
                file.judge(&mutant, case.stored, &self.runtime, &self.dir)
            }
        }
    }
}

fn round(seed: u64, number: u64) -> Tally {
    child::run("tables", seed, number * 50..(number + 1) * 50)
}

#[test]
fn any_table_is_read_back_or_refused() {
    part::slice(&PART);
}

/// `make fuzz` runs this for as long as it is told.
#[test]
#[ignore = "takes as long as it is told: `make fuzz`"]
fn whole() {
    part::whole(&[&PART]);
}
