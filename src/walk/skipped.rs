use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;

use super::remaining::Remaining;
use crate::embeddings::EmbeddingTable;
use crate::sample::SampleId;

/// The remaining samples that could not be embedded after all, in an epoch that began before there were embeddings.
///
/// They stay in the epoch, so that it keeps its length. No walk reaches them: they are drawn uniformly, equally many in
/// every mini-batch to come.
#[derive(Clone, Debug)]
pub(super) struct SkippedSamples {
    embeddings: Arc<EmbeddingTable>,
    /// Those that remained when the last mini-batch began, by ascending id.
    ids: Vec<SampleId>,
}

impl SkippedSamples {
    /// Finds them in O(N).
    pub fn new(embeddings: &Arc<EmbeddingTable>, remaining: &Remaining) -> Self {
        let ids = remaining.iter().filter(|&id| embeddings.is_skipped(id)).collect();
        Self { embeddings: embeddings.clone(), ids }
    }

    /// Whether these are the samples that these embeddings have skipped.
    pub fn are_of(&self, embeddings: &Arc<EmbeddingTable>) -> bool {
        Arc::ptr_eq(&self.embeddings, embeddings)
    }

    /// Chooses those of a mini-batch of `size`, with `left` mini-batches to come.
    ///
    /// There are more if too few other samples remain to fill the mini-batch.
    pub fn choose(&mut self, remaining: &Remaining, size: usize, left: u64, generator: &mut impl Rng) -> Vec<SampleId> {
        self.ids.retain(|&id| remaining.contains(id));
        let share = (self.ids.len() as u64).div_ceil(left.max(1)) as usize;
        let others = remaining.len() - self.ids.len();
        let count = share.max(size.saturating_sub(others)).min(size);
        let mut ids = self.ids.clone();
        ids.partial_shuffle(generator, count).0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::super::{EpochSampler, Groups, Guards, mini_batches_per_epoch};
    use super::*;
    use crate::config::{GuardsConfig, SamplerKind, Similarity, Storage, WalkConfig};
    use crate::graph::ProximityGraph;
    use crate::sample::{GraphVersion, ModelVersion};

    const LEN: usize = 230;
    const DEGREE: usize = 6;

    /// A graph and guards with embeddings of which some are skipped, and the guards before there are any.
    fn data(skipped: &[usize], seed: u64) -> (ProximityGraph, Guards, Guards) {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut vectors: Vec<f32> = (0..LEN * 4).map(|_| generator.random_range(-1.0..1.0)).collect();
        let (storage, similarity) = (Storage::F32, Similarity::Cosine);
        let mut table = EmbeddingTable::with_capacity(LEN, 4, storage, similarity, ModelVersion(1)).unwrap();
        table.push_except(&mut vectors, skipped, |_, _| Ok(())).unwrap();
        let present: Vec<usize> = (0..LEN).filter(|id| !skipped.contains(id)).collect();
        let neighbor = |at: usize| {
            let id = at / DEGREE;
            SampleId::new(if skipped.contains(&id) { id } else { present[generator.random_range(0..present.len())] })
        };
        let neighbors = (0..LEN * DEGREE).map(neighbor).collect();
        let graph = ProximityGraph::new(neighbors, vec![0.0; LEN * DEGREE], DEGREE, GraphVersion(1)).unwrap();
        let config = GuardsConfig { max_similarity: Some(0.999), ..GuardsConfig::default() };
        let groups = Arc::new(Groups::default());
        (graph, Guards::new(&config, groups.clone(), Arc::new(table)), Guards::of_groups(&config, groups))
    }

    /// The ids of each mini-batch of an epoch whose first ones are drawn without a graph.
    fn epoch(config: &WalkConfig, skipped: &[usize], without_graph: u64) -> Vec<Vec<SampleId>> {
        let (graph, guards, groups_alone) = data(skipped, 5);
        let mut sampler = EpochSampler::new(LEN, config, 9, 0).keeping_skipped();
        let mut all = Vec::new();
        loop {
            let draw = if sampler.drawn() < without_graph {
                sampler.next_uniform(&groups_alone)
            } else {
                sampler.next_guarded(&graph, &guards)
            };
            let Some(draw) = draw else { return all };
            assert_eq!(draw.counts.short, 0);
            all.push(draw.ids);
        }
    }

    /// The epoch has the announced length and sizes, and every sample once, whenever the graph comes.
    #[test]
    fn an_epoch_keeps_its_length_when_samples_are_skipped() {
        for sampler in [SamplerKind::RandomWalk, SamplerKind::Knn, SamplerKind::Uniform] {
            for skipped in [(3..LEN).step_by(10).collect::<Vec<_>>(), (0..200).collect(), (20..LEN).collect()] {
                for without_graph in 0..=15 {
                    let config = WalkConfig { batch_size: 16, sampler, starts: 2.0.into(), ..WalkConfig::default() };
                    let all = epoch(&config, &skipped, without_graph);
                    assert_eq!(all.len() as u64, mini_batches_per_epoch(LEN, &config));
                    let sizes: Vec<_> = all.iter().map(Vec::len).collect();
                    assert!(sizes[..14].iter().all(|&size| size == 16) && sizes[14] == 6, "{sizes:?}");
                    let mut ids = all.concat();
                    ids.sort_unstable();
                    assert_eq!(ids, (0..LEN).map(SampleId::new).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn skipped_samples_are_spread_over_the_rest_of_the_epoch() {
        let skipped: Vec<_> = (3..LEN).step_by(10).collect();
        let config = WalkConfig { batch_size: 16, ..WalkConfig::default() };
        for without_graph in 0..12 {
            let all = epoch(&config, &skipped, without_graph);
            let counts = all[without_graph as usize..14].iter();
            let counts: Vec<_> =
                counts.map(|ids| ids.iter().filter(|id| skipped.contains(&id.index())).count()).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?} after {without_graph}");
        }
    }

    #[test]
    fn a_restored_epoch_knows_the_skipped_samples() {
        let skipped: Vec<_> = (3..LEN).step_by(10).collect();
        let config = WalkConfig { batch_size: 16, ..WalkConfig::default() };
        let (graph, guards, groups_alone) = data(&skipped, 5);
        for without_graph in 0..8 {
            for steps in 0..15 {
                let mut sampler = EpochSampler::new(LEN, &config, 9, 0).keeping_skipped();
                for step in 0..steps {
                    let draw = if step < without_graph {
                        sampler.next_uniform(&groups_alone)
                    } else {
                        sampler.next_guarded(&graph, &guards)
                    };
                    assert!(draw.is_some());
                }
                let left = sampler.forget_order();
                let mut restored = EpochSampler::from_left(&left, &config, 9, 0).keeping_skipped();
                for _ in steps..15 {
                    let expected = sampler.next_guarded(&graph, &guards);
                    assert_eq!(restored.next_guarded(&graph, &guards), expected, "{without_graph} and {steps}");
                    assert!(expected.is_some());
                }
            }
        }
    }
}
