//! Samples without a usable vector.

use crate::sample::SampleId;

/// A sample that has no usable vector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingError {
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
}
