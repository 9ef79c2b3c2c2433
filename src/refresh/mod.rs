//! "Here are new rows or a newer model, give me a newer snapshot."
//!
//! A [`Snapshot`] is rows, embeddings and graph together, and never changes once it is published. A worker publishes;
//! the stream reads the newest one between two mini-batches and never waits, unless
//! [`swap_after_steps`](crate::config::RefreshConfig::swap_after_steps) asks for that.
//!
//! Time is counted in steps: a step is a number of mini-batches that the trainer has taken, over all epochs.
//!
//! A refresh does this:
//!
//! 1. Ask the source for new files, and the encoder for a newer model.
//! 2. If there is a newer model, measure its [`Drift`] on a few samples.
//! 3. Embed all samples if it has drifted far enough, or else the new samples only; put pushed vectors in.
//! 4. Carry the graph over to the new embeddings.
//! 5. Save a checkpoint, and publish.
//!
//! If a refresh fails, the old snapshot stays. Memory holds at most two snapshots and what building a graph takes; the
//! old one is freed when its last reader drops it.

mod ages;
mod agreement;
mod cancel;
mod drift;
mod easing;
mod embed;
mod facts;
mod first;
mod handle;
mod published;
mod push_queue;
mod pushed_vectors;
mod report;
mod rules;
mod shared;
mod snapshot;
mod triggers;
mod unembedded;
mod watch;
mod work;
mod worker;
mod worker_first;

pub use self::ages::{AgeSummary, Ages};
pub(crate) use self::cancel::{CancelOnDrop, CancellableEncoder};
pub use self::drift::Drift;
pub(crate) use self::first::{Beginning, FirstEmbeddings};
pub use self::handle::RefreshHandle;
pub use self::published::Published;
pub use self::report::{RefreshCounts, RefreshSeconds, Refreshed};
pub(crate) use self::rules::{GuardRules, RowRules, SourceWeights, StrataRule};
pub(crate) use self::shared::SharedFolder;
pub use self::snapshot::Snapshot;
pub(crate) use self::unembedded::DrawnFrom;
pub(crate) use self::watch::ModelWatch;
pub(crate) use self::work::RefreshContext;
pub(crate) use self::worker::{TrainerSteps, Worker};
