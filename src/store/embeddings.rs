use crate::config::Similarity;
use crate::error::{Error, Result};
use crate::sample::{ModelVersion, SampleId};

/// The embeddings of all samples, made by one model version; never changed once made.
///
/// Row-major f32, 4 d bytes a sample. With cosine similarity every embedding has unit length, so that a dot product
/// is the cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingTable {
    vectors: Vec<f32>,
    dimension: usize,
    similarity: Similarity,
    model_version: ModelVersion,
}

impl EmbeddingTable {
    /// Takes `vectors` [samples × dimension], row-major, sample 0 first; scales them to unit length for cosine.
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
        if !(1..=MAX_DIMENSION).contains(&dimension) || !vectors.len().is_multiple_of(dimension) {
            return Err(Error::Shape { found: vectors.len(), dimension });
        }
        for (index, vector) in vectors.chunks_exact_mut(dimension).enumerate() {
            prepare(SampleId::new(index), vector, similarity)?;
        }
        Ok(Self { vectors, dimension, similarity, model_version })
    }

    /// Samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.len() / self.dimension
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// d: numbers in an embedding.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
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

    /// One sample's embedding.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[inline]
    #[must_use]
    pub fn get(&self, id: SampleId) -> &[f32] {
        &self.vectors[id.index() * self.dimension..][..self.dimension]
    }

    /// The similarity of two samples.
    ///
    /// # Panics
    /// Where there is no such sample.
    #[must_use]
    pub fn similarity_of(&self, a: SampleId, b: SampleId) -> f32 {
        dot(self.get(a), self.get(b))
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
            for (s, &x) in sum.iter_mut().zip(self.get(id)) {
                *s += f64::from(x);
                squares += f64::from(x) * f64::from(x);
            }
        }
        let n = ids.len() as f64;
        let total: f64 = sum.iter().map(|s| s * s).sum();
        ((total - squares) / (n * (n - 1.0))) as f32
    }
}

/// Checks one vector and scales it for its similarity.
fn prepare(sample: SampleId, vector: &mut [f32], similarity: Similarity) -> Result<()> {
    if let Some(component) = vector.iter().position(|x| !x.is_finite()) {
        return Err(Error::NotFinite { sample, component, value: vector[component] });
    }
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let bad = Error::BadLength { sample, length: length as f32, similarity: similarity.name() };
    match similarity {
        Similarity::Cosine if length < f64::from(f32::MIN_POSITIVE) => return Err(bad),
        Similarity::Cosine => vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32),
        // By Cauchy and Schwarz no dot product, nor any partial sum of one, then leaves the range of f32.
        Similarity::Dot if length > MAX_LENGTH => return Err(bad),
        Similarity::Dot => {}
    }
    Ok(())
}

/// Sixteen sums side by side, so that the compiler may use vector instructions.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a.zip(b) {
        for i in 0..16 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

const MAX_DIMENSION: usize = 1 << 16;
const MAX_LENGTH: f64 = 1e18;
