//! "Here is a sample, may it join?"
//!
//! [`Guards`] are the rules, with the groups and embeddings of one snapshot. A [`BatchGuard`] applies them to one
//! mini-batch while it is filled. A mini-batch only grows, so a sample that was refused once would be refused again:
//! every sample is checked once a mini-batch, however often walks reach it.

mod groups;
mod mask;

use std::sync::Arc;

pub use self::groups::Groups;
pub(crate) use self::mask::Mask;
use super::counts::WalkCounts;
use crate::config::GuardsConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;
use crate::simd::dot;

/// The rules that keep likely false negatives apart, for one snapshot. Clones share groups and embeddings.
///
/// ```
/// use std::sync::Arc;
/// use prosampler::config::{GraphConfig, GuardsConfig, Similarity, WalkConfig};
/// use prosampler::walk::{EpochSampler, Groups, Guards};
/// use prosampler::{ModelVersion, embeddings::EmbeddingTable, graph};
///
/// // Samples 0 and 1 point in nearly the same direction, as do 2 and 3.
/// let vectors = vec![1.0, 0.0, 0.99, 0.1, 0.0, 1.0, 0.1, 0.99];
/// let table = Arc::new(EmbeddingTable::new(vectors, 2, Similarity::Cosine, ModelVersion(1))?);
/// let graph_config = GraphConfig { candidates: 3.into(), neighbors: Some(1), ..GraphConfig::default() };
/// let graph = graph::build(&table, &graph_config, 7, Default::default())?;
/// let config = GuardsConfig { max_similarity: Some(0.9), ..GuardsConfig::default() };
/// let guards = Guards::new(&config, Arc::new(Groups::default()), table.clone());
/// let walk = WalkConfig { batch_size: 2, ..WalkConfig::default() };
/// let draw = EpochSampler::new(4, &walk, 7, 0).next_guarded(&graph, &guards).expect("two of four differ");
/// assert!(table.similarity_of(draw.ids[0], draw.ids[1]) < 0.9);
/// # Ok::<(), prosampler::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Guards {
    config: GuardsConfig,
    /// The samples that must not share a mini-batch. The groups of key 0 are copies of each other.
    groups: Arc<Groups>,
    /// Without embeddings nobody is too similar, and nobody was skipped.
    embeddings: Option<Arc<EmbeddingTable>>,
    /// What judges similarities in place of the embeddings.
    guide: Option<Arc<EmbeddingTable>>,
}

impl Guards {
    /// Makes guards of `config` with the groups and embeddings of a snapshot.
    ///
    /// No two samples of a group share a mini-batch: key 0 of `groups` is the content of samples, the other keys are
    /// values that must be distinct. Similarities are those of `embeddings` and of its pairs. Samples that `embeddings`
    /// has skipped join no mini-batch.
    #[must_use]
    pub fn new(config: &GuardsConfig, groups: Arc<Groups>, embeddings: Arc<EmbeddingTable>) -> Self {
        Self { config: config.clone(), groups, embeddings: Some(embeddings), guide: None }
    }

    /// Makes guards of groups alone, for mini-batches that are drawn before there are embeddings.
    ///
    /// `guards.distinct` and `guards.duplicates` hold; the guards by similarity wait for embeddings.
    #[must_use]
    pub fn of_groups(config: &GuardsConfig, groups: Arc<Groups>) -> Self {
        Self { config: config.clone(), groups, embeddings: None, guide: None }
    }

    /// The same guards, with similarities by the embeddings of a guide, if there is one, in place of the snapshot's.
    #[must_use]
    pub fn guided_by(self, guide: Option<Arc<EmbeddingTable>>) -> Self {
        Self { guide, ..self }
    }

    /// Whether these guards refuse nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_whole = self.embeddings.as_ref().is_none_or(|embeddings| embeddings.is_whole());
        self.groups.is_empty() && self.config.skip_nearest == 0 && self.by_similarity().is_none() && is_whole
    }

    /// The groups of samples that share a value.
    #[must_use]
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// How many nearest neighbors of a sample no walk moves to.
    pub(in crate::walk) fn skip(&self) -> usize {
        self.config.skip_nearest
    }

    /// The embeddings, if there are any yet.
    pub(in crate::walk) fn embeddings(&self) -> Option<&Arc<EmbeddingTable>> {
        self.embeddings.as_ref()
    }

    /// The embeddings of the guide, if there is one.
    pub(crate) fn guide(&self) -> Option<&Arc<EmbeddingTable>> {
        self.guide.as_ref()
    }

    /// What bounds on similarity are judged by; `None` if they wait for embeddings.
    pub(in crate::walk) fn judge(&self) -> Option<&EmbeddingTable> {
        self.guide.as_deref().or(self.embeddings.as_deref())
    }

    /// The embeddings, if they have skipped samples.
    pub(in crate::walk) fn skipping(&self) -> Option<&Arc<EmbeddingTable>> {
        self.embeddings.as_ref().filter(|embeddings| !embeddings.is_whole())
    }

    /// What similarities are judged by, if there are guards by similarity.
    fn by_similarity(&self) -> Option<&EmbeddingTable> {
        let GuardsConfig { duplicate_similarity, max_similarity, max_relative_to_positive, .. } = &self.config;
        let asked = duplicate_similarity.is_some() || max_similarity.is_some() || max_relative_to_positive.is_some();
        self.judge().filter(|_| asked)
    }

    fn is_skipped(&self, id: SampleId) -> bool {
        self.embeddings.as_ref().is_some_and(|embeddings| embeddings.is_skipped(id))
    }
}

/// The counter of a guard's refusals.
type Counter = fn(&mut WalkCounts) -> &mut u64;

/// Decides which samples may join a mini-batch.
pub(in crate::walk) trait Admission {
    /// Whether the mini-batch is filled share by share. Known when it is compiled, so that others pay nothing for it.
    const IS_DIVIDED: bool = false;

    /// Whether a sample may join.
    fn admits(&mut self, id: SampleId) -> bool;

    /// Whether a sample may join even if embeddings have skipped it.
    fn admits_skipped(&mut self, id: SampleId) -> bool;

    /// Records that a sample joins.
    fn join(&mut self, id: SampleId);

    /// How many samples were refused, by reason.
    fn counts(&self) -> WalkCounts {
        WalkCounts::default()
    }
}

/// Every sample may join if there is no guard.
impl Admission for () {
    #[inline]
    fn admits(&mut self, _: SampleId) -> bool {
        true
    }

    #[inline]
    fn admits_skipped(&mut self, _: SampleId) -> bool {
        true
    }

    #[inline]
    fn join(&mut self, _: SampleId) {}
}

/// Admission to a mini-batch that is filled share by share.
pub(in crate::walk) struct Divided<A>(pub A);

impl<A: Admission> Admission for Divided<A> {
    const IS_DIVIDED: bool = true;

    #[inline]
    fn admits(&mut self, id: SampleId) -> bool {
        self.0.admits(id)
    }

    #[inline]
    fn admits_skipped(&mut self, id: SampleId) -> bool {
        self.0.admits_skipped(id)
    }

    #[inline]
    fn join(&mut self, id: SampleId) {
        self.0.join(id);
    }

    fn counts(&self) -> WalkCounts {
        self.0.counts()
    }
}

/// The state of a [`BatchGuard`], kept apart so that the next mini-batch reuses its memory.
#[derive(Clone, Debug, Default)]
pub(in crate::walk) struct GuardScratch {
    members: SparseBitSet,
    refused: SparseBitSet,
    /// The nearest neighbors of members.
    near: SparseBitSet,
    /// The groups that have a member.
    taken: SparseBitSet,
    /// The members' embeddings [members × d].
    vectors: Vec<f32>,
    /// How similar the two halves of each member are, if rows are pairs.
    pairs: Vec<f32>,
    /// One decoded embedding.
    decoded: Vec<f32>,
}

/// The guards of one mini-batch.
pub(in crate::walk) struct BatchGuard<'a> {
    guards: &'a Guards,
    /// Without a graph, the guard of nearest neighbors waits.
    graph: Option<&'a ProximityGraph>,
    scratch: &'a mut GuardScratch,
    counts: WalkCounts,
}

impl<'a> BatchGuard<'a> {
    /// The guards of a mini-batch of samples whose ids, and whose neighbors' ids, are below `len`.
    pub fn new(
        guards: &'a Guards,
        graph: Option<&'a ProximityGraph>,
        len: usize,
        scratch: &'a mut GuardScratch,
    ) -> Self {
        scratch.members.clear(len);
        scratch.refused.clear(len);
        scratch.near.clear(len);
        scratch.taken.clear(guards.groups.len());
        scratch.vectors.clear();
        scratch.pairs.clear();
        Self { guards, graph, scratch, counts: WalkCounts::default() }
    }

    /// The nearest neighbors of a sample, which must not share its mini-batch.
    fn nearest(&self, id: SampleId) -> &'a [SampleId] {
        let neighbors = self.graph.map_or(&[][..], |graph| graph.neighbors(id));
        &neighbors[..self.guards.config.skip_nearest.min(neighbors.len())]
    }

    /// Whether a sample has joined or was refused.
    fn is_decided(&self, id: SampleId) -> bool {
        self.scratch.refused.has(id.index()) || self.scratch.members.has(id.index())
    }

    /// Whether no guard refuses a sample; if one does, that is counted.
    fn is_allowed(&mut self, id: SampleId) -> bool {
        let Some(counter) = self.refusal(id) else { return true };
        *counter(&mut self.counts) += 1;
        self.scratch.refused.set(id.index());
        false
    }

    /// The counter of the guard that refuses a sample, if one does.
    fn refusal(&mut self, id: SampleId) -> Option<Counter> {
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
        self.too_similar(id)
    }

    /// The counter of the similarity guard that refuses a sample, if one does.
    fn too_similar(&mut self, id: SampleId) -> Option<Counter> {
        let table = self.guards.by_similarity().filter(|table| !table.is_skipped(id))?;
        let GuardScratch { vectors, pairs, decoded, .. } = &mut *self.scratch;
        let vector = table.facing(id, decoded);
        let own = table.pair_similarity(id).unwrap_or(0.0);
        let mut members = vectors.chunks_exact(table.dimension()).zip(&*pairs);
        members.find_map(|(member, &pair)| self.guards.config.too_similar(f64::from(dot(vector, member)), own, pair))
    }
}

impl GuardsConfig {
    /// The counter of the guard that keeps two samples of this similarity apart, if one does; `own` and `other` are the
    /// similarities of their own pairs.
    #[inline]
    fn too_similar(&self, similarity: f64, own: f32, other: f32) -> Option<Counter> {
        if self.duplicate_similarity.is_some_and(|bound| similarity >= bound) {
            return Some(|counts| &mut counts.refused_duplicates);
        }
        if self.max_similarity.is_some_and(|bound| similarity > bound) {
            return Some(|counts| &mut counts.refused_similar);
        }
        let near = |share: f64, pair: f32| pair > 0.0 && similarity >= share * f64::from(pair);
        if self.max_relative_to_positive.is_some_and(|share| near(share, own) || near(share, other)) {
            return Some(|counts| &mut counts.refused_relative);
        }
        None
    }
}

impl Admission for BatchGuard<'_> {
    fn admits(&mut self, id: SampleId) -> bool {
        !self.is_decided(id) && !self.guards.is_skipped(id) && self.is_allowed(id)
    }

    fn admits_skipped(&mut self, id: SampleId) -> bool {
        !self.is_decided(id) && self.is_allowed(id)
    }

    fn counts(&self) -> WalkCounts {
        self.counts
    }

    fn join(&mut self, id: SampleId) {
        self.scratch.members.set(id.index());
        self.guards.groups.groups_of(id).iter().for_each(|&group| self.scratch.taken.set(group as usize));
        self.nearest(id).iter().for_each(|near| self.scratch.near.set(near.index()));
        if let Some(table) = self.guards.by_similarity().filter(|table| !table.is_skipped(id)) {
            self.scratch.vectors.extend_from_slice(table.vector(id, &mut self.scratch.decoded));
            self.scratch.pairs.push(table.pair_similarity(id).unwrap_or(0.0));
        }
    }
}

/// A bit set that is cleared in the time that setting its bits took.
#[derive(Clone, Debug, Default)]
pub(in crate::walk) struct SparseBitSet {
    bits: Vec<u64>,
    /// The numbers whose bits are set.
    numbers: Vec<u32>,
}

impl SparseBitSet {
    /// Removes all numbers, and makes space for those below `len`.
    pub fn clear(&mut self, len: usize) {
        self.numbers.drain(..).for_each(|number| self.bits[number as usize / 64] = 0);
        self.bits.resize(len.div_ceil(64), 0);
    }

    #[inline]
    pub fn has(&self, number: usize) -> bool {
        self.bits[number / 64] >> (number % 64) & 1 == 1
    }

    pub fn set(&mut self, number: usize) {
        if !self.has(number) {
            self.bits[number / 64] |= 1 << (number % 64);
            self.numbers.push(number as u32);
        }
    }
}
