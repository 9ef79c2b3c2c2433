use std::sync::{Arc, OnceLock};

use arrow::buffer::ScalarBuffer;
use rayon::prelude::*;

use super::tails::InDegreeTails;
use crate::arrow_file::checksum;
use crate::error::{ArgumentError, Result};
use crate::memory;
use crate::sample::{GraphVersion, SampleId};

/// K out-neighbors for each sample, most similar first, and equally similar ones by id.
///
/// A sample that was skipped, since it has no embedding, neighbors itself alone, with similarity 0. The graph is two
/// flat arrays of 8 K bytes a sample together: in memory if it was built, mapped if it was opened from a file. Clones
/// share them.
///
/// A kNN graph that was built here has a reserve for [`refine`](super::refine()): the ids that come next, 56 bytes a
/// sample or K / 2 + 16 if that is more. It does not count when graphs are compared. Walks add a quarter of a byte a
/// sample, for which samples have low and high in-degrees.
///
/// ```
/// use prosampler::{GraphVersion, SampleId, graph::ProximityGraph};
///
/// // A graph that was built elsewhere, with K = 1.
/// let neighbors = [1, 2, 1].map(SampleId).to_vec();
/// let graph = ProximityGraph::new(neighbors, vec![0.5, 0.8, 0.8], 1, GraphVersion(1))?;
/// assert_eq!((graph.len(), graph.degree()), (3, 1));
/// assert_eq!((graph.neighbors(SampleId(1)), graph.similarities(SampleId(1))), (&[SampleId(2)][..], &[0.8][..]));
/// # Ok::<(), prosampler::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProximityGraph {
    /// The ids of neighbors [N × K], each below N.
    pub(super) neighbors: ScalarBuffer<u32>,
    pub(super) similarities: ScalarBuffer<f32>,
    pub(super) degree: usize,
    pub(super) version: GraphVersion,
    /// The ids that come after the neighbors, equally many for each sample; [`EMPTY`] stands for missing ones.
    pub(super) reserve: ScalarBuffer<u32>,
    /// Made when walks first ask for it.
    pub(super) tails: Arc<OnceLock<Arc<InDegreeTails>>>,
}

impl PartialEq for ProximityGraph {
    fn eq(&self, other: &Self) -> bool {
        let parts = |graph: &Self| (graph.degree, graph.version, graph.neighbors.clone(), graph.similarities.clone());
        parts(self) == parts(other)
    }
}

impl ProximityGraph {
    /// Makes a graph from flat lists [samples × `degree`], for graphs that were built elsewhere.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`] if the lists are not equally long, or not a multiple of `degree`;
    /// [`ArgumentError::UnknownSample`] for a neighbor that is not a sample of the graph.
    pub fn new(neighbors: Vec<SampleId>, similarities: Vec<f32>, degree: usize, version: GraphVersion) -> Result<Self> {
        if degree == 0 || !neighbors.len().is_multiple_of(degree) || neighbors.len() != similarities.len() {
            return Err(ArgumentError::Shape { found: similarities.len(), dimension: degree }.into());
        }
        let len = neighbors.len() / degree;
        match neighbors.iter().find(|id| id.index() >= len) {
            Some(&sample) => Err(ArgumentError::UnknownSample { sample, len }.into()),
            None => Ok(Self::from_parts(neighbors, similarities, degree, version)),
        }
    }

    /// Does what [`new`](Self::new) does without its checks, for builders. Neither list is copied.
    pub(crate) fn from_parts(
        neighbors: Vec<SampleId>,
        similarities: Vec<f32>,
        degree: usize,
        version: GraphVersion,
    ) -> Self {
        // Collecting keeps the allocation, since the items have equal size.
        let neighbors: Vec<u32> = neighbors.into_iter().map(|id| id.0).collect();
        memory::to_huge_pages(&neighbors);
        Self::of_buffers(neighbors.into(), similarities.into(), degree, version)
    }

    /// Makes a graph from buffers, without checks.
    pub(super) fn of_buffers(
        neighbors: ScalarBuffer<u32>,
        similarities: ScalarBuffer<f32>,
        degree: usize,
        version: GraphVersion,
    ) -> Self {
        let reserve = Vec::new().into();
        Self { neighbors, similarities, degree, version, reserve, tails: Arc::default() }
    }

    /// Adds the ids that come after the neighbors, equally many for each sample.
    pub(super) fn with_reserve(self, reserve: ScalarBuffer<u32>) -> Self {
        Self { reserve, ..self }
    }

    /// How many ids a sample has in its reserve, at most.
    pub(super) fn reserve_len(&self) -> usize {
        self.reserve.len() / self.len().max(1)
    }

    /// The reserve of a sample: the ids that come after its neighbors.
    pub(super) fn reserve(&self, id: SampleId) -> &[SampleId] {
        let count = self.reserve_len();
        let reserve = as_ids(&self.reserve[id.index() * count..][..count]);
        &reserve[..reserve.iter().position(|id| *id == EMPTY).unwrap_or(count)]
    }

    /// N: how many samples the graph has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.neighbors.len() / self.degree
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.neighbors.is_empty()
    }

    /// K: how many neighbors each sample has, fewer than asked for only if there are not that many others.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The version of this graph.
    #[must_use]
    pub fn version(&self) -> GraphVersion {
        self.version
    }

    /// The neighbors of a sample, most similar first.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[inline]
    #[must_use]
    pub fn neighbors(&self, id: SampleId) -> &[SampleId] {
        as_ids(&self.neighbors[id.index() * self.degree..][..self.degree])
    }

    /// How many samples have each sample among their neighbors; a skipped sample does not count itself. O(N K).
    pub(crate) fn in_degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0u32; self.len()];
        for id in (0..self.len()).map(SampleId::new) {
            self.neighbors(id).iter().filter(|to| **to != id).for_each(|to| degrees[to.index()] += 1);
        }
        degrees
    }

    /// The samples with the lowest and the highest in-degrees; counted at the first call, for all clones.
    pub(crate) fn in_degree_tails(&self) -> Arc<InDegreeTails> {
        self.tails.get_or_init(|| Arc::new(InDegreeTails::of_degrees(&self.in_degrees()))).clone()
    }

    /// A hash of all neighbors: graphs with the same neighbors have the same one. O(N K).
    pub(crate) fn digest(&self) -> u64 {
        checksum(self.neighbors.inner().as_slice())
    }

    /// Whether a sample was skipped, so that it neighbors itself alone.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[must_use]
    pub fn is_skipped(&self, id: SampleId) -> bool {
        self.neighbors(id)[0] == id
    }

    /// The similarities of a sample's neighbors, in the same order.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[must_use]
    pub fn similarities(&self, id: SampleId) -> &[f32] {
        &self.similarities[id.index() * self.degree..][..self.degree]
    }
}

/// Views numbers as ids: Arrow has buffers of `u32`.
#[inline]
fn as_ids(numbers: &[u32]) -> &[SampleId] {
    // SAFETY: `SampleId` is `repr(transparent)` over `u32`, every value of which is an id; the slice keeps its length
    // and its lifetime.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

/// Collects rows, in the order of samples, into a graph. An empty row is that of a skipped sample.
pub(super) fn collect(
    rows: impl IndexedParallelIterator<Item = Vec<(SampleId, f32)>>,
    degree: usize,
    version: GraphVersion,
) -> ProximityGraph {
    let (mut neighbors, mut similarities) = (Vec::new(), Vec::new());
    for (id, mut row) in rows.collect::<Vec<_>>().into_iter().enumerate() {
        if row.is_empty() {
            row.resize(degree, (SampleId::new(id), 0.0));
        }
        neighbors.extend(row.iter().map(|(id, _)| *id));
        similarities.extend(row.iter().map(|(_, similarity)| *similarity));
    }
    ProximityGraph::from_parts(neighbors, similarities, degree, version)
}

/// Stands for no sample: all ids are below this.
pub(super) const EMPTY: SampleId = SampleId(u32::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_lists_are_taken_over_without_a_copy() {
        let (neighbors, similarities) = (vec![SampleId(1), SampleId(0)], vec![0.5, 0.5]);
        let addresses = (neighbors.as_ptr() as usize, similarities.as_ptr() as usize);
        let graph = ProximityGraph::new(neighbors, similarities, 1, GraphVersion(1)).expect("a sound graph");
        assert_eq!(addresses, (graph.neighbors.as_ptr() as usize, graph.similarities.as_ptr() as usize));
    }
}
