use rand::{Rng, RngExt};

use super::counts::WalkCounts;
use super::guards::{Admission, SparseBitSet};
use super::strata::Strata;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// The explicit negatives to find: `count` for each sample of a mini-batch, among the first `samples`, and of the same
/// one of `strata`.
pub(super) struct NegativeRequest<'a> {
    pub of: &'a [SampleId],
    pub count: usize,
    pub samples: usize,
    pub strata: Option<&'a Strata>,
}

/// The graph in which negatives are searched for, and how.
pub(super) struct NegativeSearch<'a> {
    pub graph: &'a ProximityGraph,
    pub skip: usize,
    pub restart_probability: f64,
}

impl NegativeRequest<'_> {
    /// Finds negatives [samples of the mini-batch × count], distinct and none of the mini-batch.
    ///
    /// For each sample:
    /// 1. Walk at random with restart from the sample, so that negatives are near it, and take what may join. Without a
    ///    `search`, skip this.
    /// 2. If the walk is out of moves, choose uniformly.
    /// 3. If that fails too, repeat negatives of other samples; `None` stands for those that are still missing.
    pub fn find(
        &self,
        search: Option<&NegativeSearch<'_>>,
        used: &mut SparseBitSet,
        admission: &mut impl Admission,
        counts: &mut WalkCounts,
        generator: &mut impl Rng,
    ) -> Vec<Option<SampleId>> {
        used.clear(self.samples);
        self.of.iter().for_each(|id| used.set(id.index()));
        let mut negatives: Vec<Option<SampleId>> = Vec::with_capacity(self.of.len() * self.count);
        for (row, &of) in self.of.iter().enumerate() {
            let end = (row + 1) * self.count;
            let mut offer = |negatives: &mut Vec<_>, id: SampleId| {
                let is_alike = |strata: &Strata| strata.stratum(id) == strata.stratum(of);
                let is_sample = id.index() < self.samples && self.strata.is_none_or(is_alike);
                let fine = is_sample && !used.has(id.index()) && admission.admits(id);
                if fine {
                    used.set(id.index());
                    negatives.push(Some(id));
                }
                fine
            };
            if let Some(search) = search {
                let moves = MAX_MOVES_PER_NEGATIVE * self.count;
                search.walk(of, moves, generator, |reached| {
                    offer(&mut negatives, reached);
                    negatives.len() < end
                });
            }
            let mut tries = 0;
            while negatives.len() < end && tries < MAX_TRIES_PER_NEGATIVE * self.count {
                let any = SampleId::new(generator.random_range(0..self.samples));
                let is_top_up = offer(&mut negatives, any) && search.is_some();
                counts.negatives_topped_up += u64::from(is_top_up);
                tries += 1;
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

impl NegativeSearch<'_> {
    /// Walks from a sample and `offer`s what it reaches, until this returns false or the moves are used up.
    fn walk(&self, start: SampleId, moves: usize, generator: &mut impl Rng, mut offer: impl FnMut(SampleId) -> bool) {
        let Self { graph, skip, restart_probability } = *self;
        if skip >= graph.degree() {
            return;
        }
        let mut current = start;
        for _ in 0..moves {
            let from = if generator.random_bool(restart_probability) { start } else { current };
            current = graph.neighbors(from)[generator.random_range(skip..graph.degree())];
            if !offer(current) {
                return;
            }
        }
    }
}

/// How many moves a walk makes for each negative.
const MAX_MOVES_PER_NEGATIVE: usize = 64;

/// How many uniform samples are tried for each negative that the walk has not found.
const MAX_TRIES_PER_NEGATIVE: usize = 64;
