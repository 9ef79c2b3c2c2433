//! How old embeddings are, counted in delivered mini-batches.

use std::sync::Arc;

use crate::sample::SampleId;

/// When embeddings were made, as a number of delivered mini-batches.
#[derive(Clone, Debug)]
pub struct Ages {
    /// The step of the last pass over all samples.
    pub embedded_at_step: u64,
    /// The step at which each sample's vector was pushed, or [`NEVER`](Self::NEVER). Empty if none was pushed since the
    /// last pass over all samples.
    pub(super) pushed_at_step: Arc<[u64]>,
}

/// How old embeddings are, in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgeSummary {
    /// The mean over all samples.
    pub mean: f64,
    /// The 95th percentile: 95 of 100 embeddings are no older.
    pub p95: u64,
    /// Samples whose vector was not pushed since the last pass over all samples.
    pub never_pushed: usize,
}

impl Ages {
    /// The step of a sample that was not pushed.
    pub(super) const NEVER: u64 = u64::MAX;

    pub(super) fn all_at(embedded_at_step: u64) -> Self {
        Self { embedded_at_step, pushed_at_step: [].into() }
    }

    fn made_at(&self, id: SampleId) -> u64 {
        self.pushed_at(id).unwrap_or(self.embedded_at_step)
    }

    fn pushed_at(&self, id: SampleId) -> Option<u64> {
        self.pushed_at_step.get(id.index()).copied().filter(|&at| at != Self::NEVER)
    }

    /// Whether the trainer pushed the sample's vector.
    pub(super) fn is_pushed(&self, id: SampleId) -> bool {
        self.pushed_at(id).is_some()
    }

    /// The mean age of these samples' embeddings at `step`, in whole steps.
    pub(crate) fn mean(&self, ids: &[SampleId], step: u64) -> u64 {
        if self.pushed_at_step.is_empty() || ids.is_empty() {
            return step.saturating_sub(self.embedded_at_step);
        }
        ids.iter().map(|&id| step.saturating_sub(self.made_at(id))).sum::<u64>() / ids.len() as u64
    }

    /// The ages at `step` of `samples` samples, `present` of which have an embedding.
    pub(super) fn summary(&self, samples: usize, present: usize, step: u64) -> AgeSummary {
        let mut ages: Vec<u64> = if self.pushed_at_step.is_empty() {
            vec![step.saturating_sub(self.embedded_at_step)]
        } else {
            (0..samples).map(|index| step.saturating_sub(self.made_at(SampleId::new(index)))).collect()
        };
        ages.sort_unstable();
        let pushed = self.pushed_at_step.iter().filter(|at| **at != Self::NEVER).count();
        AgeSummary {
            mean: ages.iter().sum::<u64>() as f64 / ages.len().max(1) as f64,
            p95: ages.get((ages.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0),
            never_pushed: present - pushed,
        }
    }
}
