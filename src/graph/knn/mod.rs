//! The graph of each sample's K nearest neighbors: M → N in the paper's terms.
//!
//! [`all_pairs`] and [`descent`] build it, [`refine()`] carries it over to new embeddings, [`insert`] and [`remove`]
//! change its samples, and [`recall()`] measures it. [`search_exact`] answers queries from outside. `product`
//! scores groups of samples for all of them, `clusters` finds groups, and `k_means` divides samples into groups.

pub(super) mod all_pairs;
mod clusters;
mod consistency;
pub(super) mod descent;
mod k_means;
mod product;
mod recall;
mod refine;
mod search;
mod update;

pub(crate) use self::consistency::inconsistent_pairs;
pub(crate) use self::k_means::k_means;
pub(crate) use self::recall::nearest_others;
pub use self::recall::recall;
pub use self::refine::{Refined, refine};
pub use self::search::{Nearest, search_exact};
pub use self::update::{insert, remove};
