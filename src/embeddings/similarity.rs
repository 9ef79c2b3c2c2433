//! How similar samples are.

use std::borrow::Cow;

use super::table::EmbeddingTable;
use crate::config::{Similarity, Storage};
use crate::sample::SampleId;
use crate::simd::{dot, dots};

impl EmbeddingTable {
    /// Returns the vector whose dot product with another sample's embedding is the similarity of the two.
    ///
    /// That is the sample's embedding, for cross similarity with its halves swapped and copied to `scratch`.
    #[inline]
    pub(crate) fn facing<'a>(&'a self, id: SampleId, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        if self.similarity != Similarity::Cross {
            return self.vector(id, scratch);
        }
        scratch.resize(self.dimension, 0.0);
        self.read_facing(id, scratch);
        scratch
    }

    /// Copies the [facing](Self::facing) vector of a sample to `vector`, which holds d numbers.
    pub(crate) fn read_facing(&self, id: SampleId, vector: &mut [f32]) {
        self.read(id, vector);
        if self.similarity == Similarity::Cross {
            vector.rotate_left(self.dimension / 2);
        }
    }

    /// Whether [facing](Self::facing) vectors are the embeddings themselves.
    pub(crate) fn faces_itself(&self) -> bool {
        self.similarity != Similarity::Cross
    }

    /// Returns the similarity of two samples.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[must_use]
    pub fn similarity_of(&self, a: SampleId, b: SampleId) -> f32 {
        dot(self.facing(a, &mut Vec::new()), &self.get(b))
    }

    /// Appends the similarities of `vector`, the d numbers of an embedding, with each of `ids`, in their order.
    ///
    /// # Panics
    /// Panics if there is no such sample, or `vector` has another length.
    pub fn similarities_with(&self, vector: &[f32], ids: &[SampleId], similarities: &mut Vec<f32>) {
        assert_eq!(vector.len(), self.dimension);
        let (anchor, positive) = vector.split_at(self.dimension / 2);
        let vector = if self.faces_itself() { vector.into() } else { Cow::from([positive, anchor].concat()) };
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
            dots(&vector, others, similarities);
        } else {
            let mut other = vec![0f32; self.dimension];
            for ((index, &id), similarity) in ids.iter().enumerate().zip(similarities) {
                prefetch_after(index);
                self.read(id, &mut other);
                *similarity = dot(&vector, &other);
            }
        }
    }

    /// Returns the mean similarity over all pairs among `ids`, which tells how hard a mini-batch is.
    ///
    /// It is 0 for fewer than two ids. Cost: O(B d) for B ids, since the sum over all pairs is
    /// (s(Σ x, Σ x) − Σ s(x, x)) / 2.
    ///
    /// # Panics
    /// Panics if there is no such sample.
    #[must_use]
    pub fn mean_similarity(&self, ids: &[SampleId]) -> f32 {
        if ids.len() < 2 {
            return 0.0;
        }
        let mut sum = vec![0f64; self.dimension];
        let mut own = 0f64;
        // Which component faces the first one.
        let first = if self.faces_itself() { 0 } else { self.dimension / 2 };
        for &id in ids {
            let vector = self.get(id);
            let facing = vector[first..].iter().chain(&vector[..first]);
            for ((s, &x), &y) in sum.iter_mut().zip(&*vector).zip(facing) {
                *s += f64::from(x);
                own += f64::from(x) * f64::from(y);
            }
        }
        let n = ids.len() as f64;
        let facing = sum[first..].iter().chain(&sum[..first]);
        let total: f64 = sum.iter().zip(facing).map(|(x, y)| x * y).sum();
        ((total - own) / (n * (n - 1.0))) as f32
    }
}

/// How many vectors ahead of its use one is prefetched.
const VECTORS_AHEAD: usize = 8;
