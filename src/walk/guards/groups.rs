use std::ops::Range;

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::store::{Key, Store};

/// Samples that share a value: a group for each value that at least two samples have, of each of some keys.
///
/// Values are compared by 64 bits of their hash. Two unlike values may have the same, which then keeps samples apart
/// that need not be, and never brings two together that must not be: among a million values the odds are one in 37
/// million, among a billion one in 37. 4 bytes a sample and key, and 8 for each sample that is in a group; 16 for each
/// value while they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Where in `of` the groups of each sample begin; one more than there are samples.
    starts: Vec<u32>,
    of: Vec<u32>,
    /// Where in `members` those of each group begin; one more than there are groups.
    first_members: Vec<u32>,
    members: Vec<SampleId>,
    /// Where the groups of each key begin; one more than there are keys.
    first_groups: Vec<u32>,
    /// The most samples that can be together by each key, and which of its columns says so.
    most_together: Vec<(usize, usize)>,
}

impl Groups {
    /// Groups by each of these keys. A null is in no group, nor is NaN, and −0 is 0. Reads the columns once; blocks
    /// meanwhile. Groups are numbered by key, and then by their first sample.
    ///
    /// # Errors
    /// [`Error::MissingColumn`]; [`Error::ColumnType`] for types that have no equality; [`Error::UnsupportedSource`] where
    /// lists have more than four billion items.
    pub fn of(store: &Store, keys: &[Key]) -> Result<Self> {
        let mut groups = Self { first_members: vec![0], first_groups: vec![0], ..Self::default() };
        let mut memberships: Vec<(SampleId, u32)> = Vec::new();
        for key in keys {
            let (hashes, most_together) = store.hashes(key)?;
            let mut shared: Vec<_> = hashes.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1).collect();
            // Not by hash: another Rust release may hash differently, and mini-batches must not depend on that.
            shared.sort_unstable_by(|a, b| a.iter().map(|of| of.1).cmp(b.iter().map(|of| of.1)));
            for same in shared {
                let group = groups.len() as u32;
                memberships.extend(same.iter().map(|&(_, id)| (id, group)));
                groups.members.extend(same.iter().map(|&(_, id)| id));
                groups.first_members.push(position(groups.members.len(), store)?);
            }
            groups.most_together.push(most_together);
            groups.first_groups.push(groups.len() as u32);
        }
        memberships.sort_unstable();
        groups.starts.reserve(store.len() + 1);
        groups.of.reserve(memberships.len());
        for id in 0..store.len() {
            groups.starts.push(position(groups.of.len(), store)?);
            let rest = &memberships[groups.of.len()..];
            groups.of.extend(rest.iter().take_while(|(member, _)| member.index() == id).map(|&(_, group)| group));
        }
        groups.starts.push(position(groups.of.len(), store)?);
        Ok(groups)
    }

    /// How many groups there are, of all keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first_members.len().saturating_sub(1)
    }

    /// Whether no two samples share a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The groups that a sample is in; none for samples that came later.
    #[inline]
    #[must_use]
    pub fn groups_of(&self, id: SampleId) -> &[u32] {
        match self.starts.get(id.index()..id.index() + 2) {
            Some(&[start, end]) => &self.of[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The samples in a group, by id.
    #[must_use]
    pub fn members(&self, group: u32) -> &[SampleId] {
        let range = |group: usize| self.first_members[group] as usize..self.first_members[group + 1] as usize;
        &self.members[range(group as usize)]
    }

    /// How many keys were looked at.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.most_together.len()
    }

    /// The groups of a key.
    #[must_use]
    pub fn of_key(&self, key: usize) -> Range<u32> {
        self.first_groups[key]..self.first_groups[key + 1]
    }

    /// The most samples that can be together without sharing a value of a key: its different values, every null one of
    /// its own; of several columns those of the one that has the fewest. Of lists all samples, though it may be fewer.
    #[must_use]
    pub fn most_together(&self, key: usize) -> usize {
        self.most_together[key].0
    }

    /// Which of a key's columns has so few values, from 0.
    pub(crate) fn scarcest(&self, key: usize) -> usize {
        self.most_together[key].1
    }
}

fn position(at: usize, store: &Store) -> Result<u32> {
    u32::try_from(at).map_err(|_| Error::too_many_samples(store.uri()))
}
