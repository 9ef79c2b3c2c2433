//! "Here are ids, give me mini-batches, as fast as I take them and no faster."
//!
//! A producer keeps `prefetch` [`MiniBatch`]es ready, and makes one more that waits for a free place. A consumer that
//! has taken n has therefore made it produce n + `prefetch` + 1 at most. A slow consumer stops the producer, and
//! dropping the [`MiniBatchStream`] ends it.

mod counts;
#[cfg(feature = "metrics")]
mod course;
mod graph_changes;
mod mini_batch;
mod mini_batches;
mod one_of;
mod producer;
mod rows;
mod sampling;

pub use self::counts::StreamCounts;
#[cfg(feature = "metrics")]
pub(crate) use self::course::{Course, Delivered, Span};
pub use self::mini_batch::MiniBatch;
pub use self::mini_batches::MiniBatchStream;
pub(crate) use self::mini_batches::StreamParts;
#[cfg(feature = "metrics")]
pub(crate) use self::mini_batches::WatchedCourse;
pub(crate) use self::one_of::OneOf;
pub(crate) use self::producer::{Producer, ProducerSettings};
pub(crate) use self::rows::{MASK_COLUMN, RowColumns, negative_column};
