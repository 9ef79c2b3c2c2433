//! Embeds and builds anew in the background, and publishes what comes of it.
//!
//! A [`Snapshot`] is rows, embeddings and graph together, never changed once published. A worker publishes, the stream
//! reads whichever is newest between two mini-batches and never waits, unless
//! [`swap_after_steps`](crate::config::RefreshConfig::swap_after_steps) asks for that. A refresh looks for a newer model and for
//! new files, embeds what is new or all, carries the graph over, and swaps. Meanwhile two snapshots are in memory, at
//! most, and what building a graph takes; the old one goes when its last reader drops it. What fails leaves the old one in place.

mod drift;
mod handle;
mod pushed;
mod report;
mod snapshot;
mod watch;
mod work;
mod worker;

pub use self::drift::Drift;
pub use self::handle::RefreshHandle;
pub use self::report::{RefreshCounts, RefreshSeconds, Refreshed};
pub use self::snapshot::{AgeSummary, Ages, Published, Snapshot};
pub(crate) use self::snapshot::{Selection, negative};
pub(crate) use self::watch::ModelWatch;
pub(crate) use self::work::{CancelOnDrop, CancellableEncoder, RefreshContext};
pub(crate) use self::worker::{InitialSnapshot, Worker};
