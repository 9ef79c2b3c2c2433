//! How far a newer model's vectors are from those in use.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::index::sample;

use super::snapshot::Snapshot;
use crate::config::OnBadSample;
use crate::embeddings::EmbeddingTable;
use crate::encode::{Encoder, encode_some};
use crate::error::Result;
use crate::sample::SampleId;

/// How far a newer model's vectors are from those in use, measured on a few samples that stay the same during a run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Drift {
    /// The mean of 1 − cosine between a sample's two vectors: 0 for none, 1 for no relation.
    pub cosine_shift: f64,
    /// The share of each sample's nearest neighbors within the probe that the newer model keeps, 0 to 1. Ten neighbors,
    /// or a quarter of the probe if that is fewer.
    pub overlap: f64,
}

impl Drift {
    /// Draws the samples to measure on: `size` of the `candidates`, or all if they are fewer.
    pub(super) fn probe(candidates: &[u32], size: usize, seed: u64) -> Vec<SampleId> {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let indices = sample(&mut generator, candidates.len(), size.min(candidates.len()));
        indices.iter().map(|index| SampleId(candidates[index])).collect()
    }

    /// Embeds the samples of `probe` with `encoder`, and compares those that it can encode with their old vectors.
    pub(super) fn measure(
        encoder: &dyn Encoder,
        old: &Snapshot,
        probe: &[SampleId],
        on_bad_sample: OnBadSample,
    ) -> Result<Self> {
        let table = &old.embeddings;
        let rows = old.store.select(encoder.columns())?.gather(probe)?;
        let new = encode_some(encoder, probe, &rows, on_bad_sample, table.similarity())?;
        let indices: Vec<_> = new.present_ids().into_iter().map(SampleId).collect();
        let ids: Vec<_> = indices.iter().map(|index| probe[index.index()]).collect();
        Ok(Self::of(table, &ids, &new, &indices))
    }

    /// Compares the embeddings that two tables have of the same samples, on 512 of them.
    pub(crate) fn between(old: &EmbeddingTable, new: &EmbeddingTable) -> Self {
        let in_both = |id: &u32| (*id as usize) < new.len() && !new.is_skipped(SampleId(*id));
        let candidates: Vec<u32> = old.present_ids().into_iter().filter(in_both).collect();
        let ids = Self::probe(&candidates, PROBED, 0);
        Self::of(old, &ids, new, &ids)
    }

    /// Compares the vectors of `ids` in a table with those of `indices` in another one.
    fn of(table: &EmbeddingTable, ids: &[SampleId], new: &EmbeddingTable, indices: &[SampleId]) -> Self {
        let shift = ids.iter().zip(indices).map(|(&id, &index)| 1.0 - cosine(&table.get(id), &new.get(index)));
        let neighbors = (ids.len() / 4).clamp(1, 10);
        let overlap = (0..ids.len()).map(|index| {
            let before = nearest(table, ids, index, neighbors);
            let after = nearest(new, indices, index, neighbors);
            before.iter().filter(|neighbor| after.contains(neighbor)).count() as f64 / neighbors as f64
        });
        let count = ids.len().max(1) as f64;
        Self { cosine_shift: shift.sum::<f64>() / count, overlap: overlap.sum::<f64>() / count }
    }
}

/// The indices in `ids` of the `count` samples most similar to the one at `index`, most similar first.
fn nearest(table: &EmbeddingTable, ids: &[SampleId], index: usize, count: usize) -> Vec<usize> {
    let mut similarities = Vec::new();
    table.similarities_with(&table.get(ids[index]), ids, &mut similarities);
    let mut others: Vec<_> = (0..ids.len()).filter(|&other| other != index).collect();
    others.sort_by(|&a, &b| similarities[b].total_cmp(&similarities[a]));
    others.truncate(count);
    others
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// How many samples two tables are compared by.
const PROBED: usize = 512;
