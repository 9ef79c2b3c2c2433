//! Pools the states of a model to vectors.

#[cfg(feature = "onnx")]
use std::ops::Range;

#[cfg(feature = "onnx")]
use crate::config::Pooling;

/// Pools states [rows × longest × dimension] to vectors [rows × dimension].
///
/// `counted` are the ranges of the states that count, a range a row. A row without any becomes zeros, which are refused
/// later with the sample's id.
#[cfg(feature = "onnx")]
pub(super) fn pool(
    states: &[f32],
    counted: impl Iterator<Item = Range<usize>>,
    longest: usize,
    dimension: usize,
    pooling: Pooling,
) -> Vec<f32> {
    let mut vectors = Vec::new();
    for (states, counted) in states.chunks_exact(longest * dimension).zip(counted) {
        let taken = match pooling {
            Pooling::Mean | Pooling::None => counted,
            Pooling::Cls => counted.start..counted.end.min(counted.start + 1),
            Pooling::Last => counted.end.saturating_sub(1).max(counted.start)..counted.end,
        };
        let start = vectors.len();
        vectors.resize(start + dimension, 0.0);
        for state in states[taken.start * dimension..taken.end * dimension].chunks_exact(dimension) {
            for (sum, x) in vectors[start..].iter_mut().zip(state) {
                *sum += x / taken.len() as f32;
            }
        }
    }
    vectors
}

/// Scales each vector to unit length, except for zeros.
pub(super) fn normalize(vectors: &mut [f32], dimension: usize) {
    for vector in vectors.chunks_exact_mut(dimension) {
        let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
    }
}
