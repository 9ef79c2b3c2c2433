//! Vectors, lists and ids of a caller that cannot be used.

use crate::sample::SampleId;

/// A vector, a list or an id that the caller gave, and that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
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
}
