//! Columns that do not fit their use.

use super::text::some_quoted;
use crate::sample::SampleId;

/// A column that does not fit its use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnError {
    /// A column that is asked for does not exist.
    #[error("column `{column}` not found in `{uri}`; it has {}", some_quoted(available))]
    #[non_exhaustive]
    Missing {
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
    Ambiguous {
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
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// Who needs what, and the remedy.
        expected: String,
    },

    /// A column that is in use differs between the files of a source, and no type holds the values of all.
    #[error(
        "column `{column}` is {found} in `{uri}`, but {expected} in the files before; write them alike, or leave it \
         out of `source.columns`"
    )]
    #[non_exhaustive]
    Drift {
        /// The column, or the field within it that differs first.
        column: String,
        /// The later file.
        uri: String,
        /// Its type there, or `missing`.
        found: String,
        /// Its type before.
        expected: String,
    },

    /// A value that the encoder needs is null.
    #[error(
        "column `{column}` is null at {sample} ({count} of the {rows} rows read with it); fill these rows, filter them \
         out, or set encode.on_bad_sample = \"skip\""
    )]
    #[non_exhaustive]
    Null {
        /// The column.
        column: String,
        /// The first sample without a value.
        sample: SampleId,
        /// Nulls in the record batch that holds it.
        count: usize,
        /// Rows of that record batch.
        rows: usize,
    },
}
