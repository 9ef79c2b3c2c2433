//! Models and tokenizers that cannot be used.

use std::path::PathBuf;

use super::Cause;
use super::text::said;

/// A model or a tokenizer that cannot be opened or run, or does not fit its use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A model that cannot be opened, or does not fit its use.
    #[error("model `{}` {reason}{}", path.display(), said(cause.as_ref()))]
    #[non_exhaustive]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
        /// ONNX Runtime's complaint, if it is the one that complained.
        #[source]
        cause: Option<Cause>,
    },

    /// A tokenizer that cannot be opened or used.
    #[error(
        "tokenizer `{}`: {cause}; it must be a `tokenizer.json` as the Hugging Face tokenizers library writes it",
        path.display()
    )]
    #[non_exhaustive]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The library's complaint.
        #[source]
        cause: Cause,
    },

    /// A model or a device that has too little memory even for the smallest pieces of the work.
    ///
    /// [`Error::device_out_of_memory`](super::Error::device_out_of_memory) makes one.
    #[error("{what} runs out of memory {task}; free some, raise encode.cuda.memory_limit, or {remedy} ({cause})")]
    #[non_exhaustive]
    OutOfMemory {
        /// The model, as in ``model `m.onnx` ``, or the device, such as `cuda`.
        what: String,
        /// What it was doing, as in `while it builds the graph`.
        task: &'static str,
        /// What else may help.
        remedy: &'static str,
        /// ONNX Runtime's reason.
        #[source]
        cause: Cause,
    },

    /// None of the execution providers that the settings list can be used.
    #[error("cannot run `{}` on any of encode.providers: {}", path.display(), failures.join("; "))]
    #[non_exhaustive]
    NoProvider {
        /// The model.
        path: PathBuf,
        /// For each provider why it cannot be used, and the remedy.
        failures: Vec<String>,
    },

    /// An encoder whose vectors have another dimension than those that they must stand beside.
    #[error("encoder `{encoder}` gives vectors of {found} numbers where {other} has {expected}; {remedy}")]
    #[non_exhaustive]
    Dimension {
        /// The encoder's name.
        encoder: String,
        /// Its dimension.
        found: usize,
        /// What it does not fit: `the run`, `the first view`, …
        other: &'static str,
        /// The dimension there.
        expected: usize,
        /// What to do about it.
        remedy: &'static str,
    },
}
