//! Oracles: slow and plain builders that the fast ones are tested against.

mod brute_force;
mod per_row;

pub use self::brute_force::exact;
pub use self::per_row::build_per_row;
