//! "Here is a column, give me model inputs." One file for each kind of feature.

pub(super) mod text;
