use std::sync::Arc;

use rand::{Rng, RngExt};

use super::Strata;
use crate::sample::SampleId;

/// The remaining samples of each stratum.
#[derive(Clone, Debug)]
pub(in crate::walk) struct Pools {
    strata: Arc<Strata>,
    /// Those of each stratum in any order, and some that were drawn since the last sweep.
    ids: Vec<Vec<SampleId>>,
    left: Vec<u64>,
}

impl Pools {
    /// Divides the samples that remain.
    pub fn new(strata: &Arc<Strata>, remaining: impl Iterator<Item = SampleId>) -> Self {
        let mut ids = vec![Vec::new(); strata.len()];
        remaining.for_each(|id| ids[strata.stratum(id)].push(id));
        let left = ids.iter().map(|ids| ids.len() as u64).collect();
        Self { strata: strata.clone(), ids, left }
    }

    pub fn strata(&self) -> &Arc<Strata> {
        &self.strata
    }

    /// How many remain of each stratum.
    pub fn left(&self) -> &[u64] {
        &self.left
    }

    pub fn count_taken(&mut self, id: SampleId) {
        self.left[self.strata.stratum(id)] -= 1;
    }

    pub fn count_put_back(&mut self, id: SampleId) {
        self.left[self.strata.stratum(id)] += 1;
    }

    /// Picks a uniformly random sample of a stratum for which `remains` holds, except those picked since `picked` was
    /// 0.
    pub fn pick(
        &mut self,
        stratum: usize,
        picked: &mut usize,
        remains: impl Fn(SampleId) -> bool,
        generator: &mut impl Rng,
    ) -> Option<SampleId> {
        let ids = &mut self.ids[stratum];
        while *picked < ids.len() {
            let at = generator.random_range(*picked..ids.len());
            ids.swap(*picked, at);
            *picked += 1;
            let id = ids[*picked - 1];
            if remains(id) {
                return Some(id);
            }
        }
        None
    }

    /// Forgets drawn samples of a stratum if they are as many as the remaining ones.
    pub fn sweep(&mut self, stratum: usize, remains: impl Fn(SampleId) -> bool) {
        if self.ids[stratum].len() as u64 > 2 * self.left[stratum] {
            self.ids[stratum].retain(|&id| remains(id));
        }
    }

    /// Begins another pass over a stratum, of which these samples remain.
    pub fn refill(&mut self, stratum: usize, ids: Vec<SampleId>) {
        self.left[stratum] = ids.len() as u64;
        self.ids[stratum] = ids;
    }
}
