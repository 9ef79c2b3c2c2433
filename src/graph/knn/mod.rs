//! The graph of the K nearest neighbors: of all pairs, or by NN-descent over clusters; refined, grown and measured.

pub(super) mod all_pairs;
mod clusters;
pub(super) mod descent;
mod product;
mod recall;
mod refine;
mod update;

pub use self::recall::recall;
pub use self::refine::{Refined, refine};
pub use self::update::{insert, remove};
