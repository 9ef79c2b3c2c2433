//! Processes that train together.

mod by_clock;
mod embed_once;
mod one_copy;
mod process;
#[allow(dead_code, unused_imports, reason = "what the tests in `it` need")]
#[path = "../it/support/mod.rs"]
mod support;
mod training;
