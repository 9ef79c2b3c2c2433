//! "Here is a sample, may it join?"
//!
//! A [`Guards`] is what a mini-batch must not hold together, by one snapshot; a [`BatchGuard`] applies it to one mini-batch
//! as that is filled. Whom a guard has refused once it would refuse again, since a mini-batch only grows: so every
//! sample is looked at once a mini-batch, however often walks pass by.

mod groups;

use std::sync::Arc;

pub use self::groups::Groups;
use super::WalkCounts;
use crate::config::GuardsConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;
use crate::simd::dot;

/// What keeps likely false negatives apart, by one snapshot's embeddings. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Guards {
    config: GuardsConfig,
    /// Samples that must not come together; by key 0 they are copies of each other.
    groups: Arc<Groups>,
    embeddings: Arc<EmbeddingTable>,
}

impl Guards {
    /// `groups` are of the contents of samples first, then of whatever must be distinct: no two samples of a group come
    /// together. Similarities are those of `embeddings`, and of its pairs; samples that it has skipped join nothing.
    #[must_use]
    pub fn new(config: &GuardsConfig, groups: Arc<Groups>, embeddings: Arc<EmbeddingTable>) -> Self {
        Self { config: config.clone(), groups, embeddings }
    }

    /// Whether they refuse nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty() && self.config.skip_nearest == 0 && !self.by_similarity() && self.embeddings.is_whole()
    }

    /// Samples that share a value.
    #[must_use]
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// The neighbors, from the nearest on, that no walk steps to.
    pub(in crate::walk) fn skip(&self) -> usize {
        self.config.skip_nearest
    }

    fn by_similarity(&self) -> bool {
        let GuardsConfig { duplicate_similarity, max_similarity, max_relative_to_positive, .. } = &self.config;
        duplicate_similarity.is_some() || max_similarity.is_some() || max_relative_to_positive.is_some()
    }
}

/// Who may join a mini-batch.
pub(in crate::walk) trait Admission {
    /// Whether a sample may join.
    fn admits(&mut self, id: SampleId) -> bool;

    /// It does.
    fn join(&mut self, id: SampleId);

    /// How many were refused.
    fn counts(&self) -> WalkCounts {
        WalkCounts::default()
    }
}

/// No guard.
impl Admission for () {
    #[inline]
    fn admits(&mut self, _: SampleId) -> bool {
        true
    }

    #[inline]
    fn join(&mut self, _: SampleId) {}
}

/// What is remembered from sample to sample of a mini-batch; the memory is kept for the next one.
#[derive(Clone, Debug, Default)]
pub(in crate::walk) struct GuardScratch {
    members: SparseBitSet,
    refused: SparseBitSet,
    /// First neighbors of members.
    near: SparseBitSet,
    /// Groups of members.
    taken: SparseBitSet,
    /// Members' embeddings [members × d], and how similar their own pairs are.
    vectors: Vec<f32>,
    pairs: Vec<f32>,
    room: Vec<f32>,
}

/// The guards of one mini-batch.
pub(in crate::walk) struct BatchGuard<'a> {
    guards: &'a Guards,
    graph: &'a ProximityGraph,
    scratch: &'a mut GuardScratch,
    counts: WalkCounts,
}

impl<'a> BatchGuard<'a> {
    pub fn new(guards: &'a Guards, graph: &'a ProximityGraph, scratch: &'a mut GuardScratch) -> Self {
        scratch.members.clear(graph.len());
        scratch.refused.clear(graph.len());
        scratch.near.clear(graph.len());
        scratch.taken.clear(guards.groups.len());
        scratch.vectors.clear();
        scratch.pairs.clear();
        Self { guards, graph, scratch, counts: WalkCounts::default() }
    }

    /// The neighbors that must not come with a sample.
    fn nearest(&self, id: SampleId) -> &'a [SampleId] {
        let neighbors = self.graph.neighbors(id);
        &neighbors[..self.guards.config.skip_nearest.min(neighbors.len())]
    }

    /// The counter of the guard that refuses a sample, if one does.
    fn refusal(&mut self, id: SampleId) -> Option<fn(&mut WalkCounts) -> &mut u64> {
        let scratch = &*self.scratch;
        if let Some(&group) = self.guards.groups.groups_of(id).iter().find(|&&group| scratch.taken.has(group as usize))
        {
            let copies = self.guards.groups.of_key(0).contains(&group);
            return Some(if copies {
                |counts| &mut counts.refused_duplicates
            } else {
                |counts| &mut counts.refused_distinct
            });
        }
        if scratch.near.has(id.index()) || self.nearest(id).iter().any(|near| scratch.members.has(near.index())) {
            return Some(|counts| &mut counts.refused_nearest);
        }
        if self.guards.by_similarity() { self.too_similar(id) } else { None }
    }

    fn too_similar(&mut self, id: SampleId) -> Option<fn(&mut WalkCounts) -> &mut u64> {
        let table = &*self.guards.embeddings;
        let config = &self.guards.config;
        let GuardScratch { vectors, pairs, room, .. } = &mut *self.scratch;
        let vector = table.vector(id, room);
        let own = table.pair_similarity(id).unwrap_or(0.0);
        for (member, &pair) in vectors.chunks_exact(table.dimension()).zip(&*pairs) {
            let similarity = f64::from(dot(vector, member));
            if config.duplicate_similarity.is_some_and(|bound| similarity >= bound) {
                return Some(|counts| &mut counts.refused_duplicates);
            }
            if config.max_similarity.is_some_and(|bound| similarity > bound) {
                return Some(|counts| &mut counts.refused_similar);
            }
            let near = |share: f64, pair: f32| pair > 0.0 && similarity >= share * f64::from(pair);
            if config.max_relative_to_positive.is_some_and(|share| near(share, own) || near(share, pair)) {
                return Some(|counts| &mut counts.refused_relative);
            }
        }
        None
    }
}

impl Admission for BatchGuard<'_> {
    fn admits(&mut self, id: SampleId) -> bool {
        if self.scratch.refused.has(id.index()) || self.scratch.members.has(id.index()) {
            return false;
        }
        if self.guards.embeddings.is_skipped(id) {
            return false;
        }
        let Some(counter) = self.refusal(id) else { return true };
        *counter(&mut self.counts) += 1;
        self.scratch.refused.set(id.index());
        false
    }

    fn counts(&self) -> WalkCounts {
        self.counts
    }

    fn join(&mut self, id: SampleId) {
        self.scratch.members.set(id.index());
        self.guards.groups.groups_of(id).iter().for_each(|&group| self.scratch.taken.set(group as usize));
        self.nearest(id).iter().for_each(|near| self.scratch.near.set(near.index()));
        if self.guards.by_similarity() {
            let table = &*self.guards.embeddings;
            self.scratch.vectors.extend_from_slice(table.vector(id, &mut self.scratch.room));
            self.scratch.pairs.push(table.pair_similarity(id).unwrap_or(0.0));
        }
    }
}

/// Which of many numbers are marked; unmarking all takes as long as marking them did.
#[derive(Clone, Debug, Default)]
pub(in crate::walk) struct SparseBitSet {
    bits: Vec<u64>,
    marked: Vec<u32>,
}

impl SparseBitSet {
    pub fn clear(&mut self, len: usize) {
        self.marked.drain(..).for_each(|number| self.bits[number as usize / 64] = 0);
        self.bits.resize(len.div_ceil(64), 0);
    }

    #[inline]
    pub fn has(&self, number: usize) -> bool {
        self.bits[number / 64] >> (number % 64) & 1 == 1
    }

    pub fn set(&mut self, number: usize) {
        if !self.has(number) {
            self.bits[number / 64] |= 1 << (number % 64);
            self.marked.push(number as u32);
        }
    }
}
