use std::sync::Arc;

use rand::{Rng, RngExt};

use super::remaining::Remaining;
use crate::graph::{InDegreeTails, ProximityGraph};
use crate::sample::SampleId;

/// How far hubs, and samples that few edges lead to, are ahead of an epoch, so that walks can wait for the others.
///
/// Any prefix of an epoch should be an unbiased sample, but forward edges lead to hubs, and reverse edges to samples of
/// low in-degree. How far a [tail](InDegreeTails) is ahead is the share of it that has come, less that share of all
/// samples. It follows from the graph and the remaining samples alone, so a resumed run sees the same.
///
/// 1. If hubs are further ahead than samples of low in-degree, fewer moves go forward, otherwise more.
/// 2. Of a tail that is ahead, a share of samples sits out a mini-batch: walks pass through them. Starts and samples
///    that are drawn uniformly are not held back, so every mini-batch still fills.
///
/// The constants rest on docs/sampling.md.
#[derive(Clone, Debug)]
pub(super) struct Balance {
    tails: Arc<InDegreeTails>,
    /// How many samples the epoch has, and how many of these are in the lower and in the upper tail.
    samples: usize,
    in_tails: [usize; 2],
    /// The same for the samples that remain.
    remaining: usize,
    remaining_in_tails: [usize; 2],
}

impl Balance {
    /// Counts the tails of an epoch over the first `samples` of a graph, in O(N), or O(N K) once a graph.
    pub fn new(graph: &ProximityGraph, samples: usize, remaining: &Remaining) -> Self {
        let tails = graph.in_degree_tails();
        let mut in_tails = [0; 2];
        let mut remaining_in_tails = [0; 2];
        for id in (0..samples).map(SampleId::new) {
            if let Some(tail) = tails.of(id) {
                in_tails[tail] += 1;
                remaining_in_tails[tail] += usize::from(remaining.contains(id));
            }
        }
        Self { tails, samples, in_tails, remaining: remaining.len(), remaining_in_tails }
    }

    /// Counts these samples as drawn.
    pub fn count_drawn(&mut self, ids: &[SampleId]) {
        self.remaining -= ids.len();
        for tail in ids.iter().filter_map(|&id| self.tails.of(id)) {
            self.remaining_in_tails[tail] -= 1;
        }
    }

    /// How far both tails are ahead beyond the tolerance, at most 1 either way; tails below a tenth count for less.
    fn ahead(&self) -> [f64; 2] {
        let share = self.remaining as f64 / self.samples.max(1) as f64;
        [0, 1].map(|tail| {
            let expected = share * self.in_tails[tail] as f64;
            let weight = self.in_tails[tail].max(self.samples / 10).max(1);
            let ahead = (expected - self.remaining_in_tails[tail] as f64) / weight as f64;
            ahead.signum() * (ahead.abs() - TOLERANCE).max(0.0)
        })
    }

    /// How many moves of [`FORWARD_OF`] go forward.
    pub fn forward(&self) -> u32 {
        let [low, high] = self.ahead();
        (FORWARD + FORWARD_GAIN * (low - high)).round().clamp(0.0, f64::from(FORWARD_OF)) as u32
    }

    /// Chooses at random which samples sit out a mini-batch.
    pub fn sitting_out(&self, generator: &mut impl Rng) -> SittingOut<'_> {
        let below = self.ahead().map(|ahead| ((SIT_OUT_GAIN * ahead).clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32);
        SittingOut { tails: &self.tails, below, key: generator.random() }
    }
}

/// The samples that walks pass through in one mini-batch, since others like them came early.
#[derive(Clone, Copy, Debug)]
pub(super) struct SittingOut<'a> {
    tails: &'a InDegreeTails,
    /// Those of each tail whose hash is below this.
    below: [u32; 2],
    /// Makes the hashes those of this mini-batch.
    key: u32,
}

impl SittingOut<'_> {
    /// Whether a sample sits out.
    #[inline]
    pub fn contains(&self, id: SampleId) -> bool {
        self.below != [0; 2] && self.tails.of(id).is_some_and(|tail| hash(id.0 ^ self.key) < self.below[tail])
    }
}

/// Mixes the bits of a number.
#[inline]
fn hash(number: u32) -> u32 {
    let number = number.wrapping_mul(0x9e37_79b1);
    let number = (number ^ (number >> 15)).wrapping_mul(0x85eb_ca77);
    number ^ (number >> 13)
}

/// How far a tail may be ahead or behind before walks heed it.
const TOLERANCE: f64 = 0.01;

/// Of how many moves [`Balance::forward`] says how many go forward: a power of two.
pub(super) const FORWARD_OF: u32 = 64;

/// How many moves of [`FORWARD_OF`] go forward if no tail is ahead.
const FORWARD: f64 = 8.0;

/// How many more moves of [`FORWARD_OF`] go forward if low in-degrees are ahead by 1; hubs count against it.
const FORWARD_GAIN: f64 = 800.0;

/// The share of a tail that sits out if it is ahead by 1; all do if it is ahead by the inverse.
const SIT_OUT_GAIN: f64 = 20.0;
