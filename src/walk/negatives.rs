use rand::seq::index;
use rand::{Rng, RngExt};

use super::counts::WalkCounts;
use super::guards::{Admission, SparseBitSet};
use super::strata::Strata;
use crate::config::{NegativeChoice, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// The explicit negatives to find, as the settings say: for each sample of a mini-batch, among the first `samples`, and
/// of the same one of `strata`.
pub(super) struct NegativeRequest<'a> {
    pub of: &'a [SampleId],
    pub config: &'a WalkConfig,
    pub samples: usize,
    pub strata: Option<&'a Strata>,
    /// What margins are measured by; without it they wait.
    pub judge: Option<&'a EmbeddingTable>,
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
    /// 1. Take what may join of its neighbors at `walk.negative_ranks`. Without such ranks, walk at random with restart
    ///    from the sample instead, so that negatives are near it. Without a `search`, skip this.
    /// 2. If there are too few of these, choose uniformly.
    /// 3. If that fails too, repeat negatives of other samples; `None` stands for those that are still missing.
    ///
    /// Margins hold for all of them, and none is a neighbor before the first rank.
    pub fn find(
        &self,
        search: Option<&NegativeSearch<'_>>,
        used: &mut SparseBitSet,
        admission: &mut impl Admission,
        counts: &mut WalkCounts,
        generator: &mut impl Rng,
    ) -> Vec<Option<SampleId>> {
        let count = self.config.negatives;
        used.clear(self.samples);
        self.of.iter().for_each(|id| used.set(id.index()));
        let mut negatives: Vec<Option<SampleId>> = Vec::with_capacity(self.of.len() * count);
        for (row, &of) in self.of.iter().enumerate() {
            let end = (row + 1) * count;
            let rules = Rules::of(of, self, search);
            let mut offer = |negatives: &mut Vec<_>, id: SampleId| {
                let is_alike = |strata: &Strata| strata.stratum(id) == strata.stratum(of);
                let is_sample = id.index() < self.samples && self.strata.is_none_or(is_alike);
                let fine = is_sample && !used.has(id.index()) && rules.allow(id) && admission.admits(id);
                if fine {
                    used.set(id.index());
                    negatives.push(Some(id));
                }
                fine
            };
            if let Some(search) = search {
                let reach = |reached| {
                    offer(&mut negatives, reached);
                    negatives.len() < end
                };
                match self.config.negative_ranks {
                    Some(ranks) => search.choose(of, ranks, self.config.negative_choice, generator, reach),
                    None => search.walk(of, MAX_MOVES_PER_NEGATIVE * count, generator, reach),
                }
            }
            let mut tries = 0;
            while negatives.len() < end && tries < MAX_TRIES_PER_NEGATIVE * count {
                let any = SampleId::new(generator.random_range(0..self.samples));
                let is_top_up = offer(&mut negatives, any) && search.is_some();
                counts.negatives_topped_up += u64::from(is_top_up);
                tries += 1;
            }
            if negatives.len() == end {
                continue;
            }
            let mut others: Vec<_> = negatives.iter().copied().flatten().filter(|&other| rules.allow(other)).collect();
            while negatives.len() < end {
                let again = (!others.is_empty()).then(|| others[generator.random_range(0..others.len())]);
                counts.negatives_repeated += u64::from(again.is_some());
                others.extend(again);
                negatives.push(again);
            }
        }
        negatives
    }
}

/// Which samples may be negatives of one sample, beside what guards say.
struct Rules<'a> {
    /// Its neighbors before the first rank.
    nearest: &'a [SampleId],
    /// How similar to it they may be at most, by which embeddings.
    bound: Option<(SampleId, &'a EmbeddingTable, f64)>,
}

impl<'a> Rules<'a> {
    fn of(id: SampleId, request: &NegativeRequest<'a>, search: Option<&NegativeSearch<'a>>) -> Self {
        let NegativeRequest { config, judge, .. } = *request;
        let nearest = search.zip(config.negative_ranks).map_or(&[][..], |(search, [first, _])| {
            let neighbors = search.graph.neighbors(id);
            &neighbors[..first.min(neighbors.len())]
        });
        let bound = judge.filter(|table| !table.is_skipped(id)).and_then(|table| {
            let pair = f64::from(table.pair_similarity(id)?);
            let absolute = config.negative_absolute_margin.map(|margin| pair - margin);
            let relative = config.negative_relative_margin.map(|margin| pair - pair.abs() * margin);
            let bound = absolute.into_iter().chain(relative).reduce(f64::min)?;
            Some((id, table, bound))
        });
        Self { nearest, bound }
    }

    fn allow(&self, other: SampleId) -> bool {
        let is_apart = self.bound.is_none_or(|(id, table, bound)| f64::from(table.similarity_of(id, other)) <= bound);
        is_apart && !self.nearest.contains(&other)
    }
}

impl NegativeSearch<'_> {
    /// `offer`s a sample's neighbors at these ranks, until this returns false.
    fn choose(
        &self,
        id: SampleId,
        [first, end]: [usize; 2],
        choice: NegativeChoice,
        generator: &mut impl Rng,
        mut offer: impl FnMut(SampleId) -> bool,
    ) {
        let neighbors = self.graph.neighbors(id);
        let end = end.min(neighbors.len());
        let neighbors = &neighbors[first.min(end)..end];
        let mut take = |place: usize| offer(neighbors[place]);
        match choice {
            NegativeChoice::Top => (0..neighbors.len()).all(&mut take),
            NegativeChoice::Random => {
                index::sample(generator, neighbors.len(), neighbors.len()).into_iter().all(&mut take)
            }
        };
    }

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
