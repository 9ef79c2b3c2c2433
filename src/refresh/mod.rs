//! Builds the graph anew in the background, and publishes it.
//!
//! A [`Snapshot`] is embeddings and graph together, never changed once published. The worker publishes, the stream
//! reads whichever is newest between two mini-batches and never waits. While a refresh runs, two graphs are in memory;
//! the old one goes when its last reader drops it. In this version a refresh draws fresh candidates for the embeddings
//! that are there: re-embedding by a newer model comes later.

mod snapshot;
mod worker;

pub use self::snapshot::{Published, Snapshot};
pub(crate) use self::worker::Worker;
