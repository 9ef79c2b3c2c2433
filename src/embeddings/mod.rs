//! "Here is a sample id, give me its embedding."
//!
//! An [`EmbeddingTable`] holds what an encoder makes of a store: one vector a sample, in the order of ids. It knows the
//! model version that made them, and which samples were skipped. A refresh does not change a table that is in use: it
//! makes a new one, or forks it.

mod file;
mod skipped;
mod stored;
mod table;

pub use self::skipped::SkipReason;
pub(crate) use self::skipped::{Flaw, prepare};
pub use self::table::EmbeddingTable;
