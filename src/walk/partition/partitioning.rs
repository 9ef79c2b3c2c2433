use std::sync::Arc;

use super::super::dials::Dials;
use super::super::remaining::Remaining;
use super::clusters::clusters;
use super::communities::communities;
use super::{Blocks, Partition};
use crate::config::{SamplerKind, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::{GraphVersion, SampleId};

/// What a partition is made for. It depends on nothing else, so a resumed run has the same.
#[derive(Clone, Copy, Debug)]
pub(in crate::walk) struct PartitionRequest<'a> {
    pub dials: Dials,
    pub config: &'a WalkConfig,
    pub seed: u64,
    pub graph: &'a ProximityGraph,
    /// Without them there are no clusters, and all samples are in no block.
    pub embeddings: Option<&'a Arc<EmbeddingTable>>,
}

impl PartitionRequest<'_> {
    /// How many samples a block gives a part of a mini-batch.
    fn part_size(&self) -> usize {
        self.config.batch_size.div_ceil(self.dials.starts)
    }

    /// What the partition follows from; `None` if the sampler has no partition.
    fn basis(&self) -> Option<Basis> {
        let Self { config, seed, graph, .. } = *self;
        match self.dials.sampler {
            SamplerKind::Communities => {
                Some(Basis::Graph { version: graph.version(), len: graph.len(), size: self.part_size(), seed })
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
pub(in crate::walk) struct Partitioning {
    made: Option<(Basis, Arc<Partition>)>,
    blocks: Option<Blocks>,
}

impl Partitioning {
    /// Makes the partition, unless it is made, and counts what remains of its blocks.
    pub fn update(&mut self, request: &PartitionRequest<'_>, remaining: &Remaining) {
        let Some(basis) = request.basis() else { return };
        if !self.made.as_ref().is_some_and(|(made_for, _)| made_for.is(&basis)) {
            let partition = match &basis {
                Basis::Graph { size, seed, .. } => communities(request.graph, *size, *seed),
                Basis::Embeddings { embeddings: Some(embeddings), batch_size, seed } => {
                    clusters(embeddings, *batch_size, *seed)
                }
                Basis::Embeddings { embeddings: None, .. } => Partition::new(Vec::new(), 0),
            };
            self.made = Some((basis, partition.into()));
            self.blocks = None;
        }
        let part_size = request.part_size();
        if let Some((_, partition)) = &self.made
            && self.blocks.as_ref().is_none_or(|blocks| blocks.part_size() != part_size)
        {
            self.blocks = Some(Blocks::new(partition.clone(), part_size, remaining));
        }
    }

    /// Counts these samples as drawn.
    pub fn count_drawn(&mut self, ids: &[SampleId]) {
        if let Some(blocks) = &mut self.blocks {
            blocks.count_drawn(ids);
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::config::{GraphConfig, GuardsConfig, Similarity, WarmUp};
    use crate::graph;
    use crate::sample::ModelVersion;
    use crate::walk::{Draw, EpochSampler, Groups, Guards};

    const LEN: usize = 2400;
    const PLANTED: usize = 20;
    const SIZE: usize = 40;

    /// Vectors around `PLANTED` centers, of which sample i has that of number i modulo `PLANTED`, and their graph.
    fn planted() -> (Arc<EmbeddingTable>, ProximityGraph) {
        const DIMENSION: usize = 16;
        let mut generator = ChaCha8Rng::seed_from_u64(5);
        let mut random = || generator.random_range(-1.0..1.0f32);
        let centers: Vec<f32> = (0..PLANTED * DIMENSION).map(|_| random()).collect();
        let vectors = (0..LEN * DIMENSION).map(|at| centers[at % centers.len()] + 0.4 * random()).collect();
        let table = EmbeddingTable::new(vectors, DIMENSION, Similarity::Cosine, ModelVersion(1)).unwrap();
        let config = GraphConfig { candidates: 400.into(), neighbors: Some(10), ..GraphConfig::default() };
        let graph = graph::build(&table, &config, 3, GraphVersion(1)).unwrap();
        (table.into(), graph)
    }

    /// A graph without structure.
    fn random_graph(len: usize, degree: usize, seed: u64) -> ProximityGraph {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let neighbors = (0..len * degree).map(|_| SampleId::new(generator.random_range(0..len))).collect();
        ProximityGraph::new(neighbors, vec![0.5; len * degree], degree, GraphVersion(1)).unwrap()
    }

    /// The share of samples that are of the planted cluster that most of their block are of.
    fn purity(blocks: impl Iterator<Item = Vec<SampleId>>) -> f64 {
        let mut pure = 0;
        let mut all = 0;
        for block in blocks {
            let mut times = [0; PLANTED];
            block.iter().for_each(|id| times[id.index() % PLANTED] += 1);
            pure += times.into_iter().max().unwrap_or_default();
            all += block.len();
        }
        f64::from(pure) / all as f64
    }

    fn blocks(partition: &Partition) -> impl Iterator<Item = Vec<SampleId>> {
        (0..partition.len()).map(|block| partition.members(block).collect())
    }

    /// The mini-batches of an epoch.
    fn epoch(sampler: SamplerKind, starts: usize) -> Vec<Draw> {
        let (table, graph) = planted();
        let guards = Guards::new(&GuardsConfig::default(), Arc::new(Groups::default()), table);
        let starts = (starts as f64).into();
        let config = WalkConfig { batch_size: SIZE, sampler, starts, ..WalkConfig::default() };
        let mut epoch = EpochSampler::new(LEN, &config, 9, 0);
        std::iter::from_fn(|| epoch.next_guarded(&graph, &guards)).collect()
    }

    /// Every sample is in one community, and all but one have the size that was asked for.
    #[test]
    fn communities_are_of_one_size() {
        for (len, degree, size) in [(7, 2, 7), (7, 2, 9), (300, 1, 7), (1000, 6, 1), (1000, 6, 32)] {
            let graph = random_graph(len, degree, 2);
            let partition = communities(&graph, size, 1);
            let mut sizes: Vec<_> = blocks(&partition).map(|members| members.len()).collect();
            let present = (0..len).filter(|&id| !graph.is_skipped(SampleId::new(id))).count();
            let distinct: HashSet<_> = blocks(&partition).flatten().collect();
            assert_eq!((sizes.iter().sum::<usize>(), distinct.len()), (present, present));
            for id in distinct {
                assert!(partition.members(partition.block_of(id).unwrap()).any(|member| member == id));
            }
            let last = sizes.pop().unwrap();
            assert!(sizes.iter().all(|&other| other == size) && last <= size, "{sizes:?} and {last}");
        }
    }

    #[test]
    fn both_find_planted_clusters() {
        let (table, graph) = planted();
        for size in [20, 40, 60] {
            let communities = communities(&graph, size, 1);
            let purity = purity(blocks(&communities));
            assert!(purity > 0.97, "communities of {size}: {purity}");
        }
        let clusters = clusters(&table, 30, 1);
        assert!(blocks(&clusters).count() == 80);
        let purity = purity(blocks(&clusters));
        assert!(purity > 0.97, "clusters: {purity}");
    }

    /// A community keeps about as many edges as there can be: more than cutting the samples anywhere, and as planted.
    #[test]
    fn communities_keep_edges_within_them() {
        let (_, graph) = planted();
        let ids = || (0..LEN).map(SampleId::new);
        let within = |same: &dyn Fn(SampleId, SampleId) -> bool| {
            ids().map(|id| graph.neighbors(id).iter().filter(|&&to| same(id, to)).count()).sum::<usize>()
        };
        let planted = within(&|a, b| a.index() % PLANTED == b.index() % PLANTED);
        let partition = communities(&graph, LEN / PLANTED, 1);
        let found = within(&|a, b| partition.block_of(a) == partition.block_of(b));
        assert!(found as f64 > 0.97 * planted as f64, "{found} of {planted}");
    }

    /// If communities fit mini-batches, each of these is one community, or as many as there are starts.
    #[test]
    fn a_mini_batch_is_made_of_whole_communities() {
        let (_, graph) = planted();
        for starts in [1, 2, 5] {
            let partition = communities(&graph, SIZE / starts, 9);
            let draws = epoch(SamplerKind::Communities, starts);
            assert_eq!(draws.len(), LEN / SIZE);
            for draw in draws {
                let found: HashSet<_> = draw.ids.iter().map(|&id| partition.block_of(id).unwrap()).collect();
                assert_eq!((found.len(), draw.counts.new_starts), (starts, 0));
            }
        }
    }

    /// A mini-batch takes from a second cluster only if the first is used up.
    #[test]
    fn a_mini_batch_is_of_one_cluster_while_it_lasts() {
        let (table, _) = planted();
        let partition = clusters(&table, SIZE, 9);
        let mut left: Vec<_> = blocks(&partition).map(|members| members.len()).collect();
        let draws = epoch(SamplerKind::Clusters, 1);
        let mut whole = 0;
        for draw in &draws {
            let in_order: Vec<_> = draw.ids.iter().map(|&id| partition.block_of(id).unwrap()).collect();
            in_order.iter().for_each(|&block| left[block] -= 1);
            let runs: Vec<_> = in_order.chunk_by(|a, b| a == b).map(|run| run[0]).collect();
            let (_, before) = runs.split_last().unwrap();
            assert!(before.iter().all(|&block| left[block] == 0), "{runs:?}");
            assert_eq!(draw.counts.new_starts as usize, before.len());
            whole += usize::from(before.is_empty());
        }
        assert!(left.iter().all(|&left| left == 0) && whole > draws.len() / 4, "{whole} of {}", draws.len());
    }

    #[test]
    fn threads_change_nothing() {
        for sampler in [SamplerKind::Communities, SamplerKind::Clusters] {
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| epoch(sampler, 2))
            };
            assert_eq!(on(1), on(5));
        }
    }

    /// The next epoch has other mini-batches of the same blocks, whether it takes the partition over or makes it anew.
    #[test]
    fn an_epoch_takes_over_the_partition() {
        let (table, graph) = planted();
        let guards = Guards::new(&GuardsConfig::default(), Arc::new(Groups::default()), table);
        for sampler in [SamplerKind::Communities, SamplerKind::Clusters] {
            let config = WalkConfig { batch_size: SIZE, sampler, ..WalkConfig::default() };
            let mut first = EpochSampler::new(LEN, &config, 9, 0);
            let mut anew = EpochSampler::new(LEN, &config, 9, 1);
            let drawn = first.next_guarded(&graph, &guards);
            let mut taken_over = EpochSampler::new(LEN, &config, 9, 1).with_partition_of(&first);
            let draws: Vec<_> = std::iter::from_fn(|| taken_over.next_guarded(&graph, &guards)).collect();
            assert!(drawn.as_ref() != draws.first());
            assert_eq!(draws, std::iter::from_fn(|| anew.next_guarded(&graph, &guards)).collect::<Vec<_>>());
        }
    }

    /// Without embeddings there are no clusters: that is counted, and nobody is lost.
    #[test]
    fn without_embeddings_mini_batches_are_topped_up() {
        let (_, graph) = planted();
        let warm_up = Some(WarmUp::Steps(1));
        let config = WalkConfig { batch_size: SIZE, sampler: SamplerKind::Clusters, warm_up, ..WalkConfig::default() };
        let mut epoch = EpochSampler::new(LEN, &config, 9, 0);
        let draws: Vec<_> = std::iter::from_fn(|| epoch.next(&graph)).collect();
        let counts: Vec<_> = draws
            .iter()
            .map(|draw| [draw.counts.uniform_draws, draw.counts.uniform_top_ups].map(|n| n as usize))
            .collect();
        assert!(counts[0] == [SIZE, 0] && counts[1..].iter().all(|counts| *counts == [0, SIZE]), "{counts:?}");
        assert_eq!(draws.iter().map(|draw| draw.ids.len()).sum::<usize>(), LEN);
    }

    /// A sample of a large cluster has come by half of an epoch as probably as one of a small cluster.
    #[test]
    fn half_an_epoch_has_half_of_each_block() {
        const BLOCKS: usize = 30;
        // Block b has b + 1 samples.
        let block_of: Vec<u32> = (0..BLOCKS as u32).flat_map(|block| (0..=block).map(move |_| block)).collect();
        let len = block_of.len();
        let partition = Arc::new(Partition::new(block_of, BLOCKS));
        let mut came = vec![0usize; BLOCKS];
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        const EPOCHS: usize = 2000;
        for _ in 0..EPOCHS {
            let mut remaining = Remaining::all(len);
            let mut blocks = Blocks::new(partition.clone(), 8, &remaining);
            while remaining.len() > len / 2 {
                let parts = crate::walk::parts::Parts::new(1, 8, 0);
                let mut filling = crate::walk::filling::Filling::new(8, &mut remaining, None, None, ());
                blocks.fill_parts(parts, &mut filling, &mut generator);
                let ids = filling.ids;
                blocks.count_drawn(&ids);
                ids.iter().for_each(|&id| came[partition.block_of(id).unwrap()] += 1);
            }
        }
        for (block, came) in came.into_iter().enumerate() {
            let share = came as f64 / ((block + 1) * EPOCHS) as f64;
            assert!((0.46..0.57).contains(&share), "{share} of block {block}");
        }
    }
}
