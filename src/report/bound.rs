//! From which similarity on a pair is likely a false negative.

use std::fmt;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::index;

use crate::embeddings::EmbeddingTable;
use crate::graph::nearest_others;
use crate::sample::SampleId;

/// From which similarity on another sample is likely no negative of a sample.
///
/// Nobody but labels knows which negatives are false, so this is a stand-in for them. Where rows are pairs, it is what
/// a sample's own positive has. Elsewhere it is what a sample's nearest neighbor has, at the median: a pair above that
/// is nearer than half of all samples are to anyone. docs/first-steps.md says how well its shares follow those of
/// labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// The similarity of each sample's own pair.
    Positive,
    /// This similarity for all, the median of samples to their nearest.
    Nearest(f32),
}

impl Bound {
    /// The bound of these embeddings. Without pairs it costs [`LOOKED_AT`] × N × d multiplications.
    pub fn of(table: &EmbeddingTable, seed: u64) -> Self {
        if table.pair_similarity(SampleId(0)).is_some() {
            return Self::Positive;
        }
        let present = table.present_ids();
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let drawn = index::sample(&mut generator, present.len(), LOOKED_AT.min(present.len()));
        let rows: Vec<u32> = drawn.iter().map(|at| present[at]).collect();
        let nearest = nearest_others(table, &rows, 1);
        let to_nearest = |(&row, nearest): (&u32, &Vec<SampleId>)| {
            nearest.first().map(|&other| table.similarity_of(SampleId(row), other))
        };
        let mut similarities: Vec<f32> = rows.iter().zip(&nearest).filter_map(to_nearest).collect();
        similarities.sort_by(f32::total_cmp);
        Self::Nearest(similarities.get(similarities.len() / 2).copied().unwrap_or(f32::INFINITY))
    }

    /// The similarity from which on others are likely no negatives of a sample.
    pub fn at(self, table: &EmbeddingTable, id: SampleId) -> f32 {
        match self {
            Self::Positive => table.pair_similarity(id).unwrap_or(f32::INFINITY),
            Self::Nearest(similarity) => similarity,
        }
    }
}

/// What a pair is compared with, as the end of a sentence that begins with "more similar than".
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Positive => f.write_str("the sample's own positive"),
            Self::Nearest(similarity) => {
                write!(f, "half of all samples are to their nearest neighbor ({similarity:.3})")
            }
        }
    }
}

/// How many samples the nearest neighbor is looked up of.
const LOOKED_AT: usize = 1000;
