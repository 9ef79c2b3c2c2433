use std::borrow::Cow;

use super::skipped::{Flaw, SkipReason, Skipped, prepare};
use super::stored::StoredVectors;
use crate::config::{Similarity, Storage};
use crate::error::{Error, Result};
use crate::sample::{ModelVersion, SampleId};
use crate::simd::{dot, dots};

/// The embeddings of all samples, made by one model version; never changed once made.
///
/// Row-major, d numbers a sample, kept as [`Storage`] says: 4 d bytes in f32, 2 d in f16, d + 4 in i8. With cosine
/// similarity every embedding has unit length, so that a dot product is the cosine. Samples that could not be read and
/// were skipped ([`OnBadSample`](crate::config::OnBadSample)) have a place, but no embedding: zeros stand there.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingTable {
    pub(super) vectors: StoredVectors,
    pub(super) dimension: usize,
    pub(super) similarity: Similarity,
    pub(super) model_version: ModelVersion,
    pub(super) skipped: Skipped,
    /// Of each sample's anchor and positive, where rows are pairs; empty where they are not.
    pub(super) pair_similarities: Vec<f32>,
}

impl EmbeddingTable {
    /// Copies `vectors` [samples × dimension], row-major, sample 0 first, and keeps them in f32; scales them to unit
    /// length for cosine. [`with_capacity`](Self::with_capacity) and [`push`](Self::push) need no second copy of all.
    ///
    /// # Errors
    /// [`Error::Shape`] where the numbers are no whole number of vectors; [`Error::NotFinite`] and
    /// [`Error::BadLength`] (zero, or so large that similarities overflow) with the sample.
    pub fn new(
        mut vectors: Vec<f32>,
        dimension: usize,
        similarity: Similarity,
        model_version: ModelVersion,
    ) -> Result<Self> {
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(Error::Shape { found: vectors.len(), dimension });
        }
        let samples = vectors.len() / dimension;
        let mut table = Self::with_capacity(samples, dimension, Storage::F32, similarity, model_version)?;
        table.push(&mut vectors)?;
        Ok(table)
    }

    /// An empty table with room for `samples`, to be filled by [`push`](Self::push); more of them cost a copy of all.
    ///
    /// # Errors
    /// [`Error::Shape`] for a dimension of 0 or above 65,536.
    pub fn with_capacity(
        samples: usize,
        dimension: usize,
        storage: Storage,
        similarity: Similarity,
        model_version: ModelVersion,
    ) -> Result<Self> {
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(Error::Shape { found: 0, dimension });
        }
        let vectors = StoredVectors::with_capacity(storage, samples, dimension);
        let (skipped, pair_similarities) = Default::default();
        Ok(Self { vectors, dimension, similarity, model_version, skipped, pair_similarities })
    }

    /// Appends `vectors` [samples × dimension] after those that are there; they are scaled in place to unit length for
    /// cosine, then rounded to what the table keeps.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::NotFinite`] for what overflows f16 (65,504); the table is unusable then.
    pub fn push(&mut self, vectors: &mut [f32]) -> Result<()> {
        let first = self.len();
        self.push_except(vectors, &[], |index, flaw| Err(flaw.error(SampleId::new(first + index))))
    }

    /// [`push`](Self::push), but those in the places `skipped`, in order, are of samples that were skipped; and those
    /// that no table takes go to `flawed` with their place, which may skip them too.
    pub(crate) fn push_except(
        &mut self,
        vectors: &mut [f32],
        mut skipped: &[usize],
        mut flawed: impl FnMut(usize, Flaw) -> Result<()>,
    ) -> Result<()> {
        if !vectors.len().is_multiple_of(self.dimension) {
            return Err(Error::Shape { found: vectors.len(), dimension: self.dimension });
        }
        let first = self.len();
        for (index, vector) in vectors.chunks_exact_mut(self.dimension).enumerate() {
            let sample = SampleId::new(first + index);
            self.vectors.push_zeros(self.dimension);
            if let Some(rest) = skipped.strip_prefix(&[index]) {
                skipped = rest;
                self.skipped.add(sample);
            } else if let Err(flaw) = self.put(sample, vector) {
                flawed(index, flaw)?;
                self.skipped.add(sample);
            }
        }
        Ok(())
    }

    /// Scales and rounds a vector into its sample's place, where it is of use; else that holds zeros.
    fn put(&mut self, sample: SampleId, vector: &mut [f32]) -> Result<(), Flaw> {
        prepare(vector, self.similarity)?;
        self.vectors.set(sample.index(), vector).map_err(|component| {
            let value = vector[component];
            vector.fill(0.0);
            // Zeros fit every type.
            let _ = self.vectors.set(sample.index(), vector);
            Flaw::NotFinite { component, value }
        })
    }

    /// Says why a sample was skipped.
    pub(crate) fn count_skip_reason(&mut self, sample: SampleId, column: &str, reason: &str) {
        self.skipped.count_reason(sample, column, reason);
    }

    /// Puts another vector of d numbers in the place of one sample's; it is scaled in place and rounded as by
    /// [`push`](Self::push).
    ///
    /// # Errors
    /// As [`push`](Self::push), and [`Error::UnknownSample`]; [`Error::SkippedSample`].
    pub fn replace(&mut self, sample: SampleId, vector: &mut [f32]) -> Result<()> {
        let (d, len) = (self.dimension, self.len());
        if vector.len() != d {
            return Err(Error::Shape { found: vector.len(), dimension: d });
        }
        if sample.index() >= len {
            return Err(Error::UnknownSample { sample, len });
        }
        if self.is_skipped(sample) {
            return Err(Error::SkippedSample { sample });
        }
        self.put(sample, vector).map_err(|flaw| flaw.error(sample))
    }

    /// A copy with room for `samples`, as another model version: the start of a table of which most stays as it is.
    #[must_use]
    pub fn fork(&self, samples: usize, model_version: ModelVersion) -> Self {
        let vectors = self.vectors.copy_with_capacity(samples, self.dimension);
        let (skipped, pair_similarities) = (self.skipped.clone(), self.pair_similarities.clone());
        Self { vectors, model_version, skipped, pair_similarities, ..*self }
    }

    /// Appends how similar the anchor and the positive of each sample are, where rows are pairs: for those that
    /// [`push`](Self::push) appended. 4 bytes a sample.
    pub fn push_pair_similarities(&mut self, similarities: &[f32]) {
        self.pair_similarities.extend_from_slice(similarities);
    }

    /// How similar the anchor and the positive of a sample are, where rows are pairs.
    #[inline]
    #[must_use]
    pub fn pair_similarity(&self, id: SampleId) -> Option<f32> {
        self.pair_similarities.get(id.index()).copied()
    }

    /// Whether a sample was skipped: it could not be read, and has no embedding.
    #[inline]
    #[must_use]
    pub fn is_skipped(&self, id: SampleId) -> bool {
        self.skipped.contains(id)
    }

    /// Whether none was skipped.
    pub(crate) fn is_whole(&self) -> bool {
        self.skipped.is_empty()
    }

    /// Samples that were skipped.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped.count()
    }

    /// Why samples were skipped: their columns and reasons, the first of each by name; few, whatever the samples.
    #[must_use]
    pub fn skip_reasons(&self) -> &[SkipReason] {
        self.skipped.reasons()
    }

    /// An error that says that too few samples of `uri` are left after those that were skipped.
    pub(crate) fn too_few(&self, uri: &str, needed: usize) -> Error {
        let most = self.skip_reasons().iter().max_by_key(|why| why.samples);
        let reason = most.map_or_else(String::new, ToString::to_string);
        Error::TooFewEncoded { uri: uri.to_owned(), samples: self.len(), skipped: self.skipped(), needed, reason }
    }

    /// Samples that have an embedding.
    #[must_use]
    pub fn present(&self) -> usize {
        self.len() - self.skipped()
    }

    /// Their ids, in order.
    pub(crate) fn present_ids(&self) -> Vec<u32> {
        let ids = 0..self.len() as u32;
        if self.skipped.is_empty() { ids.collect() } else { ids.filter(|&id| !self.is_skipped(SampleId(id))).collect() }
    }

    /// A bit for each sample, set where it has an embedding.
    pub(crate) fn present_bits(&self) -> Vec<u64> {
        let mut bits = vec![u64::MAX; self.len().div_ceil(64)];
        if let (Some(last), rest @ 1..) = (bits.last_mut(), self.len() % 64) {
            *last = (1 << rest) - 1;
        }
        bits.iter_mut().zip(self.skipped.bits()).for_each(|(bits, skipped)| *bits &= !skipped);
        bits
    }

    /// Samples, those that were skipped included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.numbers() / self.dimension
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// d: numbers in an embedding.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How the numbers are kept.
    #[must_use]
    pub fn storage(&self) -> Storage {
        self.vectors.storage()
    }

    /// What the numbers of one sample take in memory.
    #[must_use]
    pub fn bytes_per_sample(&self) -> usize {
        match self.storage() {
            Storage::F32 => 4 * self.dimension,
            Storage::F16 => 2 * self.dimension,
            Storage::I8 => self.dimension + 4,
        }
    }

    /// What "near" means for these embeddings.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// The model that made them.
    #[must_use]
    pub fn model_version(&self) -> ModelVersion {
        self.model_version
    }

    /// One sample's embedding, zeros where it was skipped; borrowed where the table keeps f32.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[inline]
    #[must_use]
    pub fn get(&self, id: SampleId) -> Cow<'_, [f32]> {
        if let Some(vector) = self.vectors.f32(id.index(), self.dimension) {
            return vector.into();
        }
        let mut vector = vec![0f32; self.dimension];
        self.read(id, &mut vector);
        vector.into()
    }

    /// One sample's embedding; written to `room` first where the table does not keep f32.
    #[inline]
    pub(crate) fn vector<'a>(&'a self, id: SampleId, room: &'a mut Vec<f32>) -> &'a [f32] {
        if let Some(vector) = self.vectors.f32(id.index(), self.dimension) {
            return vector;
        }
        room.resize(self.dimension, 0.0);
        self.read(id, room);
        room
    }

    /// One sample's embedding, where the table keeps f32.
    #[inline]
    pub(crate) fn f32(&self, id: SampleId) -> Option<&[f32]> {
        self.vectors.f32(id.index(), self.dimension)
    }

    /// Asks for one sample's embedding to be brought into the caches.
    #[inline]
    pub(crate) fn prefetch(&self, id: SampleId) {
        self.vectors.prefetch(id.index(), self.dimension);
    }

    /// Copies one sample's embedding to `vector`, d numbers.
    ///
    /// # Panics
    /// Where there is no such sample, or `vector` has another length.
    #[inline]
    pub fn read(&self, id: SampleId, vector: &mut [f32]) {
        assert_eq!(vector.len(), self.dimension);
        self.vectors.read(id.index(), vector);
    }

    /// The similarity of two samples.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[must_use]
    pub fn similarity_of(&self, a: SampleId, b: SampleId) -> f32 {
        dot(&self.get(a), &self.get(b))
    }

    /// The similarities of `vector`, d numbers, with each of `ids`, appended to `similarities` in their order.
    ///
    /// # Panics
    /// Where there is no such sample, or `vector` has another length.
    pub fn similarities_with(&self, vector: &[f32], ids: &[SampleId], similarities: &mut Vec<f32>) {
        assert_eq!(vector.len(), self.dimension);
        let ahead = |place: usize| ids.get(place + AHEAD).into_iter().for_each(|&soon| self.prefetch(soon));
        let first = similarities.len();
        similarities.resize(first + ids.len(), 0.0);
        let similarities = &mut similarities[first..];
        if self.storage() == Storage::F32 {
            let others = ids.iter().enumerate().map(|(place, &id)| {
                ahead(place);
                self.f32(id).expect("f32 is kept")
            });
            dots(vector, others, similarities);
        } else {
            let mut other = vec![0f32; self.dimension];
            for ((place, &id), similarity) in ids.iter().enumerate().zip(similarities) {
                ahead(place);
                self.read(id, &mut other);
                *similarity = dot(vector, &other);
            }
        }
    }

    /// The mean similarity over all pairs among `ids`: how hard a mini-batch is. 0 for fewer than two. O(B d): the
    /// pairs' sum is half of the squared length of the sum less the sum of the squared lengths.
    ///
    /// # Panics
    /// Where there is no such sample.
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

/// Vectors between asking for one and using it.
const AHEAD: usize = 8;
const MAX_DIMENSION: usize = 1 << 16;
