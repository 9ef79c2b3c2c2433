//! The library's errors as exceptions of `prosampler.errors`, with the same messages.

use prosampler::Error;
use pyo3::prelude::*;

/// The exception for an error: that of its kind.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    // A test of the library makes sure that every kind has a class.
    raise(py, &format!("{}Error", error.kind().name()), &error.to_string())
}

/// An exception of `prosampler.errors`.
pub fn raise(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made = py.import("prosampler.errors").and_then(|module| module.getattr(class)?.call1((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}
