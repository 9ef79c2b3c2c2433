use std::sync::Arc;

use rand::Rng;

use super::remaining::Remaining;
use super::strata::{Moment, Share, Shares, Strata, Whose};
use crate::config::WalkConfig;
use crate::embeddings::EmbeddingTable;
use crate::sample::SampleId;

/// The strata that the samples of an epoch are divided into, and what its mini-batches take of each.
#[derive(Clone, Debug)]
pub(super) struct EpochStrata {
    pub strata: Arc<Strata>,
    pub shares: Shares,
    /// How many samples the epoch has.
    samples: usize,
}

impl EpochStrata {
    /// Divides the samples that remain of the first `samples`; mini-batches have `least` of them at least, or two.
    pub fn new(
        strata: &Arc<Strata>,
        remaining: &mut Remaining,
        config: &WalkConfig,
        samples: usize,
        at: Moment,
        least: usize,
    ) -> Self {
        assert!(strata.samples() >= samples, "every sample has a stratum");
        remaining.divide(strata);
        Self { strata: strata.clone(), shares: Shares::new(strata, config, samples, at, least), samples }
    }

    /// How many mini-batches the epoch has at most.
    pub fn mini_batches(&self, at: Moment, remaining: &Remaining) -> u64 {
        remaining.pools().map_or(0, |pools| self.shares.mini_batches(at.drawn, at.step, pools.left()))
    }

    /// What the next mini-batch takes of each stratum, and whether one of them has begun anew, of which less was left;
    /// `None` at the end of the epoch. Samples that `embeddings` leave out of epochs are not in the new pass.
    pub fn next(
        &mut self,
        at: Moment,
        remaining: &mut Remaining,
        embeddings: Option<&EmbeddingTable>,
        generator: &mut impl Rng,
    ) -> Option<(Vec<Share>, bool)> {
        remaining.sweep();
        let any = if self.shares.draws_from_all() { remaining.pick(&mut 0, generator) } else { None };
        let any = any.map(|id| self.strata.stratum(id));
        let mut next = self.shares.next(at.drawn, at.step, remaining.pools()?.left(), any, generator);
        let mut began_anew = false;
        if self.shares.repeats() {
            let is_out = |id| embeddings.is_some_and(|table| table.is_skipped(id) || table.is_inconsistent(id));
            let is_in = |id: SampleId| id.index() < self.samples && !is_out(id);
            for share in &mut next {
                let Whose::Of(stratum) = share.whose else { continue };
                if (share.places as u64) > remaining.pools()?.left()[stratum] {
                    share.first = remaining.refill(stratum, is_in);
                    began_anew = true;
                }
            }
        }
        (!next.is_empty()).then_some((next, began_anew))
    }
}
