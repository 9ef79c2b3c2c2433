//! "Here are ids, give me mini-batches, as fast as I take them and no faster."
//!
//! A producer keeps `prefetch` [`MiniBatch`]es ready and holds one more in its hand: a consumer that has taken n has
//! made it produce n + `prefetch` + 1 at most. A slow consumer stops it, a dropped [`MiniBatchStream`] ends it.

mod counts;
mod mini_batch;
mod mini_batches;
mod producer;

pub use self::counts::StreamCounts;
pub use self::mini_batch::MiniBatch;
pub use self::mini_batches::MiniBatchStream;
pub(crate) use self::producer::Producer;
