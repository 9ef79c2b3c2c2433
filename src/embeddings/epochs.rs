//! Which samples an epoch has.

use super::table::EmbeddingTable;
use crate::sample::SampleId;

impl EmbeddingTable {
    /// Sets which samples are inconsistent pairs, a bit for each sample; none that was skipped.
    pub(crate) fn set_inconsistent(&mut self, bits: Vec<u64>) {
        self.inconsistent = if bits.iter().all(|bits| *bits == 0) { Vec::new() } else { bits };
    }

    /// Whether a sample is a pair that [`pairs.within`](crate::config::PairsConfig::within) leaves out of epochs.
    #[must_use]
    pub fn is_inconsistent(&self, id: SampleId) -> bool {
        self.inconsistent.get(id.index() / 64).is_some_and(|bits| bits >> (id.index() % 64) & 1 == 1)
    }

    /// Returns the number of those.
    #[must_use]
    pub fn inconsistent(&self) -> usize {
        self.inconsistent.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// Returns the number of samples that an epoch has which begins with this table.
    pub(crate) fn in_epochs(&self) -> usize {
        self.present() - self.inconsistent()
    }

    /// Returns a bit for each sample, set if it is in an epoch that begins with this table.
    pub(crate) fn epoch_bits(&self) -> Vec<u64> {
        let mut bits = self.present_bits();
        bits.iter_mut().zip(&self.inconsistent).for_each(|(bits, inconsistent)| *bits &= !inconsistent);
        bits
    }

    /// Returns a bit for each sample, set if it has an embedding.
    fn present_bits(&self) -> Vec<u64> {
        let mut bits = all_bits(self.len());
        bits.iter_mut().zip(self.skipped.bits()).for_each(|(bits, skipped)| *bits &= !skipped);
        bits
    }
}

/// Returns a set bit for each of so many samples.
pub(crate) fn all_bits(samples: usize) -> Vec<u64> {
    let mut bits = vec![u64::MAX; samples.div_ceil(64)];
    if let (Some(last), rest @ 1..) = (bits.last_mut(), samples % 64) {
        *last = (1 << rest) - 1;
    }
    bits
}
