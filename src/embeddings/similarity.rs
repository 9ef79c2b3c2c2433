//! How similar samples are.

use super::table::EmbeddingTable;
use crate::config::Storage;
use crate::sample::SampleId;
use crate::simd::{dot, dots};

impl EmbeddingTable {
    /// Returns the similarity of two samples.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[must_use]
    pub fn similarity_of(&self, a: SampleId, b: SampleId) -> f32 {
        dot(&self.get(a), &self.get(b))
    }

    /// Appends the similarities of `vector`, which holds d numbers, with each of `ids`, in their order.
    ///
    /// # Panics
    /// Panics if there is no such sample, or `vector` has another length.
    pub fn similarities_with(&self, vector: &[f32], ids: &[SampleId], similarities: &mut Vec<f32>) {
        assert_eq!(vector.len(), self.dimension);
        let prefetch_after = |index: usize| {
            if let Some(&id) = ids.get(index + VECTORS_AHEAD) {
                self.prefetch(id);
            }
        };
        let first = similarities.len();
        similarities.resize(first + ids.len(), 0.0);
        let similarities = &mut similarities[first..];
        if self.storage() == Storage::F32 {
            let others = ids.iter().enumerate().map(|(index, &id)| {
                prefetch_after(index);
                self.f32(id).expect("the table stores f32")
            });
            dots(vector, others, similarities);
        } else {
            let mut other = vec![0f32; self.dimension];
            for ((index, &id), similarity) in ids.iter().enumerate().zip(similarities) {
                prefetch_after(index);
                self.read(id, &mut other);
                *similarity = dot(vector, &other);
            }
        }
    }

    /// Returns the mean similarity over all pairs among `ids`, which tells how hard a mini-batch is.
    ///
    /// It is 0 for fewer than two ids. Cost: O(B d) for B ids, since the sum over all pairs is
    /// (‖Σ x‖² − Σ ‖x‖²) / 2.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[must_use]
    pub fn mean_similarity(&self, ids: &[SampleId]) -> f32 {
        if ids.len() < 2 {
            return 0.0;
        }
        let mut sum = vec![0f64; self.dimension];
        let mut squares = 0f64;
        for &id in ids {
            for (s, &x) in sum.iter_mut().zip(self.get(id).iter()) {
                *s += f64::from(x);
                squares += f64::from(x) * f64::from(x);
            }
        }
        let n = ids.len() as f64;
        let total: f64 = sum.iter().map(|s| s * s).sum();
        ((total - squares) / (n * (n - 1.0))) as f32
    }
}

/// How many vectors ahead of its use one is prefetched.
const VECTORS_AHEAD: usize = 8;
