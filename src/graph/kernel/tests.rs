use half::bf16;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::Similarity;
use crate::embeddings::EmbeddingTable;
use crate::sample::SampleId;

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::I8];

/// Scores 24 rows with 16 columns, which are the table's first 40 samples.
fn scores(kernel: Kernel, table: &EmbeddingTable) -> Vec<Scores> {
    let (mut rows, mut columns) = (Rows::default(), Columns::default());
    rows.pack(kernel, table, &(0..24).collect::<Vec<_>>());
    columns.pack(kernel, table, &(24..40).collect::<Vec<_>>());
    let mut scores = vec![[f32::NAN; PANEL_COLUMNS]; 24];
    kernel.scores(&rows, 0, &columns, 0, &mut scores);
    scores
}

fn table(dimension: usize, seed: u64) -> EmbeddingTable {
    let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
    let vectors = (0..40 * dimension).map(|_| generator.random_range(-1f32..1.0)).collect();
    EmbeddingTable::new(vectors, dimension, Similarity::Dot, Default::default()).unwrap()
}

/// The components as the format keeps them.
fn kept(format: Format, vector: &[f32]) -> Vec<f64> {
    let largest = vector.iter().fold(0f32, |l, x| l.max(x.abs()));
    let one = |&x: &f32| match format {
        Format::F32 => f64::from(x),
        Format::Bf16 => f64::from(bf16::from_f32(x).to_f32()),
        Format::I8 => f64::from((x * (63.0 / largest)).round_ties_even()) * f64::from(largest / 63.0),
    };
    vector.iter().map(one).collect()
}

proptest! {
    /// Compares every kernel that runs here with sums in f64.
    #[test]
    fn scores_are_dot_products(dimension in 1usize..300, seed in any::<u64>()) {
        let table = table(dimension, seed);
        for format in FORMATS {
            for simd in SimdLevel::running(format) {
                let scores = scores(Kernel { format, simd }, &table);
                for (r, scores) in scores.iter().enumerate() {
                    for (c, &score) in scores.iter().enumerate() {
                        let vector = |i: usize| kept(format, &table.get(SampleId::new(i)));
                        let exact: f64 = vector(r).iter().zip(vector(24 + c)).map(|(x, y)| x * y).sum();
                        let off = (f64::from(score) - exact).abs();
                        prop_assert!(off < 2e-6 * dimension as f64, "{format:?} {simd:?} {r} {c}: {score} {exact}");
                    }
                }
            }
        }
    }

    /// Scores of i8 are exact, so no processor may differ.
    #[test]
    fn i8_is_the_same_on_every_processor(dimension in 1usize..300, seed in any::<u64>()) {
        let table = table(dimension, seed);
        let on = |simd| scores(Kernel { format: Format::I8, simd }, &table);
        for simd in SimdLevel::running(Format::I8) {
            prop_assert_eq!(on(simd), on(SimdLevel::Portable));
        }
    }

    #[test]
    fn reached_is_a_comparison_with_both_thresholds(seed in any::<u64>()) {
        let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
        let mut number = || (generator.random_range(0..5) as f32) / 4.0;
        let scores: Vec<Scores> = (0..12).map(|_| std::array::from_fn(|_| number())).collect();
        let rows: Vec<f32> = (0..12).map(|_| number()).collect();
        let columns: Scores = std::array::from_fn(|_| number());
        for simd in SimdLevel::running(Format::F32) {
            let mut reached = vec![Reached::default(); 12];
            Kernel { format: Format::F32, simd }.reached(&scores, &rows, &columns, &mut reached);
            for (r, reached) in reached.into_iter().enumerate() {
                for c in 0..PANEL_COLUMNS {
                    prop_assert_eq!(reached.row >> c & 1 == 1, scores[r][c] >= rows[r]);
                    prop_assert_eq!(reached.column >> c & 1 == 1, scores[r][c] >= columns[c]);
                }
            }
        }
    }
}

/// The largest numbers in long vectors are where 16 or 32 bits would overflow first.
#[test]
fn i8_holds_the_extremes() {
    let dimension = 4096;
    let vectors: Vec<f32> = (0..40 * dimension).map(|i| if i / dimension % 3 == 0 { -1.0 } else { 1.0 }).collect();
    let table = EmbeddingTable::new(vectors, dimension, Similarity::Dot, Default::default()).unwrap();
    for simd in SimdLevel::running(Format::I8) {
        let scores = scores(Kernel { format: Format::I8, simd }, &table);
        for (r, scores) in scores.iter().enumerate() {
            for (c, score) in scores.iter().enumerate() {
                let sign = if (r % 3 == 0) == ((24 + c) % 3 == 0) { 1.0 } else { -1.0 };
                assert!((score - sign * dimension as f32).abs() < 0.01, "{score}");
            }
        }
    }
}
