use rayon::prelude::*;

use super::product::Product;
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::error::{ArgumentError, Result};
use crate::graph::ProximityGraph;
use crate::graph::kernel::{Format, Kernel};
use crate::graph::params::{Size, require_two};
use crate::graph::topk::buffer::TopK;
use crate::graph::topk::lists::Lists;
use crate::sample::{GraphVersion, SampleId};

/// Adds samples to a kNN graph, while the embeddings of its own samples stay as they were.
///
/// The new samples are those of `table` behind the old graph's. If the old graph was exact, so is the new one. Of
/// `config` only K counts; by default it is that of the old graph. Costs (new samples) N d multiplications, and the
/// memory of the new graph.
///
/// # Errors
/// Those of [`build`](crate::graph::build()).
///
/// # Panics
/// Panics if the old graph has more samples than there are embeddings, or if its samples have another number of
/// neighbors than `config.neighbors`.
pub fn insert(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    config: &GraphConfig,
    version: GraphVersion,
) -> Result<ProximityGraph> {
    assert!(old.len() <= table.len(), "the old graph has more samples than there are embeddings");
    let neighbors = config.neighbors.unwrap_or(old.degree());
    let size = Size::new(table.present(), &GraphConfig { neighbors: Some(neighbors), ..config.clone() })?;
    let present = table.present_ids();
    let (before, added) = present.split_at(present.partition_point(|&id| (id as usize) < old.len()));
    assert_eq!(old.degree(), neighbors.min(before.len() - 1), "the old graph has another K");
    let mut lists = Lists::new(table.len(), size.neighbors);
    let stripes = lists.stripes();
    before.par_iter().for_each(|&sample| {
        let (ids, scores) = (old.neighbors(SampleId(sample)), old.similarities(SampleId(sample)));
        stripes.offer_all(sample, scores.iter().copied().zip(ids.iter().map(|id| id.0)));
    });
    let chunks = |ids: &[u32]| -> Vec<Vec<u32>> { ids.chunks(CHUNK_SAMPLES).map(<[_]>::to_vec).collect() };
    let new = chunks(added);
    let all = chunks(before);
    let pairs = (0..new.len()).flat_map(|i| (0..all.len() + i + 1).map(move |j| (i, j)));
    pairs.collect::<Vec<_>>().into_par_iter().for_each_init(
        || Product::new(Kernel::new(Format::F32)),
        |product, (i, j)| {
            let rows = &new[i];
            if j == all.len() + i {
                return product.join_within(table, rows, &stripes);
            }
            let columns = all.get(j).unwrap_or_else(|| &new[j - all.len()]);
            product.pack_rows(table, rows);
            product.pack_columns(table, columns);
            product.join_across(rows, columns, &stripes);
        },
    );
    drop(stripes);
    Ok(lists.into_graph(size.neighbors, version))
}

/// Removes samples from a kNN graph. The others keep their order and are numbered anew.
///
/// Neighbors that a sample loses are replaced by the nearest of its neighbors' neighbors, including those of removed
/// neighbors. If these do not suffice, as when most samples are removed, all that remain are scored. K shrinks if there
/// are not that many others.
///
/// `table` holds the embeddings of all samples of the old graph. `removed` may be in any order and name samples twice.
/// Costs about K² d multiplications for each sample that lost a neighbor.
///
/// # Errors
/// [`ArgumentError::UnknownSample`] if `removed` names a sample that does not exist;
/// [`TooFewError::Samples`](crate::error::TooFewError::Samples) if fewer than two remain.
///
/// # Panics
/// Panics if `table` has another number of samples than the graph.
pub fn remove(
    old: &ProximityGraph,
    table: &EmbeddingTable,
    removed: &[SampleId],
    version: GraphVersion,
) -> Result<ProximityGraph> {
    assert_eq!(old.len(), table.len(), "each sample of a graph has an embedding");
    let mut remains = vec![true; old.len()];
    for &sample in removed {
        let remains = remains.get_mut(sample.index()).ok_or(ArgumentError::UnknownSample { sample, len: old.len() })?;
        *remains = false;
    }
    let mut number = vec![u32::MAX; old.len()];
    let remaining: Vec<SampleId> = (0..old.len()).filter(|&i| remains[i]).map(SampleId::new).collect();
    require_two(remaining.len())?;
    remaining.iter().zip(0..).for_each(|(id, new)| number[id.index()] = new);
    let degree = old.degree().min(remaining.len() - 1);
    let remains = |id: &SampleId| number[id.index()] != u32::MAX;

    let mut neighbors = vec![SampleId(0); remaining.len() * degree];
    let mut similarities = vec![0f32; remaining.len() * degree];
    let lists = neighbors.par_chunks_exact_mut(degree).zip(similarities.par_chunks_exact_mut(degree));
    let init = || (Vec::new(), Vec::new(), TopK::new(degree));
    lists.zip(&remaining).for_each_init(init, |(ids, scores, best), ((neighbors, similarities), &sample)| {
        let own = old.neighbors(sample);
        let kept = own.iter().zip(old.similarities(sample)).filter(|(id, _)| remains(id));
        kept.clone().for_each(|(id, &score)| best.push(score, number[id.index()]));
        let known = kept.count();
        if known < degree {
            ids.clear();
            ids.extend(own.iter().flat_map(|&id| old.neighbors(id)).copied());
            ids.sort_unstable();
            ids.dedup();
            let is_new = |id: &SampleId| *id != sample && remains(id) && !table.is_skipped(*id) && !own.contains(id);
            ids.retain(is_new);
            if known + ids.len() < degree {
                ids.clear();
                ids.extend(remaining.iter().copied().filter(is_new));
            }
            scores.clear();
            table.similarities_with(&table.get(sample), ids, scores);
            ids.iter().zip(scores).for_each(|(id, &mut score)| best.push(score, number[id.index()]));
        }
        for (slot, (score, id)) in best.drain_sorted().enumerate() {
            (similarities[slot], neighbors[slot]) = (score, SampleId(id));
        }
    });
    Ok(ProximityGraph::from_parts(neighbors, similarities, degree, version))
}

/// How many samples are joined with as many others at a time.
const CHUNK_SAMPLES: usize = 1024;
