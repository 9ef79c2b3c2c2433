//! Mini-batches for trainers elsewhere (feature `serve`).

mod command;
mod limits;
mod runs;
#[allow(dead_code, unused_imports, reason = "what the tests in `it` need")]
#[path = "../it/support/mod.rs"]
mod support;
