//! "Here are samples in blocks of near ones, give me a mini-batch of a few blocks."
//!
//! These are the samplers of other methods, to compare walks with. A [`Partition`] is made once for a graph or for
//! embeddings, as [`communities`] or as [`clusters`], and [`Blocks`] are what remains of it in an epoch.

mod blocks;
mod clusters;
mod communities;
mod partitioning;
mod propagation;

pub(in crate::walk) use self::blocks::Blocks;
pub(in crate::walk) use self::partitioning::{PartitionRequest, Partitioning};
use super::lists::Lists;
use crate::sample::SampleId;

/// The samples divided into blocks: every sample is in one at most, and a skipped one in none.
///
/// Takes 8 bytes a sample.
#[derive(Debug)]
pub(super) struct Partition {
    /// The block of each sample, or [`NO_BLOCK`].
    block_of: Vec<u32>,
    members: Lists,
}

impl Partition {
    /// The samples whose block is given, and those in [`NO_BLOCK`]; there are `count` blocks.
    fn new(block_of: Vec<u32>, count: usize) -> Self {
        let members = || (0..).zip(&block_of).filter(|(_, block)| **block != NO_BLOCK);
        let members = Lists::new(count, || members().map(|(id, &block)| (block as usize, id)));
        Self { block_of, members }
    }

    /// How many blocks there are.
    fn len(&self) -> usize {
        self.members.len()
    }

    fn block_of(&self, id: SampleId) -> Option<usize> {
        let block = self.block_of.get(id.index()).filter(|block| **block != NO_BLOCK);
        block.map(|&block| block as usize)
    }

    fn members(&self, block: usize) -> impl Iterator<Item = SampleId> {
        self.members.get(block).iter().map(|&id| SampleId(id))
    }
}

/// Stands for no block: there are fewer blocks than samples, whose ids are below this.
const NO_BLOCK: u32 = u32::MAX;
