//! The K best of many scores. Which of them is for what:
//!
//! | | scores arrive | for |
//! |---|---|---|
//! | [`buffer`] | one by one, for one row in one thread | rows on their own: the oracles, merges of a device's results |
//! | [`lists`] | from all threads, for all samples at once | the graph in the making |
//! | [`shortlist`] | panel by panel, for a block of rows | rough scores of the kernels, before they are scored exactly |
//! | [`threshold`] | all at hand | what a shortlist raises its bar to |
//! | [`rank`] | all at hand, few of them | the final order |

pub(super) mod buffer;
pub(super) mod lists;
pub(super) mod rank;
pub(super) mod shortlist;
mod threshold;
