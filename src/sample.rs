//! Identifiers of samples, models and graphs.

use std::fmt;

/// One row of a data set: its position in the order of the source, from 0.
///
/// Stable for a data set: the same files in the same order give the same ids. 32 bits, so a data set may have up to
/// 4,294,967,295 rows; a proximity graph of K neighbors then takes 4 K bytes a sample for its ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SampleId(pub u32);

impl SampleId {
    /// Returns the id of the row at `index`.
    ///
    /// # Panics
    /// Panics if `index` does not fit 32 bits; a [`Store`](crate::store::Store) refuses such data sets.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("sample ids are 32 bits wide"))
    }

    /// Returns the row's position, for indexing.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sample {}", self.0)
    }
}

/// The version of the encoder that made an embedding: 1 for the first, one more for each that replaced it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelVersion(pub u64);

/// The version of the proximity graph that chose a mini-batch: 1 for the first, one more for each refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GraphVersion(pub u64);

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for GraphVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
