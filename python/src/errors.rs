//! The library's errors as exceptions of `prosampler.errors`, with the same messages.

use prosampler::Error;
use pyo3::prelude::*;

/// The exception for an error.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    raise(py, class(error), &error.to_string())
}

/// An exception of `prosampler.errors`.
pub fn raise(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made = py.import("prosampler.errors").and_then(|module| module.getattr(class)?.call1((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}

fn class(error: &Error) -> &'static str {
    match error {
        Error::Config(_) | Error::Filter { .. } => "ConfigError",
        Error::NotFound { .. } => "NotFoundError",
        Error::UnsupportedSource { .. }
        | Error::Corrupt { .. }
        | Error::SourceChanged { .. }
        | Error::Remote { .. }
        | Error::TooFewSamples { .. }
        | Error::TooFewEncoded { .. }
        | Error::TooManySamples { .. }
        | Error::MissingColumn { .. }
        | Error::ColumnType { .. }
        | Error::SchemaDrift { .. }
        | Error::NullValue { .. }
        | Error::Arrow { .. } => "SourceError",
        Error::Io { .. } => "FileError",
        Error::RuntimeMissing { .. }
        | Error::RuntimeLoad { .. }
        | Error::Device { .. }
        | Error::DeviceMemory { .. } => "OnnxRuntimeError",
        Error::Model { .. }
        | Error::ModelMemory { .. }
        | Error::NoProvider { .. }
        | Error::Tokenizer { .. }
        | Error::Dimension { .. } => "ModelError",
        Error::BadSample { .. }
        | Error::NoVectors { .. }
        | Error::Encode { .. }
        | Error::NotFinite { .. }
        | Error::BadLength { .. } => "EncodeError",
        Error::Query { .. } | Error::Shape { .. } | Error::UnknownSample { .. } | Error::SkippedSample { .. } => {
            "ArgumentError"
        }
        Error::State { .. } => "StateError",
        Error::Refresh { .. } | Error::Cancelled => "RefreshError",
        Error::TaskDied { .. } => "TaskDiedError",
        _ => "Error",
    }
}
