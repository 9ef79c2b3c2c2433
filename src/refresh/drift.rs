use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::index::sample;

use crate::config::OnBadSample;
use crate::embeddings::EmbeddingTable;
use crate::encode::{Encoder, encode_some};
use crate::error::Result;
use crate::sample::SampleId;
use crate::store::Store;

/// How far a newer model's vectors lie from those in use, by a few samples that are the same all run long.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Drift {
    /// The mean of 1 − cosine between a sample's two vectors: 0 for none, 1 for no relation.
    pub cosine_shift: f64,
    /// The share of each sample's ten nearest among the probe (or a quarter, if fewer) that still are, 0 to 1.
    pub overlap: f64,
}

impl Drift {
    /// Embeds `probe` of the samples `among` with `encoder`, and compares those that it can encode.
    pub(super) fn measure(
        encoder: &dyn Encoder,
        store: &Store,
        old: &EmbeddingTable,
        (among, probe): (&[u32], usize),
        on_bad_sample: OnBadSample,
        seed: u64,
    ) -> Result<Self> {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let places = sample(&mut generator, among.len(), probe.min(among.len()));
        let ids: Vec<_> = places.iter().map(|place| SampleId(among[place])).collect();
        let rows = store.select(encoder.columns())?.gather(&ids)?;
        let new = encode_some(encoder, (&ids, &rows), on_bad_sample, old.similarity())?;
        let places = new.present_ids().into_iter().map(SampleId);
        let (places, ids): (Vec<_>, Vec<_>) = places.map(|place| (place, ids[place.index()])).unzip();

        let shift = ids.iter().zip(&places).map(|(&id, &place)| 1.0 - cosine(&old.get(id), &new.get(place)));
        let count = (ids.len() / 4).clamp(1, 10);
        let kept = (0..ids.len()).map(|i| {
            let before = nearest(old, &ids, i, count);
            let after = nearest(&new, &places, i, count);
            before.iter().filter(|place| after.contains(place)).count() as f64 / count as f64
        });
        let n = ids.len().max(1) as f64;
        Ok(Self { cosine_shift: shift.sum::<f64>() / n, overlap: kept.sum::<f64>() / n })
    }
}

/// The places in `ids` of the `count` nearest to the one at `place`.
fn nearest(table: &EmbeddingTable, ids: &[SampleId], place: usize, count: usize) -> Vec<usize> {
    let mut similarities = Vec::new();
    table.similarities_with(&table.get(ids[place]), ids, &mut similarities);
    let mut places: Vec<_> = (0..ids.len()).filter(|&other| other != place).collect();
    places.sort_by(|&a, &b| similarities[b].total_cmp(&similarities[a]));
    places.truncate(count);
    places
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}
