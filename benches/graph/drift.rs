//! What training does to embeddings between two refreshes: all turn together, and each moves a little on its own.

use prosampler::embeddings::EmbeddingTable;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rayon::prelude::*;

use super::SEED;
use super::data::{Truth, normals, table, unit};

/// A table, turned, that can be moved by any amount of noise.
pub struct Drift {
    /// Those of the table before.
    truth: Truth,
    turned: Vec<f32>,
    noise: Vec<f32>,
    dimension: usize,
}

impl Drift {
    pub fn new(before: &EmbeddingTable, k: usize) -> Self {
        let dimension = before.dimension();
        let mut turned: Vec<f32> =
            (0..before.len()).flat_map(|row| before.get(prosampler::SampleId::new(row)).into_owned()).collect();
        turn(&mut turned, dimension);
        let noise = normals(turned.len(), 2);
        Self { truth: Truth::new(before, k, 500), turned, noise, dimension }
    }

    /// The table after as much drift as changes this share of the true K nearest, and the share measured on 500 rows;
    /// within half a hundredth of each other.
    pub fn to(&self, change: f64) -> (EmbeddingTable, f64) {
        // The change grows a little slower than the noise, so a few steps in proportion arrive.
        let mut noise = change as f32;
        for _ in 0..20 {
            let after = self.moved(noise);
            let measured = 1.0 - self.truth_after(&after).recall(&after, |place, _| &self.truth.nearest[place]);
            if (measured - change).abs() < 0.005 {
                return (after, measured);
            }
            noise *= (change / measured.max(1e-3)) as f32;
        }
        panic!("no noise changes {change} of the nearest");
    }

    fn truth_after(&self, after: &EmbeddingTable) -> Truth {
        Truth::new(after, self.truth.nearest[0].len(), self.truth.rows.len())
    }

    /// `noise`: its length as a multiple of the vectors'.
    fn moved(&self, noise: f32) -> EmbeddingTable {
        let scale = noise / (self.dimension as f32).sqrt();
        let mut vectors = self.turned.clone();
        let rows = vectors.par_chunks_exact_mut(self.dimension).zip(self.noise.par_chunks_exact(self.dimension));
        rows.for_each(|(vector, noise)| {
            vector.iter_mut().zip(noise).for_each(|(x, n)| *x += scale * n);
            unit(vector);
        });
        table(vectors, self.dimension)
    }
}

/// One rotation for all: by 0.2 in each of d / 2 random planes, three times over.
fn turn(vectors: &mut [f32], dimension: usize) {
    let mut generator = ChaCha8Rng::seed_from_u64(SEED);
    let mut axes: Vec<usize> = (0..dimension).collect();
    let (sin, cos) = 0.2f32.sin_cos();
    for _ in 0..3 {
        axes.shuffle(&mut generator);
        vectors.par_chunks_exact_mut(dimension).for_each(|vector| {
            for &[a, b] in axes.as_chunks().0 {
                (vector[a], vector[b]) = (cos * vector[a] - sin * vector[b], sin * vector[a] + cos * vector[b]);
            }
        });
    }
}
