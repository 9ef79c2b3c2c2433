//! What the trainer has pushed: sets of vectors, and of losses, which are kept as vectors of one number.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::ToByteSlice;

use crate::arrow_file::checksum;
use crate::sample::SampleId;

/// Vectors and losses that the trainer has pushed.
#[derive(Clone, Debug)]
pub(super) struct Pushes {
    pub vectors: PushedVectors,
    pub losses: PushedVectors,
}

impl Pushes {
    /// Nothing yet; `dimension` is that of vectors.
    pub fn new(dimension: usize) -> Self {
        Self { vectors: PushedVectors::new(dimension), losses: PushedVectors::new(1) }
    }

    pub fn is_empty(&self) -> bool {
        self.vectors.len() == 0 && self.losses.len() == 0
    }

    /// Adds newer pushes, which replace those of the same samples.
    pub fn extend(&mut self, newer: &Self) {
        self.vectors.extend(&newer.vectors);
        self.losses.extend(&newer.losses);
    }

    /// The losses of `samples` samples, those that were pushed in place of those of `before`; NaN where there is none.
    /// Empty if none was ever pushed.
    pub fn losses_after(&self, before: &[f32], samples: usize) -> Arc<[f32]> {
        if before.is_empty() && self.losses.len() == 0 {
            return [].into();
        }
        let mut losses = before.to_vec();
        losses.resize(samples, f32::NAN);
        self.losses.iter().for_each(|push| losses[push.id.index()] = push.vector[0]);
        losses.into()
    }
}

/// A set of pushed vectors: the last one of each sample, with the step of its push.
#[derive(Clone, Debug)]
pub(super) struct PushedVectors {
    dimension: usize,
    slots: HashMap<SampleId, Slot>,
    vectors: Vec<f32>,
}

/// The position of a sample's vector, and the step of its push.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    step: u64,
}

/// A sample's vector, and the step of its push.
pub(super) struct Push<'a> {
    pub id: SampleId,
    pub vector: &'a [f32],
    pub step: u64,
}

impl PushedVectors {
    pub fn new(dimension: usize) -> Self {
        Self { dimension, slots: HashMap::new(), vectors: Vec::new() }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Replaces what was pushed for the sample before.
    pub fn insert(&mut self, push: &Push<'_>) {
        let slot = self.slots.entry(push.id).or_insert(Slot { start: self.vectors.len(), step: push.step });
        slot.step = push.step;
        if slot.start == self.vectors.len() {
            self.vectors.extend_from_slice(push.vector);
        } else {
            self.vectors[slot.start..][..self.dimension].copy_from_slice(push.vector);
        }
    }

    /// Adds newer pushes, which replace those of the same samples.
    pub fn extend(&mut self, newer: &Self) {
        for push in newer.iter() {
            self.insert(&push);
        }
    }

    /// A hash of all vectors and their samples: sets with the same ones have the same one.
    pub fn digest(&self) -> u64 {
        let of_one = |push: Push<'_>| [u64::from(push.id.0), checksum(push.vector.to_byte_slice())];
        let all: Vec<u64> = self.iter().flat_map(of_one).collect();
        checksum(all.to_byte_slice())
    }

    /// All pushes in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = Push<'_>> {
        let mut ids: Vec<_> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| {
            let Slot { start, step } = self.slots[&id];
            Push { id, vector: &self.vectors[start..][..self.dimension], step }
        })
    }
}
