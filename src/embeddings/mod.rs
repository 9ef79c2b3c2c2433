//! "Here are vectors of all samples, which model made them, and which are there?"
//!
//! An [`EmbeddingTable`] is what an encoder makes of a store, one vector a sample in the order of ids: in memory, or in
//! a file that is mapped. It is never changed once made; a refresh forks it.

mod file;
mod skipped;
mod stored;
mod table;

pub use self::skipped::SkipReason;
pub(crate) use self::skipped::{Flaw, prepare};
pub use self::table::EmbeddingTable;
