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
    /// Those that remained at the last draw, by ascending id.
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

    /// Draws those of a mini-batch of `size`, with `left` mini-batches to come.
    ///
    /// There are more if too few other samples remain to fill the mini-batch.
    pub fn draw(&mut self, remaining: &Remaining, size: usize, left: u64, generator: &mut impl Rng) -> Vec<SampleId> {
        self.ids.retain(|&id| remaining.contains(id));
        let share = (self.ids.len() as u64).div_ceil(left.max(1)) as usize;
        let others = remaining.len() - self.ids.len();
        let count = share.max(size.saturating_sub(others)).min(size);
        let mut ids = self.ids.clone();
        ids.partial_shuffle(generator, count).0.to_vec()
    }
}
