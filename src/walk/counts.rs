use serde::{Deserialize, Serialize};

/// What happened while a mini-batch was filled.
///
/// Each guard counts a sample at most once a mini-batch, however often walks reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WalkCounts {
    /// Moves along an edge.
    pub moves: u64,
    /// Moves that left from the start again instead of going on.
    pub restarts: u64,
    /// Starts of a walk after its first one, since it met no new member for long or nearest-first ran out of neighbors.
    pub new_starts: u64,
    /// Samples that were drawn uniformly, since the walk had used up its moves.
    pub uniform_top_ups: u64,
    /// Samples that were drawn uniformly as `walk.random_share` and `walk.warm_up` say.
    pub uniform_draws: u64,
    /// Samples that were refused as copies of a member, by content or by `guards.duplicate_similarity`.
    pub refused_duplicates: u64,
    /// Samples that were refused since they share a value with a member: of `guards.distinct`, or of a pair's columns.
    pub refused_distinct: u64,
    /// Samples that were refused since they are among a member's nearest neighbors, or it is among theirs.
    pub refused_nearest: u64,
    /// Samples that were refused since they are too similar to a member.
    pub refused_similar: u64,
    /// Samples that were refused since they are too similar to a member, measured by its own pair or by theirs.
    pub refused_relative: u64,
    /// Samples that the mini-batch lacks, since guards let no more in.
    pub short: u64,
    /// Explicit negatives that were chosen uniformly, since the walks from their samples found none.
    pub negatives_topped_up: u64,
    /// Explicit negatives that another sample of the mini-batch has too, since there were too few.
    pub negatives_repeated: u64,
}

impl WalkCounts {
    /// The samples that guards refused, of all guards together.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_duplicates
            + self.refused_distinct
            + self.refused_nearest
            + self.refused_similar
            + self.refused_relative
    }
}

impl std::ops::AddAssign for WalkCounts {
    fn add_assign(&mut self, other: Self) {
        // A new counter that is left out here does not compile.
        let Self {
            moves,
            restarts,
            new_starts,
            uniform_top_ups,
            uniform_draws,
            refused_duplicates,
            refused_distinct,
            refused_nearest,
            refused_similar,
            refused_relative,
            short,
            negatives_topped_up,
            negatives_repeated,
        } = other;
        self.moves += moves;
        self.restarts += restarts;
        self.new_starts += new_starts;
        self.uniform_top_ups += uniform_top_ups;
        self.uniform_draws += uniform_draws;
        self.refused_duplicates += refused_duplicates;
        self.refused_distinct += refused_distinct;
        self.refused_nearest += refused_nearest;
        self.refused_similar += refused_similar;
        self.refused_relative += refused_relative;
        self.short += short;
        self.negatives_topped_up += negatives_topped_up;
        self.negatives_repeated += negatives_repeated;
    }
}
