//! What graphs are built of, and how good they are.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use prosampler::config::Similarity;
use prosampler::embeddings::EmbeddingTable;
use prosampler::{ModelVersion, SampleId};
use rand::seq::index;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rayon::prelude::*;

use super::SEED;

/// The same vectors for us and, in a file of raw f32, for the peers.
pub struct Data {
    pub table: EmbeddingTable,
    pub path: PathBuf,
}

impl Data {
    /// 100,000 WordNet definitions embedded by all-MiniLM-L6-v2, d = 384; `graph_data.py` makes them.
    pub fn sentences(folder: &Path, rows: Option<usize>) -> Self {
        Self::read(folder.join("graph/minilm.f32"), 384, rows)
    }

    /// A million vectors, d = 128, around 2,000 centers: unit length, noise 0.6 times as long.
    pub fn clusters(folder: &Path, rows: Option<usize>) -> Self {
        const DIMENSION: usize = 128;
        let path = folder.join("graph/clusters.f32");
        if !path.exists() {
            let centers = normals(2_000 * DIMENSION, 0);
            let mut vectors = normals(1_000_000 * DIMENSION, 1);
            vectors.par_chunks_exact_mut(DIMENSION).enumerate().for_each(|(row, vector)| {
                let mut generator = ChaCha8Rng::seed_from_u64(SEED);
                generator.set_stream(row as u64);
                let center = generator.random_range(0..2_000) * DIMENSION;
                vector.iter_mut().zip(&centers[center..]).for_each(|(x, c)| *x = c + 0.6 * *x);
                unit(vector);
            });
            let bytes: Vec<u8> = vectors.into_par_iter().flat_map_iter(f32::to_le_bytes).collect();
            let partial = path.with_extension("partial");
            fs::write(&partial, bytes).and_then(|()| fs::rename(partial, &path)).expect("clusters.f32");
        }
        Self::read(path, DIMENSION, rows)
    }

    fn read(path: PathBuf, dimension: usize, rows: Option<usize>) -> Self {
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run `make bench-graph`", path.display()));
        let numbers = rows.map_or(usize::MAX, |rows| rows * dimension);
        let vectors = bytes.as_chunks().0.iter().take(numbers).map(|&b| f32::from_le_bytes(b)).collect();
        Self { table: table(vectors, dimension), path }
    }
}

pub fn table(vectors: Vec<f32>, dimension: usize) -> EmbeddingTable {
    EmbeddingTable::new(vectors, dimension, Similarity::Cosine, ModelVersion(1)).expect("embeddings")
}

/// The exact nearest of sampled rows, by plain f32 dot products.
pub struct Truth {
    k: usize,
    pub rows: Vec<usize>,
    /// K ids a row.
    pub nearest: Vec<Vec<i32>>,
    /// The similarity of each row's K-th.
    last: Vec<f32>,
}

impl Truth {
    pub fn new(table: &EmbeddingTable, k: usize, sample: usize) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(SEED);
        let rows = index::sample(&mut generator, table.len(), sample.min(table.len())).into_vec();
        let nearest = |&row: &usize| {
            let id = SampleId::new(row);
            let others = (0..table.len()).filter(|&other| other != row);
            let mut all: Vec<_> =
                others.map(|other| (table.similarity_of(id, SampleId::new(other)), other as i32)).collect();
            let (_, last, _) = all.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0));
            let last = last.0;
            (all[..k].iter().map(|(_, id)| *id).collect(), last)
        };
        let (nearest, last) = rows.par_iter().map(nearest).unzip();
        Self { k, rows, nearest, last }
    }

    /// The share of the K nearest that `ids` has, given a row's place in the sample and its number. As near as the K-th
    /// is near enough: equal texts are equally near.
    pub fn recall<'a>(&self, table: &EmbeddingTable, ids: impl Fn(usize, usize) -> &'a [i32]) -> f64 {
        let mut found = 0;
        for (place, &row) in self.rows.iter().enumerate() {
            let ids: HashSet<_> = ids(place, row).iter().take(self.k).filter(|&&id| id >= 0).collect();
            assert!(!ids.contains(&(row as i32)), "row {row} is its own neighbor");
            let near =
                |&&id: &&i32| table.similarity_of(SampleId::new(row), SampleId(id as u32)) > self.last[place] - 1e-6;
            found += ids.iter().filter(|id| near(id)).count();
        }
        found as f64 / (self.k * self.rows.len()) as f64
    }
}

/// Independent normal numbers, by Box and Muller.
pub fn normals(len: usize, stream: u64) -> Vec<f32> {
    const CHUNK: usize = 1 << 12;
    let mut numbers = vec![0f32; len];
    numbers.par_chunks_mut(CHUNK).enumerate().for_each(|(number, chunk)| {
        let mut generator = ChaCha8Rng::seed_from_u64(SEED + 1 + stream);
        generator.set_stream(number as u64);
        for pair in chunk.chunks_mut(2) {
            let radius = (-2.0 * (1.0 - generator.random::<f32>()).ln()).sqrt();
            let (sin, cos) = (std::f32::consts::TAU * generator.random::<f32>()).sin_cos();
            pair.iter_mut().zip([radius * cos, radius * sin]).for_each(|(x, normal)| *x = normal);
        }
    });
    numbers
}

/// Scales to unit length.
pub fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
}
