use rand::{Rng, RngExt};

use super::WalkCounts;
use super::guards::{Admission, SparseBitSet};
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// Explicit negatives that are to be drawn: `count` of each sample of a mini-batch, among the first `samples`.
pub(super) struct Wanted<'a> {
    pub of: &'a [SampleId],
    pub count: usize,
    pub samples: usize,
}

/// Where to look for them.
pub(super) struct Near<'a> {
    pub graph: &'a ProximityGraph,
    pub skip: usize,
    pub restart_probability: f64,
}

impl Wanted<'_> {
    /// Negatives [samples of the mini-batch × count], found by a short walk with restart from each sample: hard ones, near
    /// it. All are different and none is of the mini-batch, whose members are negatives of each other anyway; where
    /// there are too few for that, some come more than once, and `None` is left where no sample may come at all.
    pub fn draw(
        &self,
        near: &Near<'_>,
        used: &mut SparseBitSet,
        admission: &mut impl Admission,
        counts: &mut WalkCounts,
        generator: &mut impl Rng,
    ) -> Vec<Option<SampleId>> {
        let Near { graph, skip, restart_probability } = *near;
        used.clear(graph.len());
        self.of.iter().for_each(|id| used.set(id.index()));
        let mut negatives: Vec<Option<SampleId>> = Vec::with_capacity(self.of.len() * self.count);
        for (row, &id) in self.of.iter().enumerate() {
            let end = (row + 1) * self.count;
            let mut offer = |negatives: &mut Vec<_>, id: SampleId| {
                let fine = id.index() < self.samples && !used.has(id.index()) && admission.admits(id);
                if fine {
                    used.set(id.index());
                    negatives.push(Some(id));
                }
                fine
            };
            let (mut place, mut moves) = (id, 0);
            while negatives.len() < end && moves < MOVES_PER_NEGATIVE * self.count && skip < graph.degree() {
                let from = if generator.random_bool(restart_probability) { id } else { place };
                place = graph.neighbors(from)[generator.random_range(skip..graph.degree())];
                offer(&mut negatives, place);
                moves += 1;
            }
            let mut draws = 0;
            while negatives.len() < end && draws < DRAWS_PER_NEGATIVE * self.count {
                let any = SampleId::new(generator.random_range(0..self.samples));
                counts.negatives_topped_up += u64::from(offer(&mut negatives, any));
                draws += 1;
            }
            while negatives.len() < end {
                let others: Vec<_> = negatives.iter().copied().flatten().collect();
                let again = (!others.is_empty()).then(|| others[generator.random_range(0..others.len())]);
                counts.negatives_repeated += u64::from(again.is_some());
                negatives.push(again);
            }
        }
        negatives
    }
}

/// Moves of a walk for each negative.
const MOVES_PER_NEGATIVE: usize = 64;

/// Samples drawn uniformly for each negative, where the walk has not found it.
const DRAWS_PER_NEGATIVE: usize = 64;
