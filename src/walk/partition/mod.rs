//! "Here are samples in blocks of near ones, give me a mini-batch of a few blocks."
//!
//! These are the samplers of other methods, to compare walks with. A [`Partition`] is made once for a graph or for
//! embeddings, as [`communities`] or as [`clusters`], and [`Blocks`] are what remains of it in an epoch.

mod blocks;
mod clusters;
mod communities;
mod lists;
mod propagation;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

pub(in crate::walk) use self::blocks::Blocks;
use self::lists::Lists;
use super::dials::Dials;
use super::remaining::Remaining;
use crate::config::{SamplerKind, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::{GraphVersion, SampleId};

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

/// What a partition is made for. It depends on nothing else, so a resumed run has the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartitionRequest<'a> {
    pub dials: Dials,
    pub config: &'a WalkConfig,
    pub seed: u64,
    pub graph: &'a ProximityGraph,
    /// Without them there are no clusters, and all samples are in no block.
    pub embeddings: Option<&'a Arc<EmbeddingTable>>,
}

impl PartitionRequest<'_> {
    /// How many samples a block gives a part of a mini-batch.
    fn part(&self) -> usize {
        self.config.batch_size.div_ceil(self.dials.starts)
    }

    /// What the partition follows from; `None` if the sampler has no partition.
    fn basis(&self) -> Option<Basis> {
        let Self { config, seed, graph, .. } = *self;
        match self.dials.sampler {
            SamplerKind::Communities => {
                Some(Basis::Graph { version: graph.version(), len: graph.len(), size: self.part(), seed })
            }
            SamplerKind::Clusters => {
                Some(Basis::Embeddings { embeddings: self.embeddings.cloned(), batch_size: config.batch_size, seed })
            }
            SamplerKind::RandomWalk | SamplerKind::Knn | SamplerKind::Uniform => None,
        }
    }
}

/// What a partition follows from.
#[derive(Clone, Debug)]
enum Basis {
    Graph { version: GraphVersion, len: usize, size: usize, seed: u64 },
    Embeddings { embeddings: Option<Arc<EmbeddingTable>>, batch_size: usize, seed: u64 },
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Graph { version, len, size, seed },
                Self::Graph { version: other_version, len: other_len, size: other_size, seed: other_seed },
            ) => (version, len, size, seed) == (other_version, other_len, other_size, other_seed),
            (
                Self::Embeddings { embeddings, batch_size, seed },
                Self::Embeddings { embeddings: other, batch_size: other_batch_size, seed: other_seed },
            ) => {
                let are_same = embeddings.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr);
                are_same && (batch_size, seed) == (other_batch_size, other_seed)
            }
            _ => false,
        }
    }
}

/// The partition that an epoch draws from, which is made when it is first needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Partitioning {
    made: Option<(Basis, Arc<Partition>)>,
    blocks: Option<Blocks>,
}

impl Partitioning {
    /// Makes the partition, unless it is made, and counts what remains of its blocks.
    pub fn update(&mut self, request: &PartitionRequest<'_>, remaining: &Remaining) {
        let Some(basis) = request.basis() else { return };
        if !self.made.as_ref().is_some_and(|(made_for, _)| made_for.is(&basis)) {
            let partition = match &basis {
                Basis::Graph { size, seed, .. } => communities::communities(request.graph, *size, *seed),
                Basis::Embeddings { embeddings: Some(embeddings), batch_size, seed } => {
                    clusters::clusters(embeddings, *batch_size, *seed)
                }
                Basis::Embeddings { embeddings: None, .. } => Partition::new(Vec::new(), 0),
            };
            self.made = Some((basis, partition.into()));
            self.blocks = None;
        }
        let part = request.part();
        if let Some((_, partition)) = &self.made
            && !self.blocks.as_ref().is_some_and(|blocks| blocks.part() == part)
        {
            self.blocks = Some(Blocks::new(partition.clone(), part, remaining));
        }
    }

    /// Counts these samples as drawn.
    pub fn drawn(&mut self, ids: &[SampleId]) {
        if let Some(blocks) = &mut self.blocks {
            blocks.drawn(ids);
        }
    }

    /// The blocks, once the partition is made.
    pub fn blocks(&mut self) -> Option<&mut Blocks> {
        self.blocks.as_mut()
    }

    /// The partition alone, for another epoch or another order of the remaining samples.
    pub fn without_blocks(&self) -> Self {
        Self { made: self.made.clone(), blocks: None }
    }
}

/// Stands for no block: there are fewer blocks than samples, whose ids are below this.
const NO_BLOCK: u32 = u32::MAX;
