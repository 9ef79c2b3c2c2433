//! "Here is what went wrong, give me what to do about it."
//!
//! There is one error type, whose variants are named by cause. Every message names the thing and ends with the remedy.
//! [`kind`](Error::kind) groups the variants by who can mend them; [`Faults`] are all that is wrong with settings.

mod fault;
mod kind;
mod new;
mod text;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::fault::{Fault, Faults};
pub use self::kind::ErrorKind;
pub(crate) use self::text::quoted;
use self::text::{after, behind, bullets, kept, said, some_quoted};
use crate::sample::SampleId;

/// Whatever lies beneath an [`Error`], kept as its source.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by cause; [`kind`](Self::kind) is coarser.
///
/// Variants that sources and encoders outside of this crate may need can be constructed, such as [`Io`](Self::Io),
/// [`Corrupt`](Self::Corrupt) and [`Encode`](Self::Encode); all others may gain fields.
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
    #[error("`{uri}` has {found} {}{}, but {needed} {reason}", if *found == 1 { "row" } else { "rows" }, kept(filter))]
    TooFewSamples {
        /// The source.
        uri: String,
        /// The filter that keeps others out.
        filter: Option<String>,
        /// Rows found.
        found: usize,
        /// Rows needed.
        needed: usize,
        /// Who needs them, and the remedy.
        reason: String,
    },

    /// There are enough samples, but too few of them may come together to make a mini-batch.
    #[error("no mini-batch can be made of {samples} samples: {reason}")]
    #[non_exhaustive]
    NoMiniBatch {
        /// Samples of the epoch.
        samples: usize,
        /// The settings that keep them apart, and the remedy.
        reason: String,
    },

    /// Fewer samples that could be encoded than the settings need.
    #[error(
        "{skipped} of the {samples} samples of `{uri}` were skipped, since they cannot be encoded ({reason}), but at \
         least {needed} must be left for a mini-batch; correct these rows, check encode.column, or lower \
         walk.batch_size"
    )]
    #[non_exhaustive]
    TooFewEncoded {
        /// The source.
        uri: String,
        /// Samples of the data set.
        samples: usize,
        /// Those that were skipped.
        skipped: usize,
        /// Those that must be left.
        needed: usize,
        /// The reason for which most were skipped, and the first sample of these.
        reason: String,
    },

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

    /// A column that is asked for does not exist.
    #[error("column `{column}` not found in `{uri}`; it has {}", some_quoted(available))]
    #[non_exhaustive]
    MissingColumn {
        /// The column asked for.
        column: String,
        /// Where it was looked for.
        uri: String,
        /// The columns that are there.
        available: Vec<String>,
    },

    /// Several columns have the name of a column that is in use.
    #[error(
        "`{uri}` has {count} columns named `{column}`, so which one is meant is not clear; rename them, or leave the \
         name out of source.columns and all other settings"
    )]
    #[non_exhaustive]
    AmbiguousColumn {
        /// The name.
        column: String,
        /// Where the columns are.
        uri: String,
        /// How many have it.
        count: usize,
    },

    /// A column has a type that its use does not allow.
    #[error("column `{column}` holds {found}, but {expected}")]
    #[non_exhaustive]
    ColumnType {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// Who needs what, and the remedy.
        expected: String,
    },

    /// A column that is in use differs between the shards of a source, and no type holds the values of all.
    #[error(
        "column `{column}` is {found} in `{uri}`, but {expected} in the files before; write them alike, or leave it \
         out of `source.columns`"
    )]
    #[non_exhaustive]
    SchemaDrift {
        /// The column, or the field within it that differs first.
        column: String,
        /// The later shard.
        uri: String,
        /// Its type there, or `missing`.
        found: String,
        /// Its type before.
        expected: String,
    },

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

    /// A value that the encoder needs is null.
    #[error(
        "column `{column}` is null at {sample} ({count} of the {rows} rows read with it); fill these rows, filter them \
         out, or set encode.on_bad_sample = \"skip\""
    )]
    #[non_exhaustive]
    NullValue {
        /// The column.
        column: String,
        /// The first sample without a value.
        sample: SampleId,
        /// Nulls in the record batch that holds it.
        count: usize,
        /// Rows of that record batch.
        rows: usize,
    },

    /// A value that the encoder cannot read, or whose vector is of no use.
    #[error(
        "{sample} cannot be encoded: column `{column}` {reason}; correct or remove that row, or set \
         encode.on_bad_sample = \"skip\""
    )]
    BadSample {
        /// The sample.
        sample: SampleId,
        /// The column at fault.
        column: String,
        /// What is wrong with its value.
        reason: String,
    },

    /// An encoder has made no usable vector of any sample so far, which is not the fault of single samples.
    #[error(
        "encoder `{encoder}` makes no usable vector of any of the first {rows} samples it is given: column `{column}` \
         at {sample} {reason}; check the model or the column, or filter these rows out"
    )]
    #[non_exhaustive]
    NoVectors {
        /// The encoder's name.
        encoder: String,
        /// Samples of the record batch.
        rows: usize,
        /// One of them.
        sample: SampleId,
        /// The column at fault there.
        column: String,
        /// What is wrong with its value, or its vector.
        reason: String,
    },

    /// ONNX Runtime's shared library is nowhere to be found.
    #[error(
        "ONNX Runtime's shared library was not found; looked for:\n{}\ninstall it with `pip install \
         onnxruntime` in the active Python environment, run `make setup` in a clone, or set `encode.runtime` or \
         ORT_DYLIB_PATH to the file",
        bullets(looked)
    )]
    #[non_exhaustive]
    RuntimeMissing {
        /// Every place looked at, in order.
        looked: Vec<String>,
    },

    /// A library was found, but it is not an ONNX Runtime that can be used.
    #[error("cannot load ONNX Runtime from `{}`: {cause}; version 1.24 or later is needed", path.display())]
    #[non_exhaustive]
    RuntimeLoad {
        /// The file.
        path: PathBuf,
        /// The loader's reason.
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

    /// A model or a device that has too little memory even for the smallest pieces of the work.
    ///
    /// [`Error::device_out_of_memory`] makes one.
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

    /// A device that the graph was to be built on, and that cannot be used.
    #[error("cannot build the graph on {device}: {reason}; mend that, or set graph.device = \"cpu\"")]
    #[non_exhaustive]
    Device {
        /// The device: `cuda`.
        device: String,
        /// Why not.
        reason: String,
    },

    /// A model that cannot be opened, or does not fit its use.
    #[error("model `{}` {reason}{}", path.display(), said(cause.as_ref()))]
    #[non_exhaustive]
    Model {
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

    /// An encoder failed on some rows.
    #[error("encoder `{encoder}` failed: {cause}")]
    Encode {
        /// The encoder's name.
        encoder: String,
        /// Its complaint.
        #[source]
        cause: Cause,
    },

    /// An embedding with an infinite or not-a-number component.
    #[error(
        "the embedding of {sample} is not finite (component {component} is {value}); look at that row, and at the \
         model for overflow"
    )]
    #[non_exhaustive]
    NotFinite {
        /// The sample.
        sample: SampleId,
        /// Index of the first such component.
        component: usize,
        /// Its value.
        value: f32,
    },

    /// An embedding without direction, or so long that similarities overflow.
    #[error(
        "the embedding of {sample} has length {length}, which has no usable {similarity} similarity; look at that \
         row, or choose another model"
    )]
    #[non_exhaustive]
    BadLength {
        /// The sample.
        sample: SampleId,
        /// Its Euclidean length.
        length: f32,
        /// The similarity in use.
        similarity: &'static str,
    },

    /// A vector of a query that no sample can be compared with.
    #[error("cannot search with this vector: {reason}; give one that the encoder of the embeddings made")]
    #[non_exhaustive]
    Query {
        /// What is wrong with it.
        reason: String,
    },

    /// A flat list whose length does not fit the width of its rows.
    #[error("{found} numbers do not make whole rows of {dimension}; give rows × width numbers, the width 1 to 65,536")]
    #[non_exhaustive]
    Shape {
        /// Numbers given.
        found: usize,
        /// Numbers in a row: the dimension of embeddings, or the neighbors of a sample.
        dimension: usize,
    },

    /// A sample id beyond the data set.
    #[error("{sample} does not exist; the data set has {len} samples, ids 0 to {}", len.saturating_sub(1))]
    UnknownSample {
        /// The id.
        sample: SampleId,
        /// The number of samples.
        len: usize,
    },

    /// A vector for a sample that was skipped.
    #[error("{sample} was skipped, since it could not be read; no vector stands for it: leave it out")]
    #[non_exhaustive]
    SkippedSample {
        /// The id.
        sample: SampleId,
    },

    /// An Arrow operation failed.
    #[error("cannot {action}: {cause}")]
    Arrow {
        /// What was tried.
        action: &'static str,
        /// Arrow's reason.
        #[source]
        cause: arrow::error::ArrowError,
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
