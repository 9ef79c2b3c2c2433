//! The K best of many scores: four structures, one for each way in which scores arrive.
//!
//! | file | scores arrive | used for |
//! |---|---|---|
//! | [`buffer`] | one by one, for one row in one thread | oracles, clusters, searches, merging a device's results |
//! | [`lists`] | from all threads, for all samples at once | the graph while it is built |
//! | [`shortlist`] | panel by panel, for a block of rows | scores of the sampled graph |
//! | [`threshold`] | all at hand | raising the threshold of a shortlist |
//! | [`rank`] | all at hand, few of them | the final order |

pub(super) mod buffer;
pub(super) mod lists;
pub(super) mod rank;
pub(super) mod shortlist;
mod threshold;
