use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::counts::WalkCounts;
use crate::config::{Coverage, WalkConfig};
use crate::sample::SampleId;

/// The ids of one mini-batch, and what happened while they were found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The distinct samples of the mini-batch, in the order in which walks found them.
    ///
    /// Those of the random share are placed evenly between the others, so that all slices have the same mixture.
    pub ids: Vec<SampleId>,
    /// The explicit negatives [ids × `walk.negatives`], near their sample and never one of `ids`.
    ///
    /// They are distinct if there are enough samples, and `None` if no sample is allowed.
    pub negatives: Vec<Option<SampleId>>,
    /// What happened while they were found.
    pub counts: WalkCounts,
}

/// The samples that remain in an epoch at some point.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// One beyond the highest id.
    pub id_end: usize,
    /// How many samples the epoch has, or had when it began.
    pub samples: usize,
    /// How many mini-batches were drawn.
    pub drawn: u64,
    /// A bit for each sample, which is set if it remains.
    pub bits: Vec<u64>,
    /// How many samples guards had kept out, if the epoch has begun again to be as long as others.
    pub unplaced: Option<usize>,
}

impl Left {
    /// The beginning of an epoch that has the samples whose bits are set, of those with ids below `id_end`.
    pub(crate) fn beginning(id_end: usize, bits: Vec<u64>) -> Self {
        let samples = bits.iter().map(|bits| bits.count_ones() as usize).sum();
        Self { id_end, samples, drawn: 0, bits, unplaced: None }
    }

    /// Takes so many samples out of epoch `epoch`, but no sample out of two epochs in a row, as long as they are at
    /// most half of all.
    ///
    /// They are the next so many of a random order of all samples, which goes round. O(ids).
    pub(crate) fn sit_out(&mut self, sitting_out: usize, seed: u64, epoch: u64) {
        let Ok(modulus) = u64::try_from(self.samples) else { return };
        if sitting_out == 0 {
            return;
        }
        let is_in = |id: &usize| self.bits[id / 64] >> (id % 64) & 1 == 1;
        let mut order: Vec<usize> = (0..self.id_end).filter(is_in).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed ^ u64::from_le_bytes(*b"sit out ")));
        let from = (u128::from(epoch) * sitting_out as u128 % u128::from(modulus)) as usize;
        for &id in order.iter().cycle().skip(from).take(sitting_out) {
            self.bits[id / 64] &= !(1 << (id % 64));
        }
        self.samples -= sitting_out;
    }
}

/// How many mini-batches an epoch over `samples` has; with the paper's coverage, how many at least.
#[must_use]
pub fn mini_batches_per_epoch(samples: usize, config: &WalkConfig) -> u64 {
    let size = config.batch_size.max(1);
    if config.coverage == Coverage::Paper {
        return (samples / size).max(1) as u64;
    }
    (if config.drop_last { samples / size } else { samples.div_ceil(size) }) as u64
}
