//! The long tests: a run that is killed, damaged or refused something goes on correctly, or says what is wrong.
//!
//! Each part runs a short slice among the other tests. `make soak SECONDS=3600` runs them all for as long as it is told
//! (docs/soak.md). Every round of a part follows from the seed and its number.

mod child;
mod failing_calls;
#[cfg(feature = "cloud")]
mod failing_requests;
mod fuzz;
mod inputs;
mod ipc_edit;
mod kills;
mod log;
mod machine;
mod mutate;
mod outcome;
mod parquet_edit;
mod part;
mod small_run;
mod support;
mod tables;
mod thrift;

use part::Part;

/// The parts, each with its share of the time.
const PARTS: &[&Part] = &[
    &kills::PART,
    &inputs::PART,
    &failing_calls::PART,
    #[cfg(feature = "cloud")]
    &failing_requests::PART,
    &machine::PART,
    &fuzz::PART,
];

#[test]
#[ignore = "takes as long as it is told: `make soak`"]
fn whole() {
    part::whole(PARTS);
}
