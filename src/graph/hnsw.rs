//! Approximate nearest neighbors by a hierarchical navigable small world (HNSW, arXiv 1603.09320).
//!
//! The index is that of the crate instant-distance.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use instant_distance::{Builder, Hnsw, Point, Search};
use rand::seq::index;
use rand::{Rng, RngExt};
use rayon::prelude::*;

use crate::config::Similarity;
use crate::embeddings::EmbeddingTable;
use crate::error::{ArgumentError, EmbeddingError, Error, Result};
use crate::graph::ProximityGraph;
use crate::graph::params::generator;
use crate::graph::proximity_graph::collect;
use crate::sample::{GraphVersion, SampleId};
use crate::simd::dot;
use crate::telemetry;

/// An index that finds the samples most similar to a vector by a few thousand comparisons.
///
/// It is made for many queries over one large table. It takes about 340 bytes a sample beside the table: 32 links, and
/// 64 in the lowest layer, whatever K is. Nothing can be added later. An index that was built on one thread is the same
/// for the same seed; on several threads it depends on their timing, and so may what it finds.
pub struct HnswIndex {
    table: Arc<EmbeddingTable>,
    hnsw: Hnsw<IndexPoint<Arc<EmbeddingTable>>>,
}

impl HnswIndex {
    /// Builds an index over all samples of `table`, on the current rayon pool.
    ///
    /// Costs some 20,000 to 60,000 similarities a sample.
    #[must_use]
    pub fn build(table: &Arc<EmbeddingTable>, seed: u64) -> Self {
        Self { table: table.clone(), hnsw: index(table.clone(), EF_SEARCH, seed) }
    }

    /// Finds the `k` samples most similar to `vector`, or all if there are fewer, each with its similarity.
    ///
    /// They come most similar first, and equally similar ones by id. `vector` is what the encoder gives; it is scaled
    /// as the table is. A few may be missed; docs/graph.md has figures. For `k` above 200, and if the index reaches
    /// fewer than `k`, all samples are compared. It blocks, so do not call it on threads of an async runtime.
    ///
    /// # Errors
    /// [`ArgumentError::Query`] for a vector that has another dimension, is not finite, or has no usable length.
    pub fn search(&self, vector: &[f32], k: usize) -> Result<Vec<(SampleId, f32)>> {
        let query = IndexPoint { table: Arc::new(query(&self.table, vector)?), id: SampleId(0), padding: 0.0 };
        let k = k.min(self.table.present());
        let mut found = Vec::new();
        if k <= EF_SEARCH {
            found.extend(nearest(&self.hnsw, &query, &mut Search::default()));
        }
        if found.len() < k {
            found = self.hnsw.iter().map(|(_, sample)| (sample.id, -query.distance(sample))).collect();
        }
        found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(k);
        Ok(found)
    }
}

impl fmt::Debug for HnswIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HnswIndex").field("samples", &self.table.len()).finish_non_exhaustive()
    }
}

/// Builds the graph of approximate nearest neighbors: the paper's for M → N, except for a few that it misses.
///
/// A sample for which the index reaches fewer than K others gets uniform ones, which a warning counts.
pub(in crate::graph) fn build(table: &EmbeddingTable, k: usize, seed: u64, version: GraphVersion) -> ProximityGraph {
    let present = table.present_ids();
    let _span = telemetry::graph(present.len(), present.len() - 1, k, version).entered();
    let hnsw = index(table, EF_SEARCH.max(2 * k), generator(seed, version, u64::MAX).random());
    let topped_up = AtomicUsize::new(0);
    let row = |search: &mut Search, row: usize| {
        let id = SampleId::new(row);
        if table.is_skipped(id) {
            return Vec::new();
        }
        let others = nearest(&hnsw, &IndexPoint { table, id, padding: 0.0 }, search).filter(|(other, _)| *other != id);
        let mut list: Vec<_> = others.take(k).collect();
        if list.len() < k {
            topped_up.fetch_add(1, Ordering::Relaxed);
            top_up(&mut list, table, (id, &present), k, &mut generator(seed, version, row as u64));
        }
        list.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        list
    };
    let graph = collect((0..table.len()).into_par_iter().map_init(Search::default, row), k, version);
    match topped_up.into_inner() {
        0 => {}
        samples => telemetry::neighbors_topped_up(samples, version),
    }
    graph
}

/// Fills the list of `id` up to `k` with uniform others of `present`, which has at least `k` others.
fn top_up(
    list: &mut Vec<(SampleId, f32)>,
    table: &EmbeddingTable,
    (id, present): (SampleId, &[u32]),
    k: usize,
    generator: &mut impl Rng,
) {
    let missing = k - list.len();
    let known: Vec<_> = list.iter().map(|(other, _)| *other).chain([id]).collect();
    // At most k + 1 − `missing` of these are known.
    let drawn = index::sample(generator, present.len(), k + 1);
    let unknown = drawn.iter().map(|index| SampleId(present[index])).filter(|other| !known.contains(other));
    list.extend(unknown.take(missing).map(|other| (other, table.similarity_of(id, other))));
}

/// A point of the index: a sample of a table, or a query, the only sample of a table of its own.
#[derive(Clone)]
struct IndexPoint<T> {
    table: T,
    id: SampleId,
    /// One more component, which makes all samples equally long; 0 for a query.
    ///
    /// So the most similar are the nearest for the dot product too (Bachrach et al. 2014, "Speeding up the Xbox
    /// recommender system").
    padding: f32,
}

impl<T: Deref<Target = EmbeddingTable> + Clone + Sync> Point for IndexPoint<T> {
    /// A number that is ordered as the Euclidean distance: |a − b|² is 2 |a|² − 2 a b, and all samples have equal |a|.
    fn distance(&self, other: &Self) -> f32 {
        let similarity = match std::ptr::eq(&*self.table, &*other.table) {
            true => self.table.similarity_of(self.id, other.id),
            false => similarity_between(&self.table, self.id, &other.table, other.id),
        };
        -(similarity + self.padding * other.padding)
    }
}

/// The similarity of samples of two tables that have the same dimension.
fn similarity_between(a: &EmbeddingTable, a_id: SampleId, b: &EmbeddingTable, b_id: SampleId) -> f32 {
    dot(a.facing(a_id, &mut Vec::new()), &b.get(b_id))
}

/// Makes a table of one sample from a query vector, checked and scaled like the samples of `table`.
fn query(table: &EmbeddingTable, vector: &[f32]) -> Result<EmbeddingTable> {
    let (found, dimension) = (vector.len(), table.dimension());
    if found != dimension {
        let reason = format!("it has {found} numbers where the embeddings have {dimension}");
        return Err(ArgumentError::Query { reason }.into());
    }
    let checked = EmbeddingTable::new(vector.to_vec(), dimension, table.similarity(), table.model_version());
    checked.map_err(|error| match error {
        Error::Embedding(EmbeddingError::NotFinite { component, value, .. }) => {
            ArgumentError::Query { reason: format!("component {component} is {value}") }.into()
        }
        Error::Embedding(EmbeddingError::BadLength { length, similarity, .. }) => {
            ArgumentError::Query { reason: format!("its length {length} has no usable {similarity} similarity") }.into()
        }
        other => other,
    })
}

/// Builds the index over the samples of a table that were not skipped.
fn index<T: Deref<Target = EmbeddingTable> + Clone + Sync>(
    table: T,
    ef_search: usize,
    seed: u64,
) -> Hnsw<IndexPoint<T>> {
    let ids = || (0..table.len()).map(SampleId::new).filter(|id| !table.is_skipped(*id));
    let square = |id| table.similarity_of(id, id);
    let longest = ids().map(square).fold(0f32, f32::max);
    let padding = |id| match table.similarity() {
        Similarity::Cosine | Similarity::Cross => 0.0,
        Similarity::Dot => (longest - square(id)).max(0.0).sqrt(),
    };
    let points = ids().map(|id| IndexPoint { table: table.clone(), id, padding: padding(id) }).collect();
    Builder::default().ef_construction(EF_CONSTRUCTION).ef_search(ef_search).seed(seed).build_hnsw(points).0
}

/// Searches the index; the results come about most similar first.
fn nearest<'a, T: Deref<Target = EmbeddingTable> + Clone + Sync>(
    hnsw: &'a Hnsw<IndexPoint<T>>,
    query: &IndexPoint<T>,
    search: &'a mut Search,
) -> impl Iterator<Item = (SampleId, f32)> + 'a {
    hnsw.search(query, search).map(|item| (item.point.id, -item.distance))
}

/// How many candidates are kept while a sample is linked, and while one is searched for; more find more and take
/// longer.
const EF_CONSTRUCTION: usize = 100;
const EF_SEARCH: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::ModelVersion;

    #[test]
    fn short_lists_are_topped_up_with_distinct_others() {
        for len in 2..20 {
            let vectors = (0..len).flat_map(|i| [1.0, i as f32]).collect();
            let table = EmbeddingTable::new(vectors, 2, Similarity::Dot, ModelVersion(1)).expect("a sound table");
            for (k, found) in (1..len).flat_map(|k| (0..k).map(move |found| (k, found))) {
                let id = SampleId::new(k);
                let mut list: Vec<_> =
                    (0..found).map(|i| (SampleId::new(i), table.similarity_of(id, SampleId::new(i)))).collect();
                let before = list.clone();
                top_up(
                    &mut list,
                    &table,
                    (id, &table.present_ids()),
                    k,
                    &mut generator(7, GraphVersion(1), found as u64),
                );
                assert_eq!((list.len(), &list[..found]), (k, &before[..]));
                assert!(list.iter().all(|&(other, similarity)| similarity == table.similarity_of(id, other)));
                let mut ids: Vec<_> = list.iter().map(|(other, _)| *other).chain([id]).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), k + 1, "{len} samples, {found} of {k} found");
            }
        }
    }
}
