use rand::rngs::ChaCha8Rng;

use super::dials::Dials;
use super::filling::Filling;
use super::guards::Admission;
use super::knn;
use super::negatives::NegativeSearch;
use super::partition::Blocks;
use super::parts::{Parts, interleave, spread};
use super::random_walk::RandomWalk;
use super::reverse::ReverseEdges;
use super::strata::{Share, Strata, Whose};
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
    /// What it takes of each stratum; empty if samples are not divided.
    pub shares: Vec<Share>,
}

/// What the samples of a mini-batch are found in.
pub(super) struct Ground<'a> {
    /// `None` if all is drawn uniformly.
    pub graph: Option<&'a ProximityGraph>,
    pub reverse: Option<&'a ReverseEdges>,
    pub blocks: Option<&'a mut Blocks>,
    pub strata: Option<&'a Strata>,
}

impl Plan {
    /// Fills a mini-batch, share by share if samples are divided into strata. Members of strata take turns in the end.
    pub fn fill<'a, A: Admission>(
        &self,
        mut ground: Ground<'a>,
        filling: &mut Filling<'a, A>,
        generator: &mut ChaCha8Rng,
    ) {
        let Some(strata) = ground.strata.filter(|_| !self.shares.is_empty()) else {
            let share = Share { whose: Whose::All, places: self.size, is_uniform: false, first: Vec::new() };
            return self.fill_share(&share, &self.must_draw, &mut ground, filling, generator);
        };
        let mut sizes = Vec::with_capacity(self.shares.len());
        for (number, share) in self.shares.iter().enumerate() {
            let before = filling.ids.len();
            filling.begin_share(strata, share.whose, share.places);
            let must_draw = if number == 0 && share.first.is_empty() { &self.must_draw } else { &share.first };
            self.fill_share(share, must_draw, &mut ground, filling, generator);
            sizes.push(filling.ids.len() - before);
        }
        interleave(&mut filling.ids, &sizes);
    }

    /// Fills a share of a mini-batch.
    ///
    /// 1. Take the must-draw samples, as far as guards allow.
    /// 2. Fill what is neither for skipped samples nor for the random share by walks, nearest first, or by blocks.
    /// 3. Take the skipped samples, and fill the rest uniformly. Place all of these evenly between the others.
    ///
    /// Without a graph, it is all filled uniformly.
    fn fill_share<A: Admission>(
        &self,
        share: &Share,
        must_draw: &[SampleId],
        ground: &mut Ground<'_>,
        filling: &mut Filling<'_, A>,
        generator: &mut ChaCha8Rng,
    ) {
        let before = filling.ids.len();
        for &id in must_draw {
            if self.keeps_skipped {
                filling.offer_skipped(id);
            } else if !filling.is_full() {
                filling.offer(id);
            }
        }
        let must_draw = filling.ids.len() - before;

        let random = if share.is_uniform { share.places } else { self.dials.random_places(share.places) };
        let random = random.saturating_add(self.skipped.len()).min(share.places);
        let parts = Parts::new(self.starts(share), share.places - random, must_draw).after(before);
        match (ground.graph, self.dials.sampler) {
            (Some(graph), SamplerKind::RandomWalk) => {
                let restart_probability = self.dials.restart_probability;
                let walk = RandomWalk { graph, reverse: ground.reverse, skip: self.skip, restart_probability };
                walk.fill_parts(parts, filling, generator);
            }
            (Some(graph), SamplerKind::Knn) => knn::fill_parts(graph, self.skip, parts, filling, generator),
            (Some(_), SamplerKind::Communities | SamplerKind::Clusters) => {
                if let Some(blocks) = &mut ground.blocks {
                    blocks.fill_parts(parts, filling, generator);
                }
            }
            (None, _) | (_, SamplerKind::Uniform) => {}
        }

        let walked = filling.ids.len();
        filling.aim_for(before + share.places);
        for &id in &self.skipped {
            filling.offer_skipped(id);
        }
        filling.top_up(generator);
        if self.dials.counts_uniform_draws {
            let uniform = filling.ids.len() - walked;
            filling.counts.uniform_draws += uniform as u64;
            spread(&mut filling.ids[before..], uniform);
        }
    }

    /// How many walks fill a share: as many of `walk.starts` as it has of the places, but one at least.
    fn starts(&self, share: &Share) -> usize {
        if share.places == self.size {
            return self.dials.starts;
        }
        (self.dials.starts * share.places / self.size.max(1)).max(1)
    }

    /// Where explicit negatives are searched for; `None` if they are chosen uniformly, as a warm-up's are.
    pub fn negative_search<'g>(&self, graph: Option<&'g ProximityGraph>) -> Option<NegativeSearch<'g>> {
        let Dials { sampler, counts_uniform_draws, restart_probability, .. } = self.dials;
        let is_warm_up = sampler == SamplerKind::Uniform && counts_uniform_draws;
        let graph = graph.filter(|_| !is_warm_up)?;
        Some(NegativeSearch { graph, skip: self.skip, restart_probability })
    }
}
