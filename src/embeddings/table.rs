//! The table of all samples' embeddings.

use std::borrow::Cow;

use super::skipped::{Flaw, SkipReason, Skipped, prepare};
use super::stored::StoredVectors;
use crate::config::{Similarity, Storage};
use crate::error::{ArgumentError, Error, Result, TooFewError};
use crate::sample::{ModelVersion, SampleId};
use crate::simd::dot;

/// The embeddings of all samples, made by one model version.
///
/// - Layout: [samples × d], row-major, in the type that [`Storage`] says. A sample takes 4 d bytes in f32, 2 d in f16,
///   and d + 4 in i8.
/// - With cosine similarity every embedding has unit length, so that a dot product is the cosine. With cross similarity
///   both halves have the length √½, and a dot product with halves swapped is the mean of two cosines.
/// - A sample that could not be read and was skipped ([`OnBadSample`](crate::config::OnBadSample)) has no embedding;
///   its row holds zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingTable {
    pub(super) vectors: StoredVectors,
    pub(super) dimension: usize,
    pub(super) similarity: Similarity,
    pub(super) model_version: ModelVersion,
    pub(super) skipped: Skipped,
    /// The similarity of each sample's anchor and positive if rows are pairs, else empty.
    pub(super) pair_similarities: Vec<f32>,
    /// A bit for each sample, set if it is an inconsistent pair; empty if none is or nobody has looked.
    pub(super) inconsistent: Vec<u64>,
}

impl EmbeddingTable {
    /// Makes a table in f32 of `vectors` [samples × dimension], row-major, sample 0 first.
    ///
    /// For cosine, they are scaled to unit length. The numbers are copied, which [`push`](Self::push) avoids.
    ///
    /// # Errors
    /// - [`ArgumentError::Shape`] if the numbers do not make a whole number of vectors, or for a dimension of 0, above
    ///   65,536, or odd for cross similarity.
    /// - `NotFinite` of [`EmbeddingError`](crate::error::EmbeddingError) for a component that is NaN or infinite.
    /// - `BadLength` of the same for a vector that is zero, or so long that similarities overflow.
    pub fn new(
        mut vectors: Vec<f32>,
        dimension: usize,
        similarity: Similarity,
        model_version: ModelVersion,
    ) -> Result<Self> {
        let samples = vectors.len() / dimension.max(1);
        let mut table = Self::with_capacity(samples, dimension, Storage::F32, similarity, model_version)?;
        table.push(&mut vectors)?;
        Ok(table)
    }

    /// Makes an empty table with space for `samples`, to be filled by [`push`](Self::push).
    ///
    /// More samples than that cost a copy of all.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`] for a dimension of 0, above 65,536, or odd for cross similarity.
    pub fn with_capacity(
        samples: usize,
        dimension: usize,
        storage: Storage,
        similarity: Similarity,
        model_version: ModelVersion,
    ) -> Result<Self> {
        let has_halves = similarity != Similarity::Cross || dimension.is_multiple_of(2);
        if !(1..=MAX_DIMENSION).contains(&dimension) || !has_halves {
            return Err(ArgumentError::Shape { found: 0, dimension }.into());
        }
        let vectors = StoredVectors::with_capacity(storage, samples, dimension);
        Ok(Self {
            vectors,
            dimension,
            similarity,
            model_version,
            skipped: Skipped::default(),
            pair_similarities: Vec::new(),
            inconsistent: Vec::new(),
        })
    }

    /// Makes a copy of the embeddings of these samples, none of which is skipped, in this order.
    pub(crate) fn select(&self, ids: &[u32]) -> Self {
        let of_pairs = ids.iter().filter_map(|&id| self.pair_similarities.get(id as usize).copied());
        Self {
            vectors: self.vectors.select(ids, self.dimension),
            skipped: Skipped::default(),
            pair_similarities: of_pairs.collect(),
            inconsistent: Vec::new(),
            ..*self
        }
    }

    /// Appends `vectors` [samples × dimension], row-major.
    ///
    /// They are scaled in place to unit length for cosine, then rounded to the type that the table keeps.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), `NotFinite` also for a component that overflows f16 (65,504). The table is
    /// unusable after an error.
    pub fn push(&mut self, vectors: &mut [f32]) -> Result<()> {
        let first = self.len();
        self.push_except(vectors, &[], |index, flaw| Err(flaw.error(SampleId::new(first + index))))
    }

    /// Appends vectors like [`push`](Self::push), except for those of skipped samples.
    ///
    /// `skipped` are the sorted indices, among `vectors`, of samples that were skipped. For a vector with a flaw,
    /// `flawed` is called with its index: if it returns `Ok`, that sample is skipped too.
    pub(crate) fn push_except(
        &mut self,
        vectors: &mut [f32],
        mut skipped: &[usize],
        mut flawed: impl FnMut(usize, Flaw) -> Result<()>,
    ) -> Result<()> {
        if !vectors.len().is_multiple_of(self.dimension) {
            return Err(ArgumentError::Shape { found: vectors.len(), dimension: self.dimension }.into());
        }
        let first = self.len();
        for (index, vector) in vectors.chunks_exact_mut(self.dimension).enumerate() {
            let sample = SampleId::new(first + index);
            self.vectors.push_zeros(self.dimension);
            if let Some(rest) = skipped.strip_prefix(&[index]) {
                skipped = rest;
                self.skipped.add(sample);
            } else if let Err(flaw) = self.set(sample, vector) {
                flawed(index, flaw)?;
                self.skipped.add(sample);
            }
        }
        Ok(())
    }

    /// Scales, rounds and stores a sample's vector. If it has a flaw, the sample's row remains or becomes zeros.
    fn set(&mut self, sample: SampleId, vector: &mut [f32]) -> Result<(), Flaw> {
        prepare(vector, self.similarity)?;
        self.vectors.set(sample.index(), vector).map_err(|component| {
            let value = vector[component];
            vector.fill(0.0);
            // Zeros fit every type.
            let _ = self.vectors.set(sample.index(), vector);
            Flaw::NotFinite { component, value }
        })
    }

    /// Counts a skipped sample under the reason why it was skipped.
    pub(crate) fn count_skip_reason(&mut self, sample: SampleId, column: &str, reason: &str) {
        self.skipped.count_reason(sample, column, reason);
    }

    /// Replaces the embedding of one sample by another vector of d numbers.
    ///
    /// The vector is scaled in place and rounded as by [`push`](Self::push). With cross similarity the vector also says
    /// how similar anchor and positive are now.
    ///
    /// # Errors
    /// The errors of [`push`](Self::push); [`ArgumentError::UnknownSample`]; [`ArgumentError::SkippedSample`].
    pub fn replace(&mut self, sample: SampleId, vector: &mut [f32]) -> Result<()> {
        if vector.len() != self.dimension {
            return Err(ArgumentError::Shape { found: vector.len(), dimension: self.dimension }.into());
        }
        if sample.index() >= self.len() {
            return Err(ArgumentError::UnknownSample { sample, len: self.len() }.into());
        }
        if self.is_skipped(sample) {
            return Err(ArgumentError::SkippedSample { sample }.into());
        }
        self.set(sample, vector).map_err(|flaw| flaw.error(sample))?;
        if self.similarity == Similarity::Cross
            && let Some(pair) = self.pair_similarities.get_mut(sample.index())
        {
            let (anchor, positive) = vector.split_at(vector.len() / 2);
            *pair = 2.0 * dot(anchor, positive);
        }
        Ok(())
    }

    /// Copies the table, with space for `samples` in all, as the start of another model version's.
    ///
    /// This is for a table in which most embeddings remain as they are. Which pairs are consistent is open again.
    #[must_use]
    pub fn fork(&self, samples: usize, model_version: ModelVersion) -> Self {
        let vectors = self.vectors.copy_with_capacity(samples, self.dimension);
        let skipped = self.skipped.clone();
        let pair_similarities = self.pair_similarities.clone();
        Self { vectors, model_version, skipped, pair_similarities, inconsistent: Vec::new(), ..*self }
    }

    /// Appends the similarity of anchor and positive for each sample that [`push`](Self::push) appended.
    ///
    /// Only tables whose rows are pairs have them. They take 4 bytes a sample.
    pub fn push_pair_similarities(&mut self, similarities: &[f32]) {
        self.pair_similarities.extend_from_slice(similarities);
    }

    /// Returns the similarity of a sample's anchor and positive; `None` if rows are not pairs.
    #[inline]
    #[must_use]
    pub fn pair_similarity(&self, id: SampleId) -> Option<f32> {
        self.pair_similarities.get(id.index()).copied()
    }

    /// Whether a sample was skipped, so that it has no embedding.
    #[inline]
    #[must_use]
    pub fn is_skipped(&self, id: SampleId) -> bool {
        self.skipped.contains(id)
    }

    /// Whether no sample was skipped.
    pub(crate) fn is_whole(&self) -> bool {
        self.skipped.is_empty()
    }

    /// Returns the number of samples that were skipped.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped.count()
    }

    /// Returns the reasons why samples were skipped, each with the first sample. There are at most 21 of them.
    #[must_use]
    pub fn skip_reasons(&self) -> &[SkipReason] {
        self.skipped.reasons()
    }

    /// Makes the error that says that too few samples of `uri` have an embedding.
    pub(crate) fn too_few(&self, uri: &str, needed: usize) -> Error {
        let most = self.skip_reasons().iter().max_by_key(|why| why.samples);
        let reason = most.map_or_else(String::new, ToString::to_string);
        TooFewError::Encoded { uri: uri.to_owned(), samples: self.len(), skipped: self.skipped(), needed, reason }
            .into()
    }

    /// Returns the number of samples that have an embedding.
    #[must_use]
    pub fn present(&self) -> usize {
        self.len() - self.skipped()
    }

    /// Returns the ids of the samples that have an embedding, in order.
    pub(crate) fn present_ids(&self) -> Vec<u32> {
        let ids = 0..self.len() as u32;
        if self.skipped.is_empty() { ids.collect() } else { ids.filter(|&id| !self.is_skipped(SampleId(id))).collect() }
    }

    /// A hash of all numbers: tables with the same vectors have the same one. O(N d).
    pub(crate) fn digest(&self) -> u64 {
        self.vectors.digest()
    }

    /// Returns the number of samples, including those that were skipped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.numbers() / self.dimension
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns d, the numbers of an embedding.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Returns the type in which the numbers are stored.
    #[must_use]
    pub fn storage(&self) -> Storage {
        self.vectors.storage()
    }

    /// Returns the bytes that the embedding of one sample takes in memory.
    #[must_use]
    pub fn bytes_per_sample(&self) -> usize {
        match self.storage() {
            Storage::F32 => 4 * self.dimension,
            Storage::F16 => 2 * self.dimension,
            Storage::I8 => self.dimension + 4,
        }
    }

    /// Returns the similarity that these embeddings are made for.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// Returns the version of the model that made the embeddings.
    #[must_use]
    pub fn model_version(&self) -> ModelVersion {
        self.model_version
    }

    /// Returns the embedding of a sample, or zeros if it was skipped. It is borrowed if it is stored in f32.
    ///
    /// # Panics
    /// Panics if there is no such sample.
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

    /// Returns the embedding of a sample, converted in `scratch` unless it is stored in f32.
    #[inline]
    pub(crate) fn vector<'a>(&'a self, id: SampleId, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        if let Some(vector) = self.vectors.f32(id.index(), self.dimension) {
            return vector;
        }
        scratch.resize(self.dimension, 0.0);
        self.read(id, scratch);
        scratch
    }

    /// Returns the embedding of a sample, if it is stored in f32.
    #[inline]
    pub(crate) fn f32(&self, id: SampleId) -> Option<&[f32]> {
        self.vectors.f32(id.index(), self.dimension)
    }

    /// Prefetches the embedding of a sample into the caches.
    #[inline]
    pub(crate) fn prefetch(&self, id: SampleId) {
        self.vectors.prefetch(id.index(), self.dimension);
    }

    /// Copies the embedding of a sample to `vector`, which holds d numbers.
    ///
    /// # Panics
    /// Panics if there is no such sample, or `vector` has another length.
    #[inline]
    pub fn read(&self, id: SampleId, vector: &mut [f32]) {
        assert_eq!(vector.len(), self.dimension);
        self.vectors.read(id.index(), vector);
    }
}

/// The most numbers of an embedding.
const MAX_DIMENSION: usize = 1 << 16;
