use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;

use super::super::filling::Filling;
use super::super::guards::Admission;
use super::super::parts::{Part, Parts};
use super::super::remaining::Remaining;
use super::super::weights::Weights;
use super::Partition;
use crate::sample::SampleId;

/// The blocks of a partition during an epoch, of which samples remain.
///
/// All that it knows follows from the partition and from the samples that remain.
#[derive(Clone, Debug)]
pub(in crate::walk) struct Blocks {
    partition: Arc<Partition>,
    /// How many samples a block gives a part of a mini-batch.
    part_size: usize,
    /// How many members of each block remain.
    left: Vec<u32>,
    /// How probably each block is picked, as [`weigh`](Self::weigh) says; 0 for exhausted ones.
    weights: Weights,
    /// The blocks none of whose samples may join the mini-batch any more.
    exhausted: Vec<usize>,
}

impl Blocks {
    /// Counts what remains, in O(N).
    pub fn new(partition: Arc<Partition>, part_size: usize, remaining: &Remaining) -> Self {
        let mut left = vec![0; partition.len()];
        remaining.iter().filter_map(|id| partition.block_of(id)).for_each(|block| left[block] += 1);
        let weights = Weights::zeros(left.len());
        let mut blocks = Self { partition, part_size: part_size.max(1), left, weights, exhausted: Vec::new() };
        (0..blocks.left.len()).for_each(|block| blocks.weigh(block));
        blocks
    }

    /// How many samples a block gives a part of a mini-batch.
    pub fn part_size(&self) -> usize {
        self.part_size
    }

    /// Counts these samples as drawn.
    pub fn count_drawn(&mut self, ids: &[SampleId]) {
        for &id in ids {
            if let Some(block) = self.partition.block_of(id) {
                self.left[block] = self.left[block].saturating_sub(1);
                self.weigh(block);
            }
        }
    }

    /// Fills the parts of a mini-batch from one block each.
    ///
    /// 1. Take the block of the part's next must-draw sample; if there is none, a random block: one that fills more
    ///    than a part in proportion to what remains of it, all others equally.
    /// 2. Take the block's remaining samples in random order until the part is full. What is left of them waits.
    /// 3. If the part is not full, go on with another block.
    /// 4. Stop after `MAX_OFFERS_PER_SAMPLE` samples for each place of the mini-batch. What all parts lack is drawn
    ///    uniformly in the end.
    ///
    /// So all remaining samples come with the same probability, whatever the sizes of their blocks.
    pub fn fill_parts<A: Admission>(&mut self, parts: Parts, filling: &mut Filling<'_, A>, generator: &mut impl Rng) {
        for block in std::mem::take(&mut self.exhausted) {
            self.weigh(block);
        }
        let mut offers = parts.places().saturating_mul(MAX_OFFERS_PER_SAMPLE);
        for number in 0..parts.walks() {
            let part = parts.begin(number, filling.ids.len());
            filling.aim_for(part.end());
            self.fill_part(part, &mut offers, filling, generator);
        }
        filling.aim_for(parts.end());
        filling.counts.uniform_top_ups += filling.top_up(generator);
    }

    fn fill_part<A: Admission>(
        &mut self,
        part: Part,
        offers: &mut usize,
        filling: &mut Filling<'_, A>,
        generator: &mut impl Rng,
    ) {
        let must_draw = part.len(&filling.ids);
        let mut looked = 0;
        while !filling.is_full() {
            let member = part.get(&filling.ids, looked).filter(|_| looked < must_draw);
            let block = match member {
                Some(member) => self.partition.block_of(member),
                None => match self.weights.pick(generator) {
                    Some(block) => Some(block),
                    None => return,
                },
            };
            filling.counts.new_starts += u64::from(looked > 0);
            looked += 1;
            let Some(block) = block else { continue };
            let mut members: Vec<_> = self.partition.members(block).filter(|&id| filling.remains(id)).collect();
            members.shuffle(generator);
            for id in members {
                if filling.is_full() || *offers == 0 {
                    return;
                }
                filling.offer(id);
                *offers -= 1;
            }
            self.weights.set(block, 0);
            self.exhausted.push(block);
        }
    }

    /// Gives a block the weight of what remains of it, and of a part if that is more.
    ///
    /// With parts of s samples, a sample then comes with a probability of max(left, s) × min(left, s) / left = s,
    /// divided by the sum of all weights.
    fn weigh(&mut self, block: usize) {
        let left = self.left[block] as usize;
        let weight = if left == 0 { 0 } else { left.max(self.part_size) };
        self.weights.set(block, weight as u64);
    }
}

/// How many samples of blocks a mini-batch looks at for each of its own, since guards may refuse many.
const MAX_OFFERS_PER_SAMPLE: usize = 256;
