use rand::rngs::ChaCha8Rng;

use super::dials::Dials;
use super::filling::Filling;
use super::guards::Admission;
use super::knn;
use super::negatives::NegativeSearch;
use super::partition::Blocks;
use super::parts::{Parts, spread};
use super::random_walk::RandomWalk;
use super::reverse::ReverseEdges;
use crate::config::SamplerKind;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// What a mini-batch is to be, before its samples are drawn.
#[derive(Debug)]
pub(super) struct Plan {
    pub size: usize,
    pub dials: Dials,
    /// The rank of the nearest neighbor that walks may move to.
    pub skip: usize,
    /// The samples that it begins with.
    pub must_draw: Vec<SampleId>,
    /// Whether must-draw samples may be ones without an embedding.
    pub keeps_skipped: bool,
    /// Samples without an embedding that it takes, too.
    pub skipped: Vec<SampleId>,
}

impl Plan {
    /// Fills a mini-batch.
    ///
    /// 1. Take the must-draw samples, as far as guards allow.
    /// 2. Fill what is neither for skipped samples nor for the random share by walks, nearest first, or by blocks.
    /// 3. Take the skipped samples, and fill the rest uniformly. Place all of these evenly between the others.
    ///
    /// Without a graph, it is all filled uniformly.
    pub fn fill<A: Admission>(
        &self,
        graph: Option<&ProximityGraph>,
        reverse: Option<&ReverseEdges>,
        blocks: Option<&mut Blocks>,
        filling: &mut Filling<'_, A>,
        generator: &mut ChaCha8Rng,
    ) {
        for &id in &self.must_draw {
            if self.keeps_skipped {
                filling.offer_skipped(id);
            } else if !filling.is_full() {
                filling.offer(id);
            }
        }
        let must_draw = filling.ids.len();

        let random = self.dials.random_places(self.size).saturating_add(self.skipped.len()).min(self.size);
        let parts = Parts::new(self.dials.starts, self.size - random, must_draw);
        match (graph, self.dials.sampler) {
            (Some(graph), SamplerKind::RandomWalk) => {
                let restart_probability = self.dials.restart_probability;
                let walk = RandomWalk { graph, reverse, skip: self.skip, restart_probability };
                walk.fill_parts(parts, filling, generator);
            }
            (Some(graph), SamplerKind::Knn) => knn::fill_parts(graph, self.skip, parts, filling, generator),
            (Some(_), SamplerKind::Communities | SamplerKind::Clusters) => {
                if let Some(blocks) = blocks {
                    blocks.fill_parts(parts, filling, generator);
                }
            }
            (None, _) | (_, SamplerKind::Uniform) => {}
        }

        let walked = filling.ids.len();
        filling.aim_for(self.size);
        for &id in &self.skipped {
            filling.offer_skipped(id);
        }
        filling.top_up(generator);
        if self.dials.counts_uniform_draws {
            let uniform = filling.ids.len() - walked;
            filling.counts.uniform_draws = uniform as u64;
            spread(&mut filling.ids, uniform);
        }
    }

    /// Where explicit negatives are searched for; `None` if they are chosen uniformly, as a warm-up's are.
    pub fn negative_search<'g>(&self, graph: Option<&'g ProximityGraph>) -> Option<NegativeSearch<'g>> {
        let Dials { sampler, counts_uniform_draws, restart_probability, .. } = self.dials;
        let is_warm_up = sampler == SamplerKind::Uniform && counts_uniform_draws;
        let graph = graph.filter(|_| !is_warm_up)?;
        Some(NegativeSearch { graph, skip: self.skip, restart_probability })
    }
}
