//! The `prosampler` command, which the package installs.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command of these arguments, the first of which is its own name. Returns its exit status.
#[pyfunction]
pub fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| prosampler::cli::main(arguments))
}
