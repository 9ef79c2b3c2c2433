//! "Here is what went wrong, give me what to do about it."
//!
//! There is one error type, whose variants are named by cause. Causes that are alike share a variant, which holds an
//! enum of its own, such as [`ColumnError`]. Every message names the thing and ends with the remedy.
//! [`kind`](Error::kind) groups all errors by who can mend them; [`Faults`] are all that is wrong with settings.
//!
//! ```
//! use prosampler::error::ColumnError;
//! use prosampler::{Error, Result};
//!
//! fn advice(result: Result<()>) -> String {
//!     match result {
//!         Ok(()) => "all is well".to_owned(),
//!         Err(Error::Column(ColumnError::Missing { available, .. })) => format!("choose one of {available:?}"),
//!         Err(Error::NotFound { uri, .. }) => format!("write {uri} first"),
//!         Err(other) => other.to_string(),
//!     }
//! }
//! # assert_eq!(advice(Err(Error::NotFound { uri: "a.parquet".into(), hint: None })), "write a.parquet first");
//! ```

mod argument;
mod column;
mod embedding;
mod fault;
mod kind;
mod model;
mod new;
mod onnx_runtime;
mod text;
mod too_few;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::argument::ArgumentError;
pub use self::column::ColumnError;
pub use self::embedding::EmbeddingError;
pub use self::fault::{Fault, Faults};
pub use self::kind::ErrorKind;
pub use self::model::ModelError;
pub use self::onnx_runtime::OnnxRuntimeError;
pub(crate) use self::text::quoted;
use self::text::{after, behind};
pub use self::too_few::TooFewError;

/// Whatever lies beneath an [`Error`], kept as its source.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by cause; [`kind`](Self::kind) is coarser.
///
/// Variants that sources and encoders outside of this crate may need can be constructed, such as [`Io`](Self::Io),
/// [`Corrupt`](Self::Corrupt), [`Encode`](Self::Encode) and [`EmbeddingError::BadSample`]; all others may gain fields.
/// An error of a nested enum becomes an `Error` by `?` or `into`. Its message and its source are those of that error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that cannot be used; all faults of a pipeline file at once.
    #[error("{0}")]
    Config(#[from] Faults),

    /// Nothing is at this uri.
    #[error("no such file: `{uri}`{}", after("; ", hint))]
    NotFound {
        /// The uri as given.
        uri: String,
        /// What to do about it.
        hint: Option<String>,
    },

    /// The uri names something that no source reads as it is.
    #[error("cannot read `{uri}`: {reason}")]
    UnsupportedSource {
        /// The uri as given.
        uri: String,
        /// Why not, and what can be read.
        reason: String,
    },

    /// A file is damaged, or is not what its name says.
    #[error(
        "cannot read `{uri}`{}: {cause}; the file is damaged or not {expected}: write it again",
        after(", ", place)
    )]
    Corrupt {
        /// The file.
        uri: String,
        /// Where in it, if that is known: the row group and the column.
        place: Option<String>,
        /// What the file was read as.
        expected: &'static str,
        /// The reader's complaint.
        #[source]
        cause: Cause,
    },

    /// A file that was written here does not have the checksum that it was written with.
    #[error(
        "`{}` is damaged{}: it is not what was written{}",
        path.display(),
        after(" ", place),
        after("; ", remedy)
    )]
    #[non_exhaustive]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, such as `in record batch 3`, or how that shows, in parentheses.
        place: Option<String>,
        /// What to do about it.
        remedy: Option<String>,
    },

    /// A file is no longer what it was when its rows got their sample ids.
    #[error("`{uri}` {change} since its rows were read; start anew, or put back what was there (new files may come)")]
    #[non_exhaustive]
    SourceChanged {
        /// The file.
        uri: String,
        /// `is gone` or `has changed`.
        change: &'static str,
    },

    /// An object store or a web server refused, or could not be reached, retries included.
    #[error("cannot {action} `{uri}`: {cause}; check the connection, the credentials and `source.options`")]
    Remote {
        /// The object, or where objects were looked for.
        uri: String,
        /// What was tried: `find`, `list`, `read`.
        action: &'static str,
        /// The store's reason.
        #[source]
        cause: Cause,
    },

    /// A server of mini-batches refused, or could not be reached, retries included.
    #[error("the server `{uri}`: {reason}")]
    #[non_exhaustive]
    Server {
        /// The server.
        uri: String,
        /// Its reason, or why it could not be reached.
        reason: String,
        /// What came back.
        #[source]
        cause: Cause,
    },

    /// The operating system refused to do something with a file.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    Io {
        /// What was tried: `open`, `write`, …
        action: &'static str,
        /// The file or the folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },

    /// The operating system refused something other than a file: threads, a signal handler.
    #[error("cannot {action}: {cause}")]
    #[non_exhaustive]
    System {
        /// What was tried: `listen for Ctrl-C`, …
        action: &'static str,
        /// The system's reason.
        #[source]
        cause: Cause,
    },

    /// Fewer samples than the settings need.
    #[error(transparent)]
    TooFew(#[from] TooFewError),

    /// A filter that is not a condition.
    #[error(
        "cannot read the filter `{filter}`: {expected} is expected {}; write for example split = 'train' and \
         length >= 16",
        behind(understood)
    )]
    #[non_exhaustive]
    Filter {
        /// The filter as given.
        filter: String,
        /// The part of it that was understood.
        understood: String,
        /// What should follow that part.
        expected: String,
    },

    /// A column that does not fit its use.
    #[error(transparent)]
    Column(#[from] ColumnError),

    /// A source gave more or fewer rows than it had promised.
    #[error(
        "`{uri}` gave {found} rows, and had promised {expected}; none of them are used, since others may be wrong too"
    )]
    #[non_exhaustive]
    RowCount {
        /// The source.
        uri: String,
        /// Rows that it gave, including those that were skipped.
        found: usize,
        /// Rows promised.
        expected: usize,
    },

    /// ONNX Runtime, or a device that is to build the graph, cannot be used.
    #[error(transparent)]
    OnnxRuntime(#[from] OnnxRuntimeError),

    /// A model or a tokenizer that cannot be opened or run, or does not fit its use.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// An encoder failed on some rows.
    #[error("encoder `{encoder}` failed: {cause}")]
    Encode {
        /// The encoder's name.
        encoder: String,
        /// Its complaint.
        #[source]
        cause: Cause,
    },

    /// A sample that has no usable vector.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),

    /// A vector, a list or an id that the caller gave, and that cannot be used.
    #[error(transparent)]
    Argument(#[from] ArgumentError),

    /// An Arrow operation failed.
    #[error("cannot {action}: {cause}")]
    Arrow {
        /// What was tried.
        action: &'static str,
        /// Arrow's reason.
        #[source]
        cause: arrow::error::ArrowError,
    },

    /// A state that cannot be resumed.
    #[error("cannot resume: {reason}")]
    #[non_exhaustive]
    State {
        /// What is missing or different, and the remedy.
        reason: String,
    },

    /// Work that was cancelled, since there is newer work or nobody needs it any more.
    #[error("cancelled: a newer model has come, or the run has ended")]
    Cancelled,

    /// A background task panicked; nothing more will come from it. This is a defect of this crate.
    #[error("the {task} task died: {message}; this is a defect, please report it")]
    #[non_exhaustive]
    TaskDied {
        /// Which task.
        task: &'static str,
        /// The panic message.
        message: String,
    },

    /// A background task ended before its work was done, as a rule since its tokio runtime was shut down.
    #[error(
        "the {task} task ended early: it failed, or its tokio runtime was shut down; keep that until the stream has \
         ended"
    )]
    #[non_exhaustive]
    TaskEnded {
        /// Which task.
        task: &'static str,
    },

    /// A background refresh failed; the stream goes on with the old snapshot.
    #[error("the refresh at step {step} failed ({failures} in a row): {cause}")]
    #[non_exhaustive]
    Refresh {
        /// Mini-batches that had been delivered when it began.
        step: u64,
        /// Refreshes that have failed in a row.
        failures: u32,
        /// Why.
        #[source]
        cause: Arc<Self>,
    },
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::sample::SampleId;

    fn unusable(cause: Option<Cause>) -> Error {
        ModelError::Unusable { path: "m.onnx".into(), reason: "is none".into(), cause }.into()
    }

    #[test]
    fn nested_errors_keep_their_message_and_their_kind() {
        let sample = SampleId(7);
        let few = TooFewError::NoMiniBatch { samples: 3, reason: "loosen these".into() };
        let column = ColumnError::Type { column: "n".into(), found: "Utf8".into(), expected: "it is a number".into() };
        let library = OnnxRuntimeError::Device { device: "cuda".into(), reason: "none is there".into() };
        let vector = EmbeddingError::NotFinite { sample, component: 2, value: f32::INFINITY };
        let cases: [(Error, ErrorKind, &str); 6] = [
            (few.into(), ErrorKind::Source, "no mini-batch can be made of 3 samples: loosen these"),
            (column.into(), ErrorKind::Source, "column `n` holds Utf8, but it is a number"),
            (
                library.into(),
                ErrorKind::OnnxRuntime,
                "cannot build the graph on cuda: none is there; mend that, or set graph.device = \"cpu\"",
            ),
            (unusable(Some("why".into())), ErrorKind::Model, "model `m.onnx` is none (ONNX Runtime says: why)"),
            (
                vector.into(),
                ErrorKind::Encode,
                "the embedding of sample 7 is not finite (component 2 is inf); look at that row, and at the model for \
                 overflow",
            ),
            (
                ArgumentError::SkippedSample { sample }.into(),
                ErrorKind::Argument,
                "sample 7 was skipped, since it could not be read; no vector stands for it: leave it out",
            ),
        ];
        for (error, kind, message) in cases {
            assert_eq!(error.to_string(), message);
            assert_eq!(error.kind(), kind, "{message}");
        }
    }

    #[test]
    fn the_source_of_a_nested_error_is_its_cause() {
        let source = |error: Error| error.source().map(ToString::to_string);
        let tokenizer = ModelError::Tokenizer { path: "t.json".into(), cause: "why".into() };
        let library = OnnxRuntimeError::Load { path: "lib.so".into(), cause: "why".into() };
        assert_eq!(source(unusable(Some("why".into()))).as_deref(), Some("why"));
        assert_eq!(source(tokenizer.into()).as_deref(), Some("why"));
        assert_eq!(source(library.into()).as_deref(), Some("why"));
        assert_eq!(source(Error::device_out_of_memory("cuda", "why")).as_deref(), Some("why"));
        assert_eq!(source(unusable(None)), None);
        assert_eq!(source(ArgumentError::SkippedSample { sample: SampleId(0) }.into()), None);
    }
}
