use arrow::buffer::ScalarBuffer;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::memory;
use crate::sample::{GraphVersion, SampleId};

/// K out-neighbors for each sample, most similar first; equally similar ones by id. A sample that was skipped, having no
/// embedding, is nobody's neighbor but its own, with similarity 0.
///
/// Two flat arrays, 8 K bytes a sample: in memory where the graph was built, or mapped from a file. Cloning shares
/// them. A kNN graph that was built here has some more ids a sample, 64 bytes or K / 2 + 16 if that is more: those that
/// come next, for [`refine`](super::refine()). They do not count where graphs are compared.
#[derive(Clone, Debug)]
pub struct ProximityGraph {
    /// Ids of N × K neighbors, each below N.
    pub(super) neighbors: ScalarBuffer<u32>,
    pub(super) similarities: ScalarBuffer<f32>,
    pub(super) degree: usize,
    pub(super) version: GraphVersion,
    /// Equally many for each sample; [`EMPTY`] where fewer are known.
    pub(super) spares: ScalarBuffer<u32>,
}

impl PartialEq for ProximityGraph {
    fn eq(&self, other: &Self) -> bool {
        let parts = |graph: &Self| (graph.degree, graph.version, graph.neighbors.clone(), graph.similarities.clone());
        parts(self) == parts(other)
    }
}

impl ProximityGraph {
    /// A graph from flat lists, `degree` neighbors a sample and one similarity each: a graph made elsewhere, or by hand.
    ///
    /// # Errors
    /// [`Error::Shape`] where the lists are no whole number of neighborhoods, or not equally long;
    /// [`Error::UnknownSample`] for a neighbor that is no sample of the graph.
    pub fn new(neighbors: Vec<SampleId>, similarities: Vec<f32>, degree: usize, version: GraphVersion) -> Result<Self> {
        if degree == 0 || !neighbors.len().is_multiple_of(degree) || neighbors.len() != similarities.len() {
            return Err(Error::Shape { found: similarities.len(), dimension: degree });
        }
        let len = neighbors.len() / degree;
        match neighbors.iter().find(|id| id.index() >= len) {
            Some(&sample) => Err(Error::UnknownSample { sample, len }),
            None => Ok(Self::from_parts(neighbors, similarities, degree, version)),
        }
    }

    /// [`new`](Self::new) without its checks, for builders. Neither list is copied.
    pub(crate) fn from_parts(
        neighbors: Vec<SampleId>,
        similarities: Vec<f32>,
        degree: usize,
        version: GraphVersion,
    ) -> Self {
        // Collected in place: a vector's own iterator gives its allocation to items of equal size.
        let neighbors: Vec<u32> = neighbors.into_iter().map(|id| id.0).collect();
        memory::to_huge_pages(&neighbors);
        Self::of_buffers(neighbors.into(), similarities.into(), degree, version)
    }

    /// The same of buffers.
    pub(super) fn of_buffers(
        neighbors: ScalarBuffer<u32>,
        similarities: ScalarBuffer<f32>,
        degree: usize,
        version: GraphVersion,
    ) -> Self {
        Self { neighbors, similarities, degree, version, spares: Vec::new().into() }
    }

    /// Keeps the ids that come next, equally many a sample.
    pub(super) fn with_reserve(self, spares: ScalarBuffer<u32>) -> Self {
        Self { spares, ..self }
    }

    /// Ids a sample that come next, at most.
    pub(super) fn reserve_len(&self) -> usize {
        self.spares.len() / self.len().max(1)
    }

    /// The ids that come next, where they are known.
    pub(super) fn spares(&self, id: SampleId) -> &[SampleId] {
        let count = self.reserve_len();
        let spares = as_ids(&self.spares[id.index() * count..][..count]);
        &spares[..spares.iter().position(|id| *id == EMPTY).unwrap_or(count)]
    }

    /// Samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.neighbors.len() / self.degree
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.neighbors.is_empty()
    }

    /// K: out-neighbors of each sample; fewer than asked for only where there are not that many others.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Which graph this is.
    #[must_use]
    pub fn version(&self) -> GraphVersion {
        self.version
    }

    /// The neighbors of a sample, most similar first.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[inline]
    #[must_use]
    pub fn neighbors(&self, id: SampleId) -> &[SampleId] {
        as_ids(&self.neighbors[id.index() * self.degree..][..self.degree])
    }

    /// Whether a sample was skipped: it neighbors itself alone.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[must_use]
    pub fn is_skipped(&self, id: SampleId) -> bool {
        self.neighbors(id)[0] == id
    }

    /// The similarities of those neighbors, in the same order.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[must_use]
    pub fn similarities(&self, id: SampleId) -> &[f32] {
        &self.similarities[id.index() * self.degree..][..self.degree]
    }
}

/// Arrow has buffers of `u32`, the graph has ids.
#[inline]
fn as_ids(numbers: &[u32]) -> &[SampleId] {
    // SAFETY: `SampleId` is `repr(transparent)` over `u32`, every value of which is an id; the slice keeps its length
    // and its lifetime.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_lists_are_taken_over_without_a_copy() {
        let (neighbors, similarities) = (vec![SampleId(1), SampleId(0)], vec![0.5, 0.5]);
        let places = (neighbors.as_ptr() as usize, similarities.as_ptr() as usize);
        let graph = ProximityGraph::new(neighbors, similarities, 1, GraphVersion(1)).expect("a sound graph");
        assert_eq!(places, (graph.neighbors.as_ptr() as usize, graph.similarities.as_ptr() as usize));
    }
}

/// Rows in their order to flat arrays.
pub(super) fn collect(
    rows: impl IndexedParallelIterator<Item = Vec<(SampleId, f32)>>,
    degree: usize,
    version: GraphVersion,
) -> ProximityGraph {
    let (mut neighbors, mut similarities) = (Vec::new(), Vec::new());
    for (id, mut row) in rows.collect::<Vec<_>>().into_iter().enumerate() {
        if row.is_empty() {
            // Skipped.
            row.resize(degree, (SampleId::new(id), 0.0));
        }
        neighbors.extend(row.iter().map(|(id, _)| *id));
        similarities.extend(row.iter().map(|(_, similarity)| *similarity));
    }
    ProximityGraph::from_parts(neighbors, similarities, degree, version)
}

/// No sample: ids are below this.
pub(super) const EMPTY: SampleId = SampleId(u32::MAX);
