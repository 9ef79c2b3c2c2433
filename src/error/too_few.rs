//! Data sets without enough samples for the settings.

use super::text::kept;

/// Fewer samples than the settings need.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TooFewError {
    /// Fewer samples than the settings need.
    #[error("`{uri}` has {found} {}{}, but {needed} {reason}", if *found == 1 { "row" } else { "rows" }, kept(filter))]
    Samples {
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

    /// Fewer samples that could be encoded than the settings need.
    #[error(
        "{skipped} of the {samples} samples of `{uri}` were skipped, since they cannot be encoded ({reason}), but at \
         least {needed} must be left for a mini-batch; correct these rows, check encode.column, or lower \
         walk.batch_size"
    )]
    #[non_exhaustive]
    Encoded {
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

    /// There are enough samples, but too few of them may come together to make a mini-batch.
    #[error("no mini-batch can be made of {samples} samples: {reason}")]
    #[non_exhaustive]
    NoMiniBatch {
        /// Samples of the epoch.
        samples: usize,
        /// The settings that keep them apart, and the remedy.
        reason: String,
    },
}
