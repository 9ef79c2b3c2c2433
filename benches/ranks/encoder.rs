//! An encoder that costs little, and whose vectors can be kept.

use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::{Encoder, Result};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Random vectors, each by its row's number `n` alone.
pub struct NumberEncoder {
    columns: [String; 1],
    dimension: usize,
}

impl NumberEncoder {
    pub fn new(dimension: usize) -> Self {
        Self { columns: ["n".into()], dimension }
    }
}

impl Encoder for NumberEncoder {
    fn name(&self) -> &str {
        "number"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn identity(&self) -> Option<String> {
        Some(format!("random vectors of {} numbers", self.dimension))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
        for (&n, vector) in numbers.iter().zip(vectors.chunks_exact_mut(self.dimension)) {
            let mut generator = ChaCha8Rng::seed_from_u64(n.into());
            vector.iter_mut().for_each(|x| *x = generator.random_range(-1.0..1.0));
        }
        Ok(())
    }
}
